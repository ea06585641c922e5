"""Faucet: turn the lever of a tap to the right to open it, to the left to close it.

`vector` is where the tap stands. `object` is the tip of its lever, which at the start
points to the robot, on the side that is pushed; `quat` is that of the tap's foot, which
never turns. `Episode.object` is the foot; `landmark` and `joint` are not read. Yu et
al., Meta-World (CoRL 2019), version 2 reward.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from jaxmeta.manipulation.shaping import choose, distance, nearing
from jaxmeta.manipulation.task import Episode, ManipulationTask, Reward

HEIGHT = 0.125
"""Of the lever above the foot, metres."""
RADIUS = 0.07
"""Within this of the goal, in metres, the lever is turned."""
REACHED = 0.01
"""Within this of the lever's tip, in metres, the fingers are there."""


class Faucet(ManipulationTask):
    """Bring the lever's tip to the right or left of the tap.

    Attributes:
      side: the goal's x seen from the tap, metres; its size is the lever's length.
      shift: from the observed tip to the one that the reward takes, metres.
    """

    hand_start = (0.0, 0.4, 0.2)
    hand_low = (-0.5, 0.40, -0.15)
    goal_low, goal_high = hand_low, ManipulationTask.hand_high
    side: ClassVar[float]
    shift: ClassVar[tuple[float, float, float]] = (0.0, 0.0, 0.0)

    def begin(self, vector, first, tcp):
        del first
        target = vector + jnp.array([self.side, 0.0, HEIGHT])
        return Episode(target, vector, tcp, jnp.zeros(3))

    def reward(self, now, episode, action):
        del action
        # Both officially start at the foot, not at the lever's tip.
        turned = nearing(
            distance(self._tip(now), episode.target),
            distance(episode.object, episode.target),
            RADIUS,
        )
        reached = nearing(
            distance(self._tip(now), now.tcp),
            distance(episode.object, episode.tcp),
            REACHED,
            "gaussian",
        )
        total = choose(self.success(now, episode), 10.0, 4.0 * reached + 6.0 * turned)
        return Reward(total, {"reached": reached, "turned": turned})

    def success(self, now, episode):
        return distance(self._tip(now), episode.target) <= RADIUS

    def _tip(self, now):
        return now.object + jnp.array(self.shift)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaucetOpen(Faucet):
    """To the right, pushed from the left."""

    name = "faucet-open"
    low = (-0.05, 0.8, 0.0)
    high = (0.05, 0.85, 0.0)
    side = 0.175
    shift = (-0.04, 0.0, 0.03)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaucetClose(Faucet):
    """To the left, pushed from the right."""

    name = "faucet-close"
    low = (-0.1, 0.8, 0.0)
    high = (0.1, 0.85, 0.0)
    side = -0.175
