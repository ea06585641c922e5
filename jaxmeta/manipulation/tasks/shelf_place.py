"""Shelf-place: put a block on a board of a shelf.

`vector` is where the block starts, at the height at which it rests rather than at the
drawn one, and the goal, .3 m above the shelf's foot. `object` is the block; `landmark`
and `joint` are not read. Yu et al., Meta-World (CoRL 2019), rewards of versions 2
and 1.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.manipulation.contact import BOX
from jaxmeta.manipulation.grasp import caging, holding
from jaxmeta.manipulation.scene import UNTURNABLE, Box, Geometry, placed
from jaxmeta.manipulation.shaping import both
from jaxmeta.manipulation.task import Episode
from jaxmeta.manipulation.tasks.pick_place import BLOCK_HEIGHT, Carry, lifting

BOARD = 0.24
"""Height of the board's middle, metres."""

IN_FRONT = 0.15
"""So far to the front and to the sides of the goal it is below the board, metres."""


GOAL_HEIGHT = 0.3
"""Of the goal above the shelf's foot, metres."""

SHELF = (
    Box((0.01, 0.1, 0.32), (-0.11, 0.0, 0.32)),
    Box((0.01, 0.1, 0.32), (0.11, 0.0, 0.32)),
    Box((0.1, 0.01, 0.32), (0.0, 0.09, 0.32)),
    Box((0.12, 0.1, 0.01), (0.0, 0.0, 0.65)),
    Box((0.1, 0.095, 0.01), (0.0, -0.015, BOARD)),
    Box((0.1, 0.095, 0.01), (0.0, -0.015, 0.05)),
    Box((0.1, 0.088, 0.021), (0.0, -0.008, 0.021)),
)
BLOCK = Box((0.02, 0.02, 0.02), mass=0.01)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShelfPlace(Carry):
    """`vector` is the block's position and the goal; the block's height is not used."""

    name = "shelf-place"
    low = (-0.1, 0.5, 0.019, -0.1, 0.8, 0.299)
    high = (0.1, 0.6, 0.021, 0.1, 0.9, 0.301)
    goal_low, goal_high = low[3:], high[3:]
    quat_order = "xyzw"
    apart = 0.1
    reach = 0.025
    geometry = Geometry(
        free=(BLOCK,), inertia=UNTURNABLE, fixed=SHELF, friction=2.0, free_of=BOX
    )

    def place(self, vector):
        return placed(
            fixture=vector[3:].at[2].add(-GOAL_HEIGHT),
            free=vector[:3].at[2].set(BLOCK_HEIGHT),
        )

    def begin(self, vector, first, tcp):
        start = vector[:3].at[2].set(first.object[2])
        return Episode(vector[3:], start, tcp, jnp.zeros(3))

    def grasp(self, now, episode, action):
        return caging(
            now,
            episode,
            action,
            now.object,
            object_radius=0.02,
            pad_success=0.05,
            xz_threshold=0.01,
        )

    def held(self, now, episode):
        return holding(now, now.object, episode.object, self.reach)

    def carried(self, now, episode, in_place):
        # Under the board it gets worse the lower and the deeper; behind it is nothing.
        x, y, z = now.object
        target_x, target_y, _ = episode.target
        front = target_y - IN_FRONT
        under = (z > 0.0) & (z < BOARD) & (jnp.abs(x - target_x) < IN_FRONT)
        loss = both((y - front) / IN_FRONT, (BOARD - z) / BOARD)
        less = jnp.clip(in_place - loss, 0.0, 1.0)
        kept = jnp.where(under & (front < y) & (y < target_y), less, in_place)
        return jnp.where(under & (y > target_y), 0.0, kept)

    def reward_v1(self, now, episode, action):
        return lifting(now, episode, action, 0.04)
