"""Push: bring a puck, or a block, over the table to a goal, away or back.

`vector` is where the object starts and the goal, both at the height at which the object
rests rather than at the drawn one. `object` is the puck or the block; `landmark` and
`joint` are not read. Yu et al., Meta-World (CoRL 2019), rewards of versions 2 and 1.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.core.types import Array, Float
from jaxmeta.manipulation.contact import BOX
from jaxmeta.manipulation.grasp import pinching
from jaxmeta.manipulation.scene import UNTURNABLE, Box, Geometry, Placement, placed
from jaxmeta.manipulation.shaping import Point, distance
from jaxmeta.manipulation.shaping_v1 import reach_then
from jaxmeta.manipulation.task import Episode, Readings, Reward
from jaxmeta.manipulation.tasks.pick_place import (
    BLOCK_HEIGHT,
    PUCK,
    PUCK_HEIGHT,
    PUCK_INERTIA,
    Carry,
    puck_caging,
)


def lying(vector: Float[Array, " n"], height: float) -> Placement:
    """An object on the table, at the height at which it rests, metres."""
    return placed(free=vector[:3].at[2].set(height))


def on_table(vector: Float[Array, "6"], first: Readings, tcp: Point) -> Episode:
    """Start and goal at the height at which the object lies after the reset."""
    height = first.object[2]
    start, target = vector[:3].at[2].set(height), vector[3:].at[2].set(height)
    return Episode(target, start, tcp, jnp.zeros(3))


def pushing(now: Readings, episode: Episode) -> Reward:
    """The version 1 reward of all tasks that push the object over the table."""
    return reach_then(
        "push",
        distance(now.object, now.tcp),
        distance(now.object[:2], episode.target[:2]),
        distance(episode.object[:2], episode.target[:2]),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Push(Carry):
    """`vector` is the puck's position and the goal; heights are not used."""

    name = "push"
    low = (-0.1, 0.6, 0.02, -0.1, 0.8, 0.01)
    high = (0.1, 0.7, 0.02, 0.1, 0.9, 0.02)
    goal_low, goal_high = low[3:], high[3:]
    quat_order = "xyzw"
    geometry = Geometry(free=(PUCK,), inertia=PUCK_INERTIA)
    solved_within = 0.05

    def place(self, vector):
        return lying(vector, PUCK_HEIGHT)

    def begin(self, vector, first, tcp):
        return on_table(vector, first, tcp)

    def grasp(self, now, episode, action):
        return puck_caging(now, episode, action, "high")

    def on_the_way(self, now, episode, grasp, in_place):
        bonus = 1.0 + 2.0 * grasp + self.carrying * in_place
        return 2.0 * grasp + jnp.where(self.held(now, episode), bonus, 0.0)

    def reward_v1(self, now, episode, action):
        del action
        return pushing(now, episode)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PushBack(Carry):
    """`vector` is the block's position and the goal; heights are not used."""

    name = "push-back"
    low = (-0.1, 0.8, 0.02, -0.1, 0.6, 0.0199)
    high = (0.1, 0.85, 0.02, 0.1, 0.7, 0.0201)
    goal_low, goal_high = low[3:], high[3:]
    quat_order = "xyzw"
    geometry = Geometry(
        free=(Box((0.02, 0.02, 0.02), mass=0.75),),
        inertia=UNTURNABLE,
        friction=2.0,
        free_of=BOX,
    )
    reach = 0.01

    def place(self, vector):
        return lying(vector, BLOCK_HEIGHT)

    def begin(self, vector, first, tcp):
        return on_table(vector, first, tcp)

    def grasp(self, now, episode, action):
        del action
        return pinching(
            now,
            episode,
            now.object,
            object_radius=0.007,
            slack=0.003,
            xz_threshold=0.01,
        )

    def held(self, now, episode):
        start = distance(episode.object, episode.target)
        gained = start - distance(now.object, episode.target)
        closed = now.opening < 0.55
        return super().held(now, episode) & closed & (gained > 0.01)

    def reward_v1(self, now, episode, action):
        del action
        return pushing(now, episode)
