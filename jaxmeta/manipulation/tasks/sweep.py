"""Sweep: push a block to a goal far to its right, or into a hole in the table.

`vector` is where the block starts; for the hole also a goal, which is not used.
`object` is the block; `landmark` and `joint` are not read.
Yu et al., Meta-World (CoRL 2019), rewards of versions 2 and 1.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from jaxmeta.core.types import Array, Bool
from jaxmeta.manipulation.contact import BOX, TABLE
from jaxmeta.manipulation.grasp import pinching
from jaxmeta.manipulation.scene import UNTURNABLE, At, Box, Geometry, placed
from jaxmeta.manipulation.shaping import both, distance
from jaxmeta.manipulation.shaping_v1 import reach_then
from jaxmeta.manipulation.task import Episode, Readings, Reward
from jaxmeta.manipulation.tasks.pick_place import BLOCK_HEIGHT, Carry
from jaxmeta.manipulation.tasks.push import lying

HOLE = (0.0, 0.84, 0.02)
"""The goal of sweep-into, metres."""

TABLE_HEIGHT = 0.05
"""Of the table with a hole, whose floor is at 0, metres."""

BLOCK = Box((0.02, 0.02, 0.02), mass=0.01)

# The table around the hole, which is 16 cm wide and deep and starts at y = .76.
WITH_HOLE = Geometry(
    free=(BLOCK,),
    inertia=UNTURNABLE,
    free_of=BOX,
    walls=(
        Box((0.08, 0.28, 0.05), (0.0, 0.48, 0.0)),
        Box((0.31, 0.4, 0.05), (-0.39, 0.6, 0.0)),
        Box((0.31, 0.4, 0.05), (0.39, 0.6, 0.0)),
        Box((0.08, 0.04, 0.05), (0.0, 0.96, 0.0)),
    ),
    still_of=TABLE,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep(Carry):
    """`vector` is the block's position; the goal is to its right.

    Attributes:
      slack: up to this from the block's sides the pads are at it, metres.
      xz_threshold: up to this the tips are level with the block, metres.
    """

    name = "sweep"
    low = (-0.1, 0.6, 0.02)
    high = (0.1, 0.7, 0.02)
    goal_low = (0.49, 0.6, 0.0)
    goal_high = (0.51, 0.7, 0.02)
    solved_within = 0.05
    geometry = Geometry(free=(Box((0.02, 0.02, 0.02), mass=0.1),), free_of=BOX)
    # The middle of the block's lower side, which falls 2 cm at the start.
    object_at = At("free", (0.0, 0.0, -0.02))
    slack: ClassVar[float] = 0.01
    xz_threshold: ClassVar[float] = 0.005

    def place(self, vector):
        return placed(free=vector.at[2].add(0.02))

    def accepts(self, vector):
        del vector
        return jnp.array(True)

    def begin(self, vector, first, tcp):
        del first
        target = jnp.array([0.5, 0.0, 0.01]).at[1].set(vector[1])
        return Episode(target, vector, tcp, jnp.zeros(3))

    def grasp(self, now, episode, action):
        del action
        return pinching(
            now,
            episode,
            now.object,
            object_radius=0.02,
            slack=self.slack,
            xz_threshold=self.xz_threshold,
        )

    def on_the_way(self, now, episode, grasp, in_place):
        del now, episode
        return 2.0 * grasp + 6.0 * both(grasp, in_place)

    def reward_v1(self, now, episode, action):
        del action
        off = self.off_table(now, episode)
        left = distance(now.object[:2], episode.target[:2])
        made = reach_then(
            "push",
            distance(now.object, now.tcp),
            jnp.where(off, 0.0, left),
            distance(episode.object[:2], episode.target[:2]),
        )
        reach, push = jnp.where(off, 0.0, made.terms["reach"]), made.terms["push"]
        return Reward(reach + push, {"reach": reach, "push": push})

    def off_table(self, now: Readings, episode: Episode) -> Bool[Array, ""]:
        """Whether the block has fallen, which is as good as being at the goal."""
        return now.object[2] < episode.object[2] - 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepInto(Sweep):
    """`vector` is the block's position and a goal that is not used: the hole stays.

    Officially the block starts at its height after the reset, some 7 cm, and falls.
    """

    name = "sweep-into"
    low = (-0.1, 0.6, 0.02, -0.001, 0.8399, 0.0199)
    high = (0.1, 0.7, 0.02, 0.001, 0.8401, 0.0201)
    goal_low, goal_high = low[3:], high[3:]
    quat_order = "xyzw"
    slack = 0.005
    xz_threshold = 0.01
    geometry = WITH_HOLE
    object_at = At("free")

    def place(self, vector):
        return lying(vector, TABLE_HEIGHT + BLOCK_HEIGHT)

    def accepts(self, vector):
        return distance(vector[:2], jnp.array(HOLE[:2])) >= self.apart

    def begin(self, vector, first, tcp):
        start = vector[:3].at[2].set(first.object[2])
        return Episode(jnp.array(HOLE), start, tcp, jnp.zeros(3))

    def goal(self, now, episode):
        # At the block's height, so that falling in costs nothing.
        return episode.target.at[2].set(now.object[2])

    def off_table(self, now, episode):
        y = now.object[1]
        return super().off_table(now, episode) & (y > 0.4) & (y < 1.0)
