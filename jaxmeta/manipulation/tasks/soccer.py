"""Soccer: push a ball into a goal.

`vector` is where the ball starts and the middle of the goal. `object` is the ball;
`landmark` and `joint` are not read.
Yu et al., Meta-World (CoRL 2019), rewards of versions 2 and 1.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.manipulation.grasp import pinching
from jaxmeta.manipulation.scene import Box, Capsule, Geometry, placed
from jaxmeta.manipulation.shaping import closeness, length
from jaxmeta.manipulation.tasks.pick_place import Carry
from jaxmeta.manipulation.tasks.push import pushing

GOAL_DEPTH = 0.1
"""The goal's line is so far in front of its middle, metres."""

GOAL_HALF_WIDTH = 0.1
"""Metres."""

# Officially four meshes, all slabs: the sides and the roof end where the back, which
# leans forward by .294 rad, begins; here the sides end upright where it is on average.
GOAL = (
    Box((0.00625, 0.0511, 0.0825), (-0.0965, -0.0126, 0.0825)),
    Box((0.00625, 0.0511, 0.0825), (0.0965, -0.0126, 0.0825)),
    Box((0.1027, 0.007, 0.0862), (0.0, 0.0312, 0.0825), (0.9892, 0.1466, 0.0, 0.0)),
    Box((0.0905, 0.0386, 0.0057), (0.0, -0.0251, 0.1593)),
)
BALL = Capsule(0.026, mass=0.04)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Soccer(Carry):
    """`vector` is the ball's position and the goal's."""

    name = "soccer"
    low = (-0.1, 0.6, 0.03, -0.1, 0.8, 0.0)
    high = (0.1, 0.7, 0.03, 0.1, 0.9, 0.0)
    goal_low, goal_high = low[3:], high[3:]
    quat_order = "xyzw"
    radius = 0.07
    weights = (3.0, 1.0, 1.0)
    # Officially with friction 1 on the table, just enough for a ball that is pushed to
    # brake itself rather than to roll ahead; pyramids brake less.
    geometry = Geometry(free=(BALL,), fixed=GOAL, friction=2.0)

    def place(self, vector):
        return placed(fixture=vector[3:], free=vector[:3])

    def grasp(self, now, episode, action):
        del action
        return pinching(
            now,
            episode,
            now.object,
            object_radius=0.013,
            slack=0.01,
            xz_threshold=0.005,
        )

    def in_place(self, now, episode):
        # The official margin is not the first distance but how far the ball has come.
        moved = length((now.object - episode.object) * jnp.array(self.weights))
        gap = self.gap(now.object, now, episode)
        x, y, _ = now.object
        line = episode.target[1] - GOAL_DEPTH
        beside = (y > line) & (jnp.abs(x - episode.target[0]) > GOAL_HALF_WIDTH)
        out = jnp.where(beside, 2.0 * (y - line) / (1.0 - line), 0.0)
        return jnp.clip(closeness(gap, self.radius, moved) - out, 0.0, 1.0)

    def on_the_way(self, now, episode, grasp, in_place):
        del now, episode
        return 3.0 * grasp + 6.5 * in_place

    def reward_v1(self, now, episode, action):
        del action
        return pushing(now, episode)
