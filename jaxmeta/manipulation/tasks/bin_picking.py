"""Bin-picking: bring a cube from one bin into the other.

`vector` is where the cube starts, of which its height is not read, and a goal that is
not read at all: the bins stay where they are. `object` is the cube; `landmark` and
`joint` are not read. Yu et al., Meta-World (CoRL 2019), rewards of versions 2 and 1.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.manipulation.contact import BOX
from jaxmeta.manipulation.grasp import caging
from jaxmeta.manipulation.scene import Box, Geometry, placed
from jaxmeta.manipulation.shaping import above, both, closeness, distance, funnel
from jaxmeta.manipulation.shaping_v1 import (
    HELD,
    closing,
    descending,
    lifted,
    picking,
    progress,
)
from jaxmeta.manipulation.task import Episode, Reward
from jaxmeta.manipulation.tasks.pick_place import Carry

GOAL = (0.12, 0.7, 0.0)
"""Middle of the other bin, metres."""
EMPTY = 0.43
"""An opening of the gripper below which there is no cube in it."""
FROM = -0.12
"""x of the middle of the bin that the cube starts in, metres."""
ROOM = 0.07
"""Farther than this from that middle, in metres, the cube is drawn into a wall."""
DEPTH = (0.0, 0.006, 0.02)
BACK = (0.0, 0.001414, 0.004512)
RISE = (0.0, 0.0, 0.000269)
"""How far the official simulator moves a cube this deep in a wall, in x and z, within
one step, metres; measured, between these within 0.05 mm."""
LYING = 0.03
"""Height of the cube's middle in a bin, metres."""
LIFT = 0.1
"""How far version 1 has the cube lifted, metres."""
OVER = 0.05
"""It is over or in the other bin within this of the middle in x and y, metres."""

CUBE = Box((0.02, 0.02, 0.02), mass=0.1)


def _bin(x: float) -> tuple[Box, ...]:
    """The walls of a bin; its bottom is part of the floor."""
    return (
        Box((0.1, 0.005, 0.03), (x, 0.605, 0.03)),
        Box((0.1, 0.005, 0.03), (x, 0.795, 0.03)),
        Box((0.005, 0.09, 0.03), (x - 0.095, 0.7, 0.03)),
        Box((0.005, 0.09, 0.03), (x + 0.095, 0.7, 0.03)),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BinPicking(Carry):
    """The margin for coming near the goal is the distance after one step.

    Officially it is taken then, and a cube drawn into a wall has moved by then; so
    `episode.landmark` is where the cube is after one step.
    """

    name = "bin-picking"
    hand_low = (-0.5, 0.4, 0.07)
    low = (-0.21, 0.65, 0.02, 0.1199, 0.699, -0.001)
    high = (-0.03, 0.75, 0.02, 0.1201, 0.701, 0.001)
    goal_low, goal_high = low[3:], high[3:]
    apart = 0.0
    solved_within = 0.05
    reach = 0.04
    # The bottoms of both bins are 1 cm thick: here the whole table is as high.
    geometry = Geometry(
        floor=0.01,
        floor_of=BOX,
        free=(CUBE,),
        free_of=BOX,
        walls=_bin(FROM),
        fixed=_bin(GOAL[0]),
    )

    def place(self, vector):
        return placed(free=vector[:3].at[2].set(LYING))

    def begin(self, vector, first, tcp):
        start = jnp.append(vector[:2], first.object[2])
        off = start[0] - FROM
        inside, depth = jnp.abs(off) - ROOM, jnp.array(DEPTH)
        back = jnp.interp(inside, depth, jnp.array(BACK)) * jnp.sign(off)
        rise = jnp.interp(inside, depth, jnp.array(RISE))
        moved = start + jnp.stack([-back, jnp.zeros_like(back), rise])
        return Episode(jnp.array(GOAL), start, tcp, moved)

    def reward_v1(self, now, episode, action):
        cube, rest = now.object, episode.object[2]
        apart = distance(cube, now.tcp)
        done, near = lifted(cube[2], rest, LIFT), apart < HELD
        over = (jnp.abs(cube - episode.target)[:2] < OVER).all()
        placed = over & (cube[2] < rest + OVER)
        reach = closing(apart, action) - descending(
            now.tcp, cube, episode.tcp[2], radius=0.06, weight=1.0
        )
        pick = picking(cube[2], rest, LIFT, near=near, done=done)
        across = distance(episode.object[:2], episode.target[:2])
        gap = distance(cube[:2], episode.target[:2])
        made = jnp.maximum(progress(gap, across + rest + LIFT), 0.0)
        there = placed | (done & near)
        terms = {
            "reach": jnp.where(placed, 0.0, reach),
            "pick": jnp.where(placed, 0.0, pick),
            "place": jnp.where(there, made, 0.0),
            "release": jnp.where(there & over, -200.0 * action[3], 0.0),
        }
        return Reward(sum(terms.values(), jnp.zeros(())), terms)

    def grasp(self, now, episode, action):
        return caging(
            now,
            episode,
            action,
            now.object,
            object_radius=0.015,
            pad_success=0.05,
            xz_threshold=0.01,
            effort=0.7,
            density="high",
        )

    def in_place(self, now, episode):
        margin = self.gap(episode.landmark, now, episode)
        return closeness(self.gap(now.object, now, episode), self.radius, margin)

    def held(self, now, episode):
        # Near the hand's body, not the tips.
        near = distance(now.object, now.hand) < self.reach
        lifted = now.object[2] - 0.02 > episode.object[2]
        return near & lifted & (now.opening >= EMPTY)

    def carried(self, now, episode, in_place):
        # Below both funnels the hand might hit the edge of a bin.
        floors = (
            funnel(distance(now.hand[:2], middle[:2]), 0.03, 0.02, 0.2)
            for middle in (episode.object, episode.target)
        )
        return both(above(now.hand[2], jnp.minimum(*floors), 0.05), in_place)
