"""Coffee-pull and coffee-push: bring a mug from or to the coffee machine.

`vector` is where the mug starts and the goal; the machine stands .22 m behind the start
or behind the goal. `object` is the mug; `landmark` and `joint` are not read.
Yu et al., Meta-World (CoRL 2019), rewards of versions 2 and 1.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.manipulation.grasp import caging
from jaxmeta.manipulation.scene import At, Box, Geometry, Joint, Placement, placed
from jaxmeta.manipulation.sensors import rotate
from jaxmeta.manipulation.shaping import Point, distance, length
from jaxmeta.manipulation.shaping_v1 import reach_then
from jaxmeta.manipulation.task import Episode, Readings, Reward
from jaxmeta.manipulation.tasks.pick_place import Carry

BEHIND = 0.22
"""How far the machine's middle is behind the mug that stands at it, metres."""

MIDDLE = 0.035
"""Of the mug above its observed point, on its axis, metres."""

# Officially the mug and its handle, the button and the last two parts of the machine,
# which are its spout, are cylinders: here the boxes around them.
MUG = (
    Box((0.028, 0.028, 0.033), mass=0.1),
    Box((0.02, 0.005, 0.02), (0.034, 0.0, 0.007), mass=0.01),
)
BUTTON, BUTTON_POS = Box((0.032, 0.03, 0.032), mass=0.1), (0.0, -0.19, 0.3)
BUTTON_SLIDE = Joint((0.0, 1.0, 0.0), 0.0, 0.03)
MACHINE = (
    Box((0.1, 0.098, 0.115), (0.0, 0.0, 0.115)),
    Box((0.1, 0.098, 0.07), (0.0, 0.0, 0.3)),
    Box((0.031, 0.05, 0.035), (-0.069, -0.133, 0.3)),
    Box((0.031, 0.05, 0.035), (0.069, -0.133, 0.3)),
    Box((0.1, 0.05, 0.018), (0.0, -0.133, 0.352)),
    Box((0.1, 0.05, 0.018), (0.0, -0.133, 0.248)),
    Box((0.016, 0.016, 0.041), (0.0, -0.141, 0.152)),
    Box((0.009, 0.018, 0.009), (0.0, -0.109, 0.135)),
)

MUG_QUAT = (0.99954, 0.00471, -0.00261, -0.02984)
"""How the mug has turned officially when the hand has come to rest, w first."""


def at_machine(mug: Point, stand: Point) -> Placement:
    """The mug, and the machine behind where it stands or is to stand."""
    middle = mug + rotate(jnp.array(MUG_QUAT), jnp.array([0.0, 0.0, MIDDLE]))
    machine = stand.at[1].add(BEHIND)
    return placed(fixture=machine, free=middle, free_quat=MUG_QUAT)


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
    # The official mug rests so deep in the table.
    geometry = Geometry(
        floor=-0.0008,
        free=MUG,
        fixed=MACHINE,
        mechanism=(BUTTON,),
        mechanism_pos=BUTTON_POS,
        slides=(BUTTON_SLIDE,),
    )
    object_at = At("free", (0.0, 0.0, -MIDDLE))

    def place(self, vector):
        return at_machine(vector[:3], vector[:3])

    def reward_v1(self, now, episode, action):
        del action
        pull = _moved("pull", now, episode).terms["pull"]
        # Officially the mug's place and the fingers' first height make one vector; its
        # length stands for the distance to the mug.
        reach = -length(now.object.at[2].set(episode.tcp[2]))
        return Reward(reach + pull, {"reach": reach, "pull": pull})

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

    def place(self, vector):
        return at_machine(vector[:3], vector[3:])

    def reward_v1(self, now, episode, action):
        del action
        return _moved("push", now, episode)


def _moved(term: str, now: Readings, episode: Episode) -> Reward:
    """Version 1, for moving the mug over the table."""
    apart = distance(now.object, now.tcp)
    gap, start = (
        distance(mug[:2], episode.target[:2]) for mug in (now.object, episode.object)
    )
    return reach_then(term, apart, gap, start)
