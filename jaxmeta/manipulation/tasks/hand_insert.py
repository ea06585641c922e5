"""Hand-insert: take a block into a hole in the table.

`vector` is where the block starts and the goal, in the hole. `object` is the block;
`landmark` and `joint` are not read.
Yu et al., Meta-World (CoRL 2019), rewards of versions 2 and 1.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.manipulation.shaping import distance
from jaxmeta.manipulation.shaping_v1 import reach_then
from jaxmeta.manipulation.tasks.pick_place import Carry, puck_caging
from jaxmeta.manipulation.tasks.sweep import WITH_HOLE


@dataclasses.dataclass(frozen=True, kw_only=True)
class HandInsert(Carry):
    """`vector` is the block's position and the goal; the caging is that of a puck.

    The block starts 2 cm deep in the table, as it does officially, which lifts it.
    """

    name = "hand-insert"
    hand_low = (-0.5, 0.40, -0.15)
    low = (-0.1, 0.6, 0.05, -0.04, 0.8, -0.0201)
    high = (0.1, 0.7, 0.05, 0.04, 0.88, -0.0199)
    goal_low, goal_high = low[3:], high[3:]
    solved_within = 0.05
    carrying = 7.0
    # Officially 1. Between two boxes of the table, in either of which it may start, the
    # block is jammed by it; with pyramids for cones it moves as officially at 1.3.
    geometry = dataclasses.replace(WITH_HOLE, friction=1.3)

    def reward_v1(self, now, episode, action):
        # For the hand alone: over the hole, then down.
        del action
        apart = distance(now.tcp[:2], episode.target[:2])
        gap = jnp.abs(now.tcp[2] - episode.target[2])
        start = jnp.abs(self.hand_start[2] - episode.target[2])
        return reach_then("insert", apart, gap, start)

    def grasp(self, now, episode, action):
        return puck_caging(now, episode, action, "high")
