"""Turn the lever of a safe's lock: down to lock it, up and to the right to unlock it.

`vector` is the safe's position. `object` is a point at the tip of the lever, on the
side that is to be pushed; the episode's `object` is the lever's hinge, which never
moves. `quat` is the door's, which never turns; `landmark` and `joint` are not read. Yu
et al., Meta-World (CoRL 2019), version 2 reward.
"""

import abc
import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from jaxmeta.core.types import Scalar
from jaxmeta.manipulation.shaping import both, closeness, length, shouldering
from jaxmeta.manipulation.task import Episode, ManipulationTask, Readings, Reward

HINGE = (0.0, -0.118, 0.061)
"""The lever's hinge seen from the safe's middle, metres."""
LEVER = 0.1
"""The lever's length, metres."""
SCALE = (0.25, 1.0, 0.5)
"""How much a distance counts along each axis."""


class Lock(ManipulationTask):
    """Push the lever's tip to a height or to a width.

    Attributes:
      axis: the axis along which the tip's distance from the goal counts.
      way: from the hinge to the goal, metres.
    """

    hand_low = (-0.5, 0.40, -0.15)
    low = (-0.1, 0.8, 0.15)
    high = (0.1, 0.85, 0.15)
    axis: ClassVar[int]
    way: ClassVar[tuple[float, float, float]]

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

    def _ready(self, now, episode):
        return shouldering(
            now.hand - now.object, episode.tcp - episode.object, jnp.array(SCALE)
        )
