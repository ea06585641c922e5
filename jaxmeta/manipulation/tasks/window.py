"""Window: slide a pane to the right to open it, or to the left to close it.

`vector` is the position of the window's frame. `object` is a point of the pane's
handle, on the side that is pushed. `landmark` and `joint` are not read. Yu et al.,
Meta-World (CoRL 2019), rewards of versions 2 and 1.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from jaxmeta.manipulation.scene import (
    ALONG_Y,
    At,
    Box,
    Capsule,
    Geometry,
    Joint,
    placed,
)
from jaxmeta.manipulation.shaping import Sigmoid, both, distance, nearing
from jaxmeta.manipulation.shaping_v1 import reach_then
from jaxmeta.manipulation.task import Episode, ManipulationTask, Reward

RADIUS = 0.05
"""Within this of the goal, in metres along x, the pane is there."""
REACHED = 0.02
"""Within this of the handle, in metres, the tips are there."""
SLIDE = 0.2
"""How far a pane slides, metres."""

# Posts, sill, rails and the pane that stays. Both panes, officially four bars, a glass
# and a rib, are slabs as thick as the bars; the discs at the roots of the handle are
# part of the slab.
FRAME = (
    Box((0.015, 0.03, 0.181), (-0.216, 0.0, 0.0)),
    Box((0.015, 0.03, 0.181), (0.216, 0.0, 0.0)),
    Box((0.25, 0.06, 0.01), (0.0, 0.0, -0.192)),
    Box((0.201, 0.03, 0.015), (0.0, 0.0, -0.166)),
    Box((0.201, 0.03, 0.015), (0.0, 0.0, 0.166)),
    Box((0.1, 0.012, 0.15), (0.1, 0.013, 0.0)),
)
# The pane that slides, the feet of its handle and the handle.
PANE = (
    Box((0.1, 0.012, 0.15), (-0.1, -0.013, 0.0), mass=0.5852),
    Capsule(0.008, 0.035, (-0.014, -0.06, 0.045), ALONG_Y, 0.0162),
    Capsule(0.008, 0.035, (-0.014, -0.06, -0.045), ALONG_Y, 0.0162),
    Capsule(0.008, 0.045, (-0.014, -0.095, 0.0), mass=0.0202),
)
# Its limits are as hard as the frame, which the pane does not touch here.
RAIL = Joint((1.0, 0.0, 0.0), 0.0, SLIDE, damping=2.0, softness=0.005)


class Window(ManipulationTask):
    """Only x counts for what is left to do.

    Attributes:
      way: the goal's x seen from the frame, metres.
      handle: where the handle starts, seen from the frame, metres.
      travel: how far it starts from the goal, as the reward takes it, metres.
      sigmoid: how the reward for reaching the handle falls.
      start: where the pane starts on its rail, metres.
    """

    hand_start = (0.0, 0.4, 0.2)
    goal_low, goal_high = ManipulationTask.hand_low, ManipulationTask.hand_high
    quat_order = "zeros"
    geometry = Geometry(fixed=FRAME, mechanism=PANE, slides=(RAIL,))
    way: ClassVar[float]
    handle: ClassVar[tuple[float, float, float]]
    travel: ClassVar[float]
    sigmoid: ClassVar[Sigmoid]
    start: ClassVar[float]

    def place(self, vector):
        return placed(fixture=vector, joints=(self.start, 0.0, 0.0))

    def begin(self, vector, first, tcp):
        # Not `first.object`: the official one, after a reset, is of a closed window.
        del first
        target = vector + jnp.array([self.way, 0.0, 0.0])
        return Episode(target, vector + jnp.array(self.handle), tcp, jnp.zeros(3))

    def reward(self, now, episode, action):
        del action
        moved = nearing(self._left(now, episode), self.travel, RADIUS)
        reached = nearing(
            distance(now.object, now.tcp),
            distance(episode.object, episode.tcp),
            REACHED,
            self.sigmoid,
        )
        return Reward(10.0 * both(reached, moved), {"reached": reached, "moved": moved})

    def reward_v1(self, now, episode, action):
        del action
        apart, left = distance(now.object, now.tcp), self._left(now, episode)
        return reach_then("pull", apart, left, SLIDE, least=-jnp.inf)

    def success(self, now, episode):
        return self._left(now, episode) <= RADIUS

    def _left(self, now, episode):
        return jnp.abs(now.object[0] - episode.target[0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowOpen(Window):
    """To the right; the handle really starts 24 cm from the goal, not 20."""

    name = "window-open"
    low = (-0.1, 0.7, 0.16)
    high = (0.1, 0.9, 0.16)
    way = SLIDE
    handle = (-0.04, -0.095, 0.0)
    travel = 0.2
    start = 0.0
    object_at = At("mechanism", handle)
    sigmoid = "long_tail"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowClose(Window):
    """To the left."""

    name = "window-close"
    low = (0.0, 0.75, 0.2)
    high = (0.0, 0.9, 0.2)
    way = 0.0
    handle = (0.21, -0.095, 0.0)
    travel = 0.21
    start = SLIDE
    object_at = At("mechanism", (handle[0] - start, *handle[1:]))
    sigmoid = "gaussian"
