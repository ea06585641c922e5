"""Basketball: bring a ball to just above a hoop.

`vector` is where the ball starts, of which its height is not read, and the foot of the
hoop. `object` is the ball; `landmark` and `joint` are not read.
Yu et al., Meta-World (CoRL 2019), rewards of versions 2 and 1.
"""

import dataclasses
import math

import jax.numpy as jnp

from jaxmeta.manipulation.grasp import caging, carrying, holding
from jaxmeta.manipulation.scene import Box, Capsule, Geometry, placed
from jaxmeta.manipulation.shaping import distance
from jaxmeta.manipulation.shaping_v1 import pick_and_place
from jaxmeta.manipulation.task import Episode
from jaxmeta.manipulation.tasks.pick_place import Carry

LYING = 0.03
"""Height of the ball on the table, metres."""
HOOP = (0.0, -0.083, 0.25)
"""From the foot of the hoop to its middle, which is the observed goal, metres."""
ABOVE_HOOP = 0.3
"""Height to which the ball is to be brought, metres."""

BALL = Capsule(0.03, mass=0.1)
RING = 0.044
"""From the middle of the hoop to that of its sides, metres."""


def _side(turn: float) -> Box:
    """One of six sides of the hoop, at this angle seen from its middle, radians."""
    x, y, z = HOOP
    return Box(
        (0.01, 0.02, 0.01),
        (x + RING * math.cos(turn), y + RING * math.sin(turn), z - 0.001),
        (math.cos(turn / 2), 0.0, 0.0, math.sin(turn / 2)),
    )


# Board, post and hoop. The ring, officially eight capsules, is six boxes; the neck that
# joins it to the board and the post's foot are left out.
BASKET = (
    Box((0.1, 0.01, 0.07), (0.0, 0.0, 0.29)),
    Box((0.007, 0.007, 0.113), (0.0, 0.0, 0.113)),
    *(_side((0.5 + i) * math.pi / 3) for i in range(6)),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Basketball(Carry):
    """In distances from the goal, also in the success, height counts twice."""

    name = "basketball"
    low = (-0.1, 0.6, 0.0299, -0.1, 0.85, 0.0)
    high = (0.1, 0.7, 0.0301, 0.1, 0.9 + 1e-7, 0.0)
    goal_low = (-0.1, 0.767, 0.2499)
    goal_high = (0.1, 0.817 + 1e-7, 0.2501)
    radius = 0.08
    weights = (1.0, 1.0, 2.0)
    reach = 0.035
    geometry = Geometry(free=(BALL,), fixed=BASKET)

    def place(self, vector):
        return placed(fixture=vector[3:], free=vector[:3].at[2].set(LYING))

    def begin(self, vector, first, tcp):
        del first
        start = jnp.append(vector[:2], LYING)
        return Episode(vector[3:] + jnp.array(HOOP), start, tcp, jnp.zeros(3))

    def reward_v1(self, now, episode, action):
        # To the middle of the hoop, not above it.
        gap = distance(now.object, episode.target)
        return pick_and_place(now, episode, action, rest=LYING, lift=0.3, gap=gap)

    def grasp(self, now, episode, action):
        return caging(
            now,
            episode,
            action,
            now.object,
            object_radius=0.025,
            pad_success=0.06,
            xz_threshold=0.005,
            density="high",
        )

    def held(self, now, episode):
        return holding(now, now.object, episode.object, self.reach)

    def on_the_way(self, now, episode, grasp, in_place):
        return carrying(grasp, self.held(now, episode), in_place)

    def goal(self, now, episode):
        del now
        return episode.target.at[2].set(ABOVE_HOOP)

    def success(self, now, episode):
        return self.gap(now.object, now, episode) <= self.radius
