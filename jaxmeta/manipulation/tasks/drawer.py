"""Drawer: pull a shut drawer open by its handle, or push an open one shut.

`vector` is where the chest stands. `object` is the middle of the handle, for closing a
point 5 cm above it. `quat` is the drawer's, which never turns; `landmark` and `joint`
are not read. Yu et al., Meta-World (CoRL 2019), version 2 reward.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.manipulation.shaping import (
    both,
    choose,
    closeness,
    distance,
    length,
    nearing,
)
from jaxmeta.manipulation.task import Episode, ManipulationTask, Reward

SHUT = (0.0, -0.16, 0.09)
"""About where the handle of a shut drawer is, seen from the chest, metres."""
TRAVEL = 0.2
"""From there to where it is when open, metres."""
SCALE = (3.0, 3.0, 1.0)
"""How much a distance counts along each axis: the hand first comes above the handle."""


class Drawer(ManipulationTask):
    """A chest against the far wall, its drawer opening toward the robot."""

    low = (-0.1, 0.9, 0.0)
    high = (0.1, 0.9, 0.0)
    goal_low, goal_high = ManipulationTask.hand_low, ManipulationTask.hand_high


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawerOpen(Drawer):
    """Pull the handle 20 cm toward the robot; `Episode.object` is where it starts."""

    name = "drawer-open"

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
        # Just where the drawer stops: its rail is 16 cm long, and 1 cm is lost in SHUT.
        return distance(now.object, episode.target) <= 0.03


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawerClose(Drawer):
    """Push with closed fingers."""

    name = "drawer-close"
    quat_order = "zeros"

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
        made = choose(self.success(now, episode), 1.0, both(reached, shut))
        return Reward(10.0 * made, {"reached": reached, "shut": shut})

    def success(self, now, episode):
        return distance(now.object, episode.target) <= 0.065
