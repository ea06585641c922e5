"""Coffee-pull and coffee-push: bring a mug from or to the coffee machine.

`vector` is where the mug starts and the goal; the machine stands .22 m behind the start
or behind the goal. `object` is the mug; `landmark` and `joint` are not read.
Yu et al., Meta-World (CoRL 2019), version 2 reward.
"""

import dataclasses

from jaxmeta.manipulation.grasp import caging
from jaxmeta.manipulation.tasks.pick_place import Carry


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoffeePull(Carry):
    """`vector` is the mug's position, at the machine, and the goal."""

    name = "coffee-pull"
    hand_start = (0.0, 0.4, 0.2)
    low = (-0.05, 0.7, -0.001, -0.1, 0.55, -0.001)
    high = (0.05, 0.75, 0.001, 0.1, 0.65, 0.001)
    goal_low, goal_high = low[3:], high[3:]
    quat_order = "xyzw"
    weights = (2.0, 2.0, 1.0)
    reach = 0.04

    def grasp(self, now, episode, action):
        return caging(
            now,
            episode,
            action,
            now.object,
            object_radius=0.02,
            pad_success=0.05,
            reach_radius=0.04,
            xz_threshold=0.05,
            effort=0.7,
            density="medium",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoffeePush(CoffeePull):
    """`vector` is the mug's position and the goal, at the machine."""

    name = "coffee-push"
    low = (-0.1, 0.55, -0.001, -0.05, 0.7, -0.001)
    high = (0.1, 0.65, 0.001, 0.05, 0.75, 0.001)
    goal_low, goal_high = low[3:], high[3:]
