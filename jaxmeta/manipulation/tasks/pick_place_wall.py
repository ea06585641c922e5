"""Bring a puck to a goal behind a wall: lifted over it, or pushed around it.

`vector` is where the puck starts and the goal; for pushing both are at the height at
which the puck rests. `object` is the puck; `landmark` and `joint` are not read.
Yu et al., Meta-World (CoRL 2019), rewards of versions 2 and 1.
"""

import abc
import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from jaxmeta.core.types import Scalar
from jaxmeta.manipulation.grasp import holding
from jaxmeta.manipulation.scene import Geometry
from jaxmeta.manipulation.shaping import Point, both, closeness, length
from jaxmeta.manipulation.task import Episode, Readings
from jaxmeta.manipulation.tasks.pick_place import (
    PUCK,
    PUCK_HEIGHT,
    PUCK_INERTIA,
    Carry,
    lifting,
    puck_caging,
)
from jaxmeta.manipulation.tasks.push import lying, on_table, pushing
from jaxmeta.manipulation.tasks.reach import WALL

WALL_Y = 0.75
"""From here on, in metres, the puck goes for the goal and no more for the midpoint."""

MIDPOINT_Y = 0.77
"""Where the midpoint is, metres."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BehindWall(Carry):
    """First a midpoint is to be reached, then the goal.

    Attributes:
      midpoint_weights: what the axes weigh in distances from the midpoint.
    """

    quat_order = "xyzw"
    geometry = Geometry(free=(PUCK,), inertia=PUCK_INERTIA, walls=(WALL,))
    midpoint_weights: ClassVar[tuple[float, float, float]]

    @abc.abstractmethod
    def midpoint(self, now: Readings, episode: Episode) -> Point:
        """What is to be reached first, metres."""

    @abc.abstractmethod
    def for_grasp(self, grasp: Scalar, at_midpoint: Scalar) -> Scalar:
        """The reward for grasping the puck, held or not."""

    def at_midpoint(self, now: Readings, episode: Episode) -> Scalar:
        """How close the puck is to the midpoint, in [0, 1]."""
        weights, middle = jnp.array(self.midpoint_weights), self.midpoint(now, episode)
        gap = length((now.object - middle) * weights)
        return closeness(gap, self.radius, length((episode.object - middle) * weights))

    def on_the_way(self, now, episode, grasp, in_place):
        first = self.at_midpoint(now, episode)
        stage = jnp.where(now.object[1] > WALL_Y, 4.0 + 3.0 * in_place, 4.0 * first)
        bonus = jnp.where(self.held(now, episode), 1.0 + stage, 0.0)
        return self.for_grasp(grasp, first) + bonus

    def reward(self, now, episode, action):
        made = super().reward(now, episode, action)
        first = self.at_midpoint(now, episode)
        return made._replace(terms={**made.terms, "at_midpoint": first})


@dataclasses.dataclass(frozen=True, kw_only=True)
class PickPlaceWall(BehindWall):
    """`vector` is the puck's position and the goal, in the air."""

    name = "pick-place-wall"
    low = (-0.05, 0.6, 0.015, -0.05, 0.85, 0.05)
    high = (0.05, 0.65, 0.015, 0.05, 0.9, 0.3)
    goal_low, goal_high = low[3:], high[3:]
    midpoint_weights = (1.0, 1.0, 3.0)

    def midpoint(self, now, episode):
        del now
        return jnp.array([0.0, MIDPOINT_Y, 0.25]).at[0].set(episode.target[0])

    def for_grasp(self, grasp, at_midpoint):
        return both(grasp, at_midpoint)

    def grasp(self, now, episode, action):
        return puck_caging(now, episode, action, "low")

    def held(self, now, episode):
        return holding(now, now.object, episode.object, self.reach, 0.015)

    def reward_v1(self, now, episode, action):
        return lifting(now, episode, action, 0.04)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PushWall(BehindWall):
    """`vector` is the puck's position and the goal; heights are not used."""

    name = "push-wall"
    low = (-0.05, 0.6, 0.015, -0.05, 0.85, 0.01)
    high = (0.05, 0.65, 0.015, 0.05, 0.9, 0.02)
    goal_low, goal_high = low[3:], high[3:]
    midpoint_weights = (3.0, 1.0, 1.0)

    def place(self, vector):
        return lying(vector, PUCK_HEIGHT)

    def begin(self, vector, first, tcp):
        return on_table(vector, first, tcp)

    def midpoint(self, now, episode):
        del episode
        return jnp.array([-0.05, MIDPOINT_Y, 0.0]).at[2].set(now.object[2])

    def for_grasp(self, grasp, at_midpoint):
        del at_midpoint
        return 2.0 * grasp

    def grasp(self, now, episode, action):
        return puck_caging(now, episode, action, "high")

    def reward_v1(self, now, episode, action):
        del action
        return pushing(now, episode)
