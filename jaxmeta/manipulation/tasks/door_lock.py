"""Turn the lever of a safe's lock: down to lock it, up and to the right to unlock it.

`vector` is the safe's position. `object` is a point at the tip of the lever, on the
side that is to be pushed; the episode's `object` is the lever's hinge, which never
moves. The observed orientation is the door's, which never turns; `landmark` and `joint`
are not read. Yu et al., Meta-World (CoRL 2019), rewards of versions 2 and 1.
"""

import abc
import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from jaxmeta.core.types import Scalar
from jaxmeta.manipulation.scene import At, Box, Geometry, Joint, placed
from jaxmeta.manipulation.shaping import (
    both,
    closeness,
    distance,
    length,
    shouldering,
)
from jaxmeta.manipulation.shaping_v1 import reach_then
from jaxmeta.manipulation.task import Episode, ManipulationTask, Readings, Reward

HINGE = (0.0, -0.118, 0.061)
"""The lever's hinge seen from the safe's middle, metres."""
LEVER = 0.1
"""The lever's length, metres."""
SCALE = (0.25, 1.0, 0.5)
"""How much a distance counts along each axis."""

# Officially five boards and a door: here a solid block and what stands out of it, the
# door, the lock's and the handle's foot, the handle's neck and its bars.
SAFE = (
    Box((0.22, 0.106, 0.15)),
    Box((0.184, 0.01, 0.124), (0.0, -0.1, 0.0)),
    Box((0.047, 0.013, 0.047), (0.0, -0.109, 0.061)),
    Box((0.028, 0.012, 0.028), (0.14, -0.106, -0.05)),
    Box((0.013, 0.047, 0.013), (0.14, -0.165, -0.05)),
    Box((0.075, 0.019, 0.019), (0.196, -0.22, -0.05)),
    Box((0.054, 0.023, 0.023), (0.21, -0.22, -0.05)),
)
BAR = Box((0.05, 0.019, 0.01), (0.042, -0.024, 0.0), mass=0.001)
"""The lever, which points to the right when it is unlocked, and down when locked."""
TURN = Joint((0.0, 1.0, 0.0), 0.0, 1.57, damping=2.0)


def _tip(z: float) -> At:
    """A point at the lever's tip, that high above its middle, metres."""
    return At("mechanism", (0.09, -0.04, z))


class Lock(ManipulationTask):
    """Push the lever's tip to a height or to a width.

    Attributes:
      axis: the axis along which the tip's distance from the goal counts.
      way: from the hinge to the goal, metres.
      angle: the lever's at the start, radians.
    """

    hand_low = (-0.5, 0.40, -0.15)
    low = (-0.1, 0.8, 0.15)
    high = (0.1, 0.85, 0.15)
    quat_order = "ones"
    geometry = Geometry(fixed=SAFE, mechanism=(BAR,), mechanism_pos=HINGE, hinge=TURN)
    axis: ClassVar[int]
    way: ClassVar[tuple[float, float, float]]
    angle: ClassVar[float] = 0.0

    def place(self, vector):
        return placed(fixture=vector, joints=(0.0, 0.0, self.angle))

    def begin(self, vector, first, tcp):
        del first
        hinge = vector + jnp.array(HINGE)
        return Episode(hinge + jnp.array(self.way), hinge, tcp, jnp.zeros(3))

    def reward(self, now, episode, action):
        del action
        ready = self._ready(now, episode)
        left = self._left(now, episode)
        pushed = closeness(left, 0.005, LEVER)
        return Reward(2.0 * ready + 8.0 * pushed, {"ready": ready, "pushed": pushed})

    def reward_v1(self, now, episode, action):
        del action
        apart = distance(now.object, now.tcp)
        gap = distance(now.object, episode.target)
        start = distance(episode.object, episode.target)
        return reach_then("turn", apart, gap, start)

    def success(self, now, episode):
        return self._left(now, episode) <= 0.02

    def _left(self, now, episode):
        return jnp.abs(episode.target[self.axis] - now.object[self.axis])

    @abc.abstractmethod
    def _ready(self, now: Readings, episode: Episode) -> Scalar:
        """How well the gripper is at the lever, in [0, 1]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoorLock(Lock):
    """The left finger, opened, should be at the lever's tip."""

    name = "door-lock"
    goal_low, goal_high = Lock.hand_low, Lock.hand_high
    axis = 2
    way = (0.0, -0.04, -LEVER)
    object_at = _tip(0.01)

    def _ready(self, now, episode):
        del episode
        apart = length((now.object - now.left_pad) * jnp.array(SCALE))
        # The official margin is meant to be the distance at the start but follows the
        # finger, so that this is about .1 wherever the finger is not at the tip.
        near = closeness(apart, 0.01, apart)
        return both(now.opening, near)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoorUnlock(Lock):
    """The shoulder of the gripper should be at the lever's tip."""

    name = "door-unlock"
    goal_low = (0.0, 0.64, 0.21)
    goal_high = (0.2, 0.7, 0.2111)
    axis = 0
    way = (LEVER, -0.04, 0.0)
    object_at = _tip(-0.01)
    angle = 1.5708

    def _ready(self, now, episode):
        return shouldering(
            now.hand - now.object, episode.tcp - episode.object, jnp.array(SCALE)
        )
