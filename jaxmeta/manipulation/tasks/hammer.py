"""Drive a nail into a block with a hammer.

`vector` is where the hammer starts; block and nail stay where they are. `object` is
the middle of the hammer's handle, `second` the nail, `joint` how far the nail is in,
metres. `landmark` is not read. Yu et al., Meta-World (CoRL 2019), rewards of versions 2
and 1.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.manipulation.grasp import caging_handle
from jaxmeta.manipulation.scene import (
    ALONG_Y,
    At,
    Box,
    Capsule,
    Geometry,
    Joint,
    placed,
)
from jaxmeta.manipulation.sensors import rotate
from jaxmeta.manipulation.shaping import aligned, distance, lifted_and_placed
from jaxmeta.manipulation.shaping_v1 import HELD, closing, lifted, picking, progress
from jaxmeta.manipulation.task import Episode, ManipulationTask, Reward

GOAL = (0.24, 0.74, 0.11)
"""Where the hammer's head has driven the nail home, metres."""
HEAD = (0.16, 0.06, 0.0)
"""From the handle to the head, metres; of the world, as if the hammer never turned."""
HEAD_MIDDLE = (0.16, 0.0, 0.0)
"""From the handle to the middle of the head, in the hammer's frame, metres."""
LIFT = 0.09
"""How far version 1 has the hammer lifted, metres."""
UPRIGHT = (1.0, 0.0, 0.0, 0.0)
"""How the hammer should be held."""
LYING = (0.999559, 0.0, -0.0297, 0.0)
"""How it lies on the table: the head is thicker than the handle."""

# The handle, officially a capsule of radius 20 mm, is a bar of about equal cross-
# section, so high that the hammer rises from the table as officially, without turning.
# The cylinders of the head's ends are square bars that stand on an edge, so that it
# lies as high and leans on the handle; the rest of it is one box.
ON_EDGE = (0.92388, 0.0, 0.382683, 0.0)
HAMMER = (
    Box((0.16, 0.018, 0.019), mass=0.1),
    Box((0.025, 0.04, 0.02), (0.16, 0.0, 0.0), mass=0.4),
    Box((0.0269, 0.016, 0.0269), (0.16, 0.056, 0.0), ON_EDGE, 0.3),
    Box((0.0269, 0.016, 0.0269), (0.16, -0.056, 0.0), ON_EDGE, 0.3),
)
# Its head, officially a disc of radius 3 cm, and its shaft.
NAIL = (
    Box((0.027, 0.009, 0.027), mass=0.0509),
    Capsule(0.01, 0.05, (0.0, 0.057, 0.0), ALONG_Y, 0.0377),
)
NAIL_AT = (0.24, 0.64, 0.11)
"""The nail's head before it is driven, metres."""
NAIL_HEAD = (0.24, 0.635, 0.11)
"""What version 1 takes for the nail's head: officially a point that does not move."""
RAIL = Joint((0.0, 1.0, 0.0), 0.0, 0.1, damping=2.0)
# The block around the nail's hole.
BLOCK = (
    Box((0.1, 0.1, 0.048), (0.24, 0.85, 0.172)),
    Box((0.042, 0.1, 0.014), (0.298, 0.85, 0.11)),
    Box((0.042, 0.1, 0.014), (0.182, 0.85, 0.11)),
    Box((0.1, 0.1, 0.048), (0.24, 0.85, 0.048)),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hammer(ManipulationTask):
    """Grip the handle and bring the head to the goal, the hammer upright."""

    name = "hammer"
    hand_start = (0.0, 0.4, 0.2)
    low = (-0.1, 0.4, 0.0)
    high = (0.1, 0.5, 0.0)
    goal_low = (0.2399, 0.7399, 0.109)
    goal_high = (0.2401, 0.7401, 0.111)
    second_order = "wxyz"
    geometry = Geometry(
        walls=BLOCK, free=HAMMER, mechanism=NAIL, mechanism_pos=NAIL_AT, slides=(RAIL,)
    )
    object_at = At("free")
    second_at = At("mechanism")
    joint_index = 0

    def place(self, vector):
        return placed(free=vector, free_quat=LYING)

    def begin(self, vector, first, tcp):
        del first
        return Episode(jnp.array(GOAL), vector, tcp, jnp.zeros(3))

    def reward(self, now, episode, action):
        grasped = caging_handle(now, episode, action, along=0.07, density="high")
        upright = aligned(now.quat, UPRIGHT, 0.4)
        head = now.object + jnp.array(HEAD)
        gap = distance(head, episode.target)
        placed = lifted_and_placed(head[2] > 0.02, gap, 0.02, 0.2)
        total = (2.0 * grasped + 6.0 * placed) * upright
        # A nail driven by anything but a well held hammer earns nothing extra.
        driven = self.success(now, episode) & (total > 5.0)
        terms = {"grasped": grasped, "placed": placed, "upright": upright}
        return Reward(jnp.where(driven, 10.0, total), terms)

    def reward_v1(self, now, episode, action):
        hammer, rest = now.object, episode.object[2]
        head, nail = hammer + rotate(now.quat, jnp.array(HEAD_MIDDLE)), NAIL_HEAD
        apart = distance(hammer, now.tcp)
        done, near = lifted(hammer[2], rest, LIFT), apart < HELD
        gap = distance(head, jnp.array(nail)) + abs(nail[1] - GOAL[1])
        start = 2 * LIFT + rest + jnp.abs(episode.object[1] - episode.target[1])
        terms = {
            "reach": closing(apart, action) - apart,
            "pick": picking(hammer[2], rest, LIFT, near=near, done=done),
            "drive": jnp.where(
                done & near, jnp.maximum(progress(gap, start), 0.0), 0.0
            ),
        }
        return Reward(sum(terms.values(), jnp.zeros(())), terms)

    def success(self, now, episode):
        del episode
        return now.joint > 0.09
