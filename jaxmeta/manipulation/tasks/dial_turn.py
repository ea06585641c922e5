"""Turn a dial by its rim; 79 degrees are enough.

`vector` is the dial's position. `object` is the point of the rim that starts nearest to
the robot and whose goal is at the far side; the observed orientation is that of the
dial's foot, which does not turn. The episode's `landmark` is where the fingers should
be at its start: above that point and to its right. `joint` is not read. Yu et al.,
Meta-World (CoRL 2019), rewards of versions 2 and 1.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.manipulation.scene import At, Box, Geometry, Joint, placed
from jaxmeta.manipulation.shaping import both, distance, nearing
from jaxmeta.manipulation.shaping_v1 import reach_then
from jaxmeta.manipulation.task import Episode, ManipulationTask, Reward

PUSH = (0.05, 0.02, 0.09)
"""From the point of the rim to where the fingers should be, metres."""
REACHED = 0.005
"""Within this of it, in metres, the fingers are there."""
SOLVED = 0.07
"""Within this of the goal, in metres, the dial is turned."""

# The lower part is officially a cylinder, here a box of the same height and area.
DIAL = (
    Box((0.0443, 0.0443, 0.018), (0.0, 0.0, 0.018), mass=0.283),
    Box((0.015, 0.046, 0.015), (0.0, 0.0, 0.051), mass=0.083),
)
"""A disc and the bar on top of it, which the fingers push."""
TURN = Joint((0.0, 0.0, 1.0), -3.14, 3.14)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DialTurn(ManipulationTask):
    """Push with closed fingers, which have to stay with the point that they push."""

    name = "dial-turn"
    low = (-0.1, 0.7, 0.0)
    high = (0.1, 0.8, 0.0)
    goal_low = (-0.1, 0.73, 0.0299)
    goal_high = (0.1, 0.83, 0.0301)
    quat_order = "ones"
    geometry = Geometry(mechanism=DIAL, hinge=TURN)
    object_at = At("mechanism", (0.0, -0.05, 0.0))

    def place(self, vector):
        return placed(fixture=vector)

    def begin(self, vector, first, tcp):
        target = vector + jnp.array([0.0, 0.03, 0.03])
        return Episode(target, vector, tcp, first.object + jnp.array(PUSH))

    def reward(self, now, episode, action):
        # Officially the goal's margin starts at the fingers' place, not at the point.
        start = distance(episode.landmark, episode.target)
        left = distance(now.object, episode.target)
        turned = nearing(left, start, SOLVED)
        near = nearing(
            distance(now.tcp, now.object + jnp.array(PUSH)),
            distance(episode.tcp, episode.landmark),
            REACHED,
            "gaussian",
        )
        reached = both(near, jnp.clip(action[3], 0.0, 1.0))
        total = 10.0 * both(reached, turned)
        return Reward(total, {"reached": reached, "turned": turned})

    def reward_v1(self, now, episode, action):
        del action
        apart = distance(now.object, now.tcp)
        # Officially the way starts at the dial's middle, not at the point.
        gap, start = (
            jnp.abs(point[1] - episode.target[1])
            for point in (now.object, episode.object)
        )
        return reach_then("turn", apart, gap, start, widths=(0.001, 0.0001))

    def success(self, now, episode):
        return distance(now.object, episode.target) <= SOLVED
