"""Put the lid on a box.

`vector` is where the lid starts and the goal, where it lies when the box is shut; the
box stands under the goal. `object` is the lid. `landmark` and `joint` are not read; the
episode's landmark is where the middle of the lid's handle starts. Yu et al., Meta-World
(CoRL 2019), rewards of versions 2 and 1.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.manipulation.contact import BOX as SOLID
from jaxmeta.manipulation.scene import ALONG_Y, At, Box, Capsule, Geometry, placed
from jaxmeta.manipulation.sensors import rotate
from jaxmeta.manipulation.shaping import (
    above,
    aligned,
    both,
    closeness,
    distance,
    funnel,
    length,
    lifted_and_placed,
)
from jaxmeta.manipulation.shaping_v1 import pick_and_place
from jaxmeta.manipulation.task import Episode, ManipulationTask, Reward

LEVEL = (0.707, 0.0, 0.0, 0.707)
"""How the lid should lie; the whole reward is scaled by it."""
SOLVED = 0.08
"""Within this of the goal, in metres, the box is shut."""
RISE = 0.075
"""How far above the draw's height the lid starts, metres."""
TURNED = (0.7071068, 0.0, 0.0, 0.7071068)
HANDLE = (0.0, 0.0, 0.052321)
"""The middle of the lid's handle, seen from the lid, metres."""

# Lid and handle are officially meshes, which collide as their convex hulls do: slabs.
# The rim and the handle's side bars lie within them; its upper bar is round.
LID = (
    Box((0.115, 0.115, 0.0108), (0.0, 0.0, -0.0049), mass=0.1),
    Box((0.008, 0.058, 0.0389), (0.0, 0.0, 0.0431), mass=0.1),
    Capsule(0.008, 0.05, (0.0, 0.0, 0.082), ALONG_Y, 0.05),
)
BOX = (
    Box((0.1, 0.005, 0.03), (0.0, -0.095, 0.03)),
    Box((0.1, 0.005, 0.03), (0.0, 0.095, 0.03)),
    Box((0.005, 0.09, 0.03), (0.095, 0.0, 0.03)),
    Box((0.005, 0.09, 0.03), (-0.095, 0.0, 0.03)),
    Box((0.1, 0.1, 0.005), (0.0, 0.0, 0.005)),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxClose(ManipulationTask):
    """Grip the lid's handle from above and carry the lid to the box."""

    name = "box-close"
    low = (-0.05, 0.5, 0.02, -0.1, 0.7, 0.133)
    high = (0.05, 0.55, 0.02, 0.1, 0.8, 0.133)
    goal_low, goal_high = low[3:], high[3:]
    geometry = Geometry(free=LID, fixed=BOX, free_of=SOLID)
    object_at = At("free")

    def place(self, vector):
        return placed(
            fixture=vector[3:].at[2].set(0.0),
            free=vector[:3].at[2].add(RISE),
            free_quat=TURNED,
        )

    def accepts(self, vector):
        return distance(vector[:2], vector[3:5]) >= 0.25

    def begin(self, vector, first, tcp):
        handle = first.object + rotate(first.quat, jnp.array(HANDLE))
        return Episode(vector[3:], vector[:3], tcp, handle)

    def reward(self, now, episode, action):
        handle = now.object + jnp.array([0.0, 0.0, 0.02])
        ready = self._ready(now.hand, handle)
        gripped = (jnp.clip(action[3], -1.0, 1.0) + 1.0) / 2
        gap = length((episode.target - handle) * jnp.array([1.0, 1.0, 3.0]))
        placed = lifted_and_placed(handle[2] > 0.04, gap, 0.05, 0.25, trying=0.2)
        level = aligned(now.quat, LEVEL, 0.2)
        total = 2.0 * both(gripped, ready) + 8.0 * placed
        total = jnp.where(self.success(now, episode), 10.0, total) * level
        terms = {"ready": ready, "gripped": gripped, "placed": placed, "level": level}
        return Reward(total, terms)

    def reward_v1(self, now, episode, action):
        # The lid counts as lifted 12 cm above where its handle was.
        rest = episode.landmark[2]
        gap = distance(now.object, episode.target)
        return pick_and_place(now, episode, action, rest=rest, lift=0.12, gap=gap)

    def success(self, now, episode):
        return distance(now.object, episode.target) < SOLVED

    def _ready(self, hand, handle):
        """Near the handle, coming from above."""
        floor = funnel(distance(hand[:2], handle[:2]), 0.02, 0.04, 0.4)
        near = closeness(distance(hand, handle), 0.02, 0.5)
        return both(above(hand[2], floor, floor / 2), near)
