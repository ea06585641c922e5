"""Pull a plug sideways out of a socket.

`vector` is where the block with the socket stands. `object` is the end of the plug that
sticks out. `landmark` and `joint` are not read. Yu et al., Meta-World (CoRL 2019),
version 2 reward.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.manipulation.grasp import caging
from jaxmeta.manipulation.shaping import choose, closeness, distance
from jaxmeta.manipulation.task import Episode, ManipulationTask, Reward

PLUGGED = (0.044, 0.0, 0.131)
"""From the foot of the block to the plug when it is in, metres."""
OUT = (0.15, 0.0, 0.0)
"""From there to the goal, metres."""
RADIUS = 0.05
"""Within this of the goal, in metres, the plug's end earns the full reward."""
SOLVED = 0.07
"""Within this of the goal, in metres, the task is solved."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PegUnplugSide(ManipulationTask):
    """Grip the plug's end and pull it along x."""

    name = "peg-unplug-side"
    low = (-0.25, 0.6, -0.001)
    high = (-0.15, 0.8, 0.001)
    goal_low = (-0.056, 0.6, 0.13)
    goal_high = (0.044, 0.8, 0.132)

    def begin(self, vector, first, tcp):
        plug = vector + jnp.array(PLUGGED)
        return Episode(plug + jnp.array(OUT), first.object, tcp, jnp.zeros(3))

    def reward(self, now, episode, action):
        left = distance(now.object, episode.target)
        grasped = caging(
            now,
            episode,
            action,
            now.object,
            object_radius=0.025,
            pad_success=0.05,
            reach_radius=0.01,
            xz_threshold=0.005,
            effort=0.8,
            density="high",
        )
        margin = distance(episode.object, episode.target)
        in_place = closeness(left, RADIUS, margin)
        moved = now.object[0] - episode.object[0] > 0.015
        at_tips = distance(now.object, now.tcp) < 0.035
        pulled = (now.opening > 0.5) & moved & at_tips
        total = 2.0 * grasped + choose(pulled, 1.0 + 5.0 * in_place, 0.0)
        terms = {"grasped": grasped, "in_place": in_place}
        return Reward(choose(left <= RADIUS, 10.0, total), terms)

    def success(self, now, episode):
        return distance(now.object, episode.target) <= SOLVED
