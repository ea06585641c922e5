"""Put a peg sideways into a hole of a block.

`vector` is where the peg starts and where the block stands. `object` is the point to
grip the peg at, `landmark` the peg's head. `joint` is not read. Yu et al., Meta-World
(CoRL 2019), rewards of versions 2 and 1.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.manipulation.contact import TABLE
from jaxmeta.manipulation.grasp import caging, carrying, holding
from jaxmeta.manipulation.scene import UNTURNABLE, At, Box, Geometry, placed
from jaxmeta.manipulation.shaping import (
    both,
    closeness,
    distance,
    length,
    prism,
)
from jaxmeta.manipulation.shaping_v1 import pick_and_place
from jaxmeta.manipulation.task import Episode, ManipulationTask, Reward

RADIUS = 0.07
"""Within this of the goal, in metres, the peg's head is in the hole."""
HOLE = (0.03, 0.0, 0.13)
"""From the foot of the block to the goal in its hole, metres."""
AROUND = (
    ((0.110080, 0.099912, 0.01), (0.149920, -0.100119, 0.096)),
    ((0.110080, 0.099912, 0.16), (0.169920, -0.100135, 0.19)),
)
"""Two boxes where the head should not be, before and above the hole, from the foot of
the block, metres: for each the corner that counts 0 and the one that counts 1."""
HEAD = (-0.1, 0.6, 0.014785)
"""Where the margin has the head start, metres: where the peg is before it is placed."""

PEG = Box((0.12, 0.015, 0.015), mass=0.1)
GRASP = (0.03, 0.0, 0.01)
"""The point to grip the peg at, in its frame, metres."""
TIP = (-0.1, 0.0, 0.0)
"""Its head, in its frame, metres."""
# Below, beside and above the hole, which is 6 cm wide and high. Officially seven boxes:
# those outside stick out of the block's face by 4 mm.
BLOCK = (
    Box((0.096, 0.1, 0.05), (0.0, 0.0, 0.05)),
    Box((0.096, 0.035, 0.03), (0.0, -0.065, 0.13)),
    Box((0.096, 0.035, 0.03), (0.0, 0.065, 0.13)),
    Box((0.096, 0.1, 0.02), (0.0, 0.0, 0.18)),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PegInsertSide(ManipulationTask):
    """Grip the peg, lift it, and bring its head into the hole."""

    name = "peg-insert-side"
    low = (0.0, 0.5, 0.02, -0.35, 0.4, -0.001)
    high = (0.2, 0.7, 0.02, -0.25, 0.7, 0.001)
    goal_low = (-0.32, 0.4, 0.129)
    goal_high = (-0.22, 0.7, 0.131)
    quat_order = "xyzw"
    geometry = Geometry(free=(PEG,), inertia=UNTURNABLE, fixed=BLOCK, free_of=TABLE)
    object_at = At("free", GRASP)
    landmark_at = At("free", TIP)

    def place(self, vector):
        return placed(fixture=vector[3:], free=vector[:3])

    def accepts(self, vector):
        return distance(vector[:2], vector[3:5]) >= 0.1

    def begin(self, vector, first, tcp):
        del first
        return Episode(vector[3:] + jnp.array(HOLE), vector[:3], tcp, jnp.array(HEAD))

    def reward(self, now, episode, action):
        left = _left(now.landmark, episode.target)
        foot = episode.target - jnp.array(HOLE)
        outside = both(
            *(
                prism(now.landmark, foot + jnp.array(zero), foot + jnp.array(one))
                for zero, one in AROUND
            )
        )
        near = closeness(left, RADIUS, _left(episode.landmark, episode.target))
        in_place = both(near, outside)
        grasped = caging(
            now,
            episode,
            action,
            now.object,
            object_radius=0.0075,
            pad_success=0.03,
            xz_threshold=0.005,
            density="high",
        )
        held = holding(now, now.object, episode.object, 0.08)
        total = jnp.where(left <= RADIUS, 10.0, carrying(grasped, held, in_place))
        terms = {"grasped": grasped, "in_place": in_place, "outside": outside}
        return Reward(total, terms)

    def reward_v1(self, now, episode, action):
        # Officially the gap is that of the grasp, not of the head, once the head is in.
        head = distance(now.landmark, episode.target)
        grasp = distance(now.object, episode.target)
        return pick_and_place(
            now,
            episode,
            action,
            rest=episode.object[2],
            lift=0.11,
            gap=jnp.where(head <= 0.05, grasp, head),
            weight=1.0,
        )

    def success(self, now, episode):
        return _left(now.landmark, episode.target) <= RADIUS


def _left(head, target):
    """From the peg's head to the goal, metres; across the hole it counts twice."""
    return length((head - target) * jnp.array([1.0, 2.0, 2.0]))
