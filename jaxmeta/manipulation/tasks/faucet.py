"""Faucet: turn the lever of a tap to the right to open it, to the left to close it.

`vector` is where the tap stands. `object` is the tip of its lever, which at the start
points to the robot, on the side that is pushed; `quat` is that of the tap's foot, which
never turns. `Episode.object` is the foot; `landmark` and `joint` are not read. Yu et
al., Meta-World (CoRL 2019), rewards of versions 2 and 1.
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
from jaxmeta.manipulation.shaping import distance, nearing
from jaxmeta.manipulation.shaping_v1 import reach_then
from jaxmeta.manipulation.task import Episode, ManipulationTask, Reward

HEIGHT = 0.125
"""Of the lever above the foot, metres."""
RADIUS = 0.07
"""Within this of the goal, in metres, the lever is turned."""
REACHED = 0.01
"""Within this of the lever's tip, in metres, the fingers are there."""

# Upright cylinders are square boxes of the same cross-section, the lever's neck, which
# lies, is a capsule. The foot's disc and its post; the head, the neck and the lever.
FOOT = (
    Box((0.041, 0.041, 0.009), (0.0, 0.0, 0.009)),
    Box((0.015, 0.015, 0.044), (0.0, 0.0, 0.061)),
)
LEVER = (
    Box((0.0284, 0.0284, 0.02), (0.0, 0.0, 0.001), mass=0.1287),
    Capsule(0.012, 0.021, (0.0, -0.05, 0.001), ALONG_Y, 0.0190),
    Capsule(0.017, 0.055, (0.0, -0.12, 0.001), ALONG_Y, 0.1204),
)
KNOB = Joint((0.0, 0.0, 1.0), -1.57, 1.57, damping=2.0)
TIP = (0.015, -0.175, -0.01)
"""The observed point in the frame of the lever, metres; for opening mirrored."""


class Faucet(ManipulationTask):
    """Bring the lever's tip to the right or left of the tap.

    Attributes:
      side: the goal's x seen from the tap, metres; its size is the lever's length.
      shift: from the observed tip to the one that version 2 takes, metres.
    """

    hand_start = (0.0, 0.4, 0.2)
    hand_low = (-0.5, 0.40, -0.15)
    goal_low, goal_high = hand_low, ManipulationTask.hand_high
    quat_order = "ones"
    geometry = Geometry(
        fixed=FOOT, mechanism=LEVER, mechanism_pos=(0.0, 0.0, 0.124), hinge=KNOB
    )
    side: ClassVar[float]
    shift: ClassVar[tuple[float, float, float]] = (0.0, 0.0, 0.0)

    def place(self, vector):
        return placed(fixture=vector)

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
        total = jnp.where(
            self.success(now, episode), 10.0, 4.0 * reached + 6.0 * turned
        )
        return Reward(total, {"reached": reached, "turned": turned})

    def reward_v1(self, now, episode, action):
        del action
        apart = distance(now.object, now.tcp)
        gap = distance(now.object, episode.target)
        start = distance(episode.object, episode.target)
        return reach_then("turn", apart, gap, start)

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
    object_at = At("mechanism", (-TIP[0], *TIP[1:]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaucetClose(Faucet):
    """To the left, pushed from the right."""

    name = "faucet-close"
    low = (-0.1, 0.8, 0.0)
    high = (0.1, 0.85, 0.0)
    side = -0.175
    object_at = At("mechanism", TIP)
