"""Pick-out-of-hole: lift a puck out of a hole and hold it at a point in the air.

`vector` is where the puck starts, always the same, and the goal. `object` is the puck;
`landmark` and `joint` are not read.
Yu et al., Meta-World (CoRL 2019), rewards of versions 2 and 1.
"""

import dataclasses

from jaxmeta.manipulation.grasp import caging, holding
from jaxmeta.manipulation.scene import UNTURNABLE, Box, Geometry
from jaxmeta.manipulation.shaping import above, both, closeness, distance, funnel
from jaxmeta.manipulation.tasks.pick_place import Carry, lifting

EMPTY = 0.33
"""An opening of the gripper below which there is no puck in it."""


# The floor of the hole is at z = 0, the table around it 54 mm higher. The puck is
# officially a cylinder of the same radius and height.
TABLE = (
    Box((0.7, 0.225, 0.027), (0.0, 0.425, 0.027)),
    Box((0.275, 0.175, 0.027), (-0.425, 0.825, 0.027)),
    Box((0.275, 0.175, 0.027), (0.425, 0.825, 0.027)),
    Box((0.15, 0.025, 0.027), (0.0, 0.975, 0.027)),
)
PUCK = Box((0.02, 0.02, 0.02), mass=0.01)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PickOutOfHole(Carry):
    """`vector` is the puck's position in the hole and the goal."""

    name = "pick-out-of-hole"
    hand_low = (-0.5, 0.40, -0.05)
    low = (0.0, 0.75, 0.02, -0.1, 0.5, 0.15)
    high = (0.0, 0.75, 0.02, 0.1, 0.6, 0.3)
    goal_low, goal_high = low[3:], high[3:]
    reach = 0.04
    geometry = Geometry(free=(PUCK,), inertia=UNTURNABLE, walls=TABLE)

    def grasp(self, now, episode, action):
        return caging(
            now,
            episode,
            action,
            now.object,
            object_radius=0.015,
            pad_success=0.02,
            xz_threshold=0.03,
            effort=0.1,
            density="high",
        )

    def in_place(self, now, episode):
        # Narrower than the radius with the best reward.
        start = distance(episode.object, episode.target)
        return closeness(distance(now.object, episode.target), 0.02, start)

    def held(self, now, episode):
        held = holding(now, now.object, episode.object, self.reach, 0.02)
        return held & (now.opening >= EMPTY)

    def carried(self, now, episode, in_place):
        # Below the funnel the gripper might hit the edge of the hole.
        away = distance(now.tcp[:2], episode.object[:2])
        floor = funnel(away, threshold=0.03, scale=0.015, level=0.15)
        return both(in_place, above(now.tcp[2], floor, 0.02))

    def reward_v1(self, now, episode, action):
        return lifting(now, episode, action, 0.11)
