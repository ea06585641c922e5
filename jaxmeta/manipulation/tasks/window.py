"""Window: slide a pane to the right to open it, or to the left to close it.

`vector` is the position of the window's frame. `object` is a point of the pane's
handle, on the side that is pushed. `landmark` and `joint` are not read. Yu et al.,
Meta-World (CoRL 2019), version 2 reward.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from jaxmeta.manipulation.shaping import Sigmoid, both, distance, nearing
from jaxmeta.manipulation.task import Episode, ManipulationTask, Reward

RADIUS = 0.05
"""Within this of the goal, in metres along x, the pane is there."""
REACHED = 0.02
"""Within this of the handle, in metres, the tips are there."""


class Window(ManipulationTask):
    """Only x counts for what is left to do.

    Attributes:
      way: the goal's x seen from the frame, metres.
      handle: where the handle starts, seen from the frame, metres.
      travel: how far it starts from the goal, as the reward takes it, metres.
      sigmoid: how the reward for reaching the handle falls.
    """

    hand_start = (0.0, 0.4, 0.2)
    goal_low, goal_high = ManipulationTask.hand_low, ManipulationTask.hand_high
    quat_order = "zeros"
    way: ClassVar[float]
    handle: ClassVar[tuple[float, float, float]]
    travel: ClassVar[float]
    sigmoid: ClassVar[Sigmoid]

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
    way = 0.2
    handle = (-0.04, -0.095, 0.0)
    travel = 0.2
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
    sigmoid = "gaussian"
