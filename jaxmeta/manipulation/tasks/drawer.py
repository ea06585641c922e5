"""Drawer: pull a shut drawer open by its handle, or push an open one shut.

`vector` is where the chest stands. `object` is the middle of the handle, for closing a
point 5 cm above it. `quat` is the drawer's, which never turns; `landmark` and `joint`
are not read. Yu et al., Meta-World (CoRL 2019), rewards of versions 2 and 1.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from jaxmeta.manipulation.scene import (
    ALONG_X,
    ALONG_Y,
    At,
    Box,
    Capsule,
    Geometry,
    Joint,
    placed,
)
from jaxmeta.manipulation.shaping import (
    both,
    closeness,
    distance,
    length,
    nearing,
)
from jaxmeta.manipulation.shaping_v1 import reach_then
from jaxmeta.manipulation.task import Episode, ManipulationTask, Reward

SHUT = (0.0, -0.16, 0.09)
"""About where the handle of a shut drawer is, seen from the chest, metres."""
TRAVEL = 0.2
"""From there to where it is when open, metres."""
SCALE = (3.0, 3.0, 1.0)
"""How much a distance counts along each axis: the hand first comes above the handle."""

CHEST = (
    Box((0.008, 0.1, 0.084), (-0.11, 0.0, 0.084)),
    Box((0.008, 0.1, 0.084), (0.11, 0.0, 0.084)),
    Box((0.102, 0.008, 0.076), (0.0, 0.092, 0.076)),
    Box((0.102, 0.092, 0.014), (0.0, -0.008, 0.014)),
    Box((0.102, 0.1, 0.008), (0.0, 0.0, 0.16)),
)
# As official but for the drawer's back, which never leaves the chest: its mass is the
# bottom's. Front, sides, bottom; the handle's feet and its bar.
DRAWER = (
    Box((0.1, 0.008, 0.052), (0.0, -0.082, 0.008), mass=0.04),
    Box((0.008, 0.074, 0.052), (-0.092, 0.0, 0.008), mass=0.04),
    Box((0.008, 0.074, 0.052), (0.092, 0.0, 0.008), mass=0.04),
    Box((0.1, 0.09, 0.008), (0.0, 0.0, -0.052), mass=0.08),
    Capsule(0.009, 0.03, (-0.05, -0.12, 0.0), ALONG_Y, 0.06),
    Capsule(0.009, 0.03, (0.05, -0.12, 0.0), ALONG_Y, 0.06),
    Capsule(0.009, 0.05, (0.0, -0.15, 0.0), ALONG_X, 0.06),
)
# Officially down to -0.16, the very place where it counts as open.
RAIL = Joint((0.0, 1.0, 0.0), -0.17, 0.0, damping=2.0)
HANDLE = (0.0, -0.16, 0.0)
"""The observed point of the handle, in the drawer's frame, metres."""


class Drawer(ManipulationTask):
    """A chest against the far wall, its drawer opening toward the robot.

    Attributes:
      start: where the drawer starts on its rail, metres.
      way: what version 1 takes for its way to the goal, metres.
    """

    low = (-0.1, 0.9, 0.0)
    high = (0.1, 0.9, 0.0)
    goal_low, goal_high = ManipulationTask.hand_low, ManipulationTask.hand_high
    geometry = Geometry(
        fixed=CHEST,
        mechanism=DRAWER,
        mechanism_pos=(0.0, -0.01, 0.09),
        slides=(RAIL,),
    )
    start: ClassVar[float] = 0.0
    way: ClassVar[float]

    def place(self, vector):
        return placed(fixture=vector, joints=(self.start, 0.0, 0.0))

    def reward_v1(self, now, episode, action):
        del action
        apart = distance(now.object, now.tcp)
        gap = jnp.abs(now.object[1] - episode.target[1])
        return reach_then("slide", apart, gap, self.way)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawerOpen(Drawer):
    """Pull the handle 20 cm toward the robot; `Episode.object` is where it starts."""

    name = "drawer-open"
    object_at = At("mechanism", HANDLE)
    way = TRAVEL

    def begin(self, vector, first, tcp):
        del first
        shut = vector + jnp.array(SHUT)
        target = shut - jnp.array([0.0, TRAVEL, 0.0])
        return Episode(target, shut, tcp, jnp.zeros(3))

    def reward(self, now, episode, action):
        del action
        scale = jnp.array(SCALE)
        opened = closeness(distance(now.object, episode.target), 0.02, TRAVEL)
        # Officially from the hand now, but from the tips at the start.
        apart = length(scale * (now.object - now.hand))
        caged = closeness(apart, 0.01, length(scale * (episode.object - episode.tcp)))
        return Reward(5.0 * (caged + opened), {"caged": caged, "opened": opened})

    def success(self, now, episode):
        # Just where the official drawer stops: it starts 1 cm beyond SHUT, and its rail
        # of 16 cm leaves 3 of the 20.
        return distance(now.object, episode.target) <= 0.03


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawerClose(Drawer):
    """Push with closed fingers."""

    name = "drawer-close"
    quat_order = "zeros"
    object_at = At("mechanism", (HANDLE[0], HANDLE[1], 0.05))
    start = -0.15
    way = 0.15

    def begin(self, vector, first, tcp):
        # The goal is at the handle's height, `object` above it: never nearer than 5 cm.
        return Episode(vector + jnp.array(SHUT), first.object, tcp, jnp.zeros(3))

    def reward(self, now, episode, action):
        shut = nearing(
            distance(now.object, episode.target),
            distance(episode.object, episode.target),
            0.05,
        )
        near = nearing(
            distance(now.object, now.tcp),
            distance(episode.object, episode.tcp),
            0.005,
            "gaussian",
        )
        reached = both(near, jnp.clip(action[3], 0.0, 1.0))
        made = jnp.where(self.success(now, episode), 1.0, both(reached, shut))
        return Reward(10.0 * made, {"reached": reached, "shut": shut})

    def success(self, now, episode):
        return distance(now.object, episode.target) <= 0.065
