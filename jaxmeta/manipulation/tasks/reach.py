"""Bring the hand to a point in the air, with or without a wall in between.

`vector` is the puck's position and the goal. `object` is the puck, which only stands
by; `landmark` and `joint` are not read, nor is the grip. Yu et al., Meta-World (CoRL
2019), rewards of versions 2 and 1.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.manipulation.scene import At, Box, Geometry, placed
from jaxmeta.manipulation.shaping import distance, tolerance
from jaxmeta.manipulation.shaping_v1 import progress
from jaxmeta.manipulation.task import Episode, ManipulationTask, Reward
from jaxmeta.manipulation.tasks.pick_place import PUCK, PUCK_INERTIA

FLAT_PUCK = Box((0.03, 0.03, 0.015), mass=0.75)
WALL = Box((0.12, 0.01, 0.06), (0.1, 0.75, 0.06))

RADIUS = 0.05
"""Within this of the goal, in metres, it is reached."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reach(ManipulationTask):
    """Solved by the middle between the finger tips."""

    name = "reach"
    low = (-0.1, 0.6, 0.02, -0.1, 0.8, 0.05)
    high = (0.1, 0.7, 0.02, 0.1, 0.9, 0.3)
    goal_low, goal_high = low[3:], high[3:]
    quat_order = "xyzw"
    geometry = Geometry(free=(PUCK,), inertia=PUCK_INERTIA)
    object_at = At("free")

    def place(self, vector):
        return placed(free=vector[:3])

    def accepts(self, vector):
        return distance(vector[:2], vector[3:5]) >= 0.15

    def begin(self, vector, first, tcp):
        del first
        return Episode(vector[3:], vector[:3], tcp, jnp.zeros(3))

    def reward(self, now, episode, action):
        del action
        start = jnp.array(self.hand_start)
        in_place = tolerance(
            distance(now.tcp, episode.target),
            (0.0, RADIUS),
            distance(start, episode.target),
            "long_tail",
        )
        return Reward(10.0 * in_place, {"in_place": in_place})

    def reward_v1(self, now, episode, action):
        del action
        start = distance(episode.tcp, episode.target)
        reach = jnp.maximum(progress(distance(now.tcp, episode.target), start), 0.0)
        return Reward(reach, {"reach": reach})

    def success(self, now, episode):
        return distance(now.tcp, episode.target) <= RADIUS


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReachWall(Reach):
    """The same behind a wall, with a flatter puck."""

    name = "reach-wall"
    # The official puck comes to rest so deep in the table, and deeper.
    geometry = Geometry(
        floor=-0.0009, free=(FLAT_PUCK,), inertia=PUCK_INERTIA, walls=(WALL,)
    )
    low = (-0.05, 0.6, 0.015, -0.05, 0.85, 0.05)
    high = (0.05, 0.65, 0.015, 0.05, 0.9, 0.3)
    goal_low, goal_high = low[3:], high[3:]
