"""Pick-place: grasp a puck and hold it at a point in the air.

Also what this task shares with the others that bring an object to a goal. `vector` is
where the puck starts and the goal. `object` is the puck; `landmark` and `joint` are not
read. Yu et al., Meta-World (CoRL 2019), rewards of versions 2 and 1.
"""

import abc
import dataclasses
from typing import ClassVar, Literal

import jax.numpy as jnp

from jaxmeta.core.types import Array, Bool, Float, Scalar
from jaxmeta.manipulation.grasp import caging, enclosing, gripping, holding
from jaxmeta.manipulation.scene import At, Box, Geometry, placed
from jaxmeta.manipulation.shaping import (
    Point,
    both,
    closeness,
    distance,
    length,
)
from jaxmeta.manipulation.shaping_v1 import pick_and_place
from jaxmeta.manipulation.task import Episode, ManipulationTask, Readings, Reward

BEST = 10.0
"""The reward with the object at the goal."""

# Officially a cylinder of the same radius and height: as a box it stands, too.
PUCK = Box((0.02, 0.02, 0.02), mass=0.75)
PUCK_INERTIA = 8.80012e-4
"""Of all official pucks of this mass, more than that of their shape, kg m^2."""

PUCK_HEIGHT = 0.0194
"""Of a puck's middle where it lies on the table, metres."""

BLOCK_HEIGHT = 0.01994
"""Of a block's, which are as large, metres."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Carry(ManipulationTask):
    """An object is brought to the goal, by whatever way.

    Attributes:
      apart: how far start and goal are at least from each other on the table, metres.
      radius: within this of the goal the reward is at its best, metres.
      solved_within: within this of the goal it is a success, metres.
      weights: what the axes weigh in distances from the goal, but not in the success.
      reach: within this of the tips the object may be held, metres.
      carrying: reward for holding the object close to the goal.
    """

    apart: ClassVar[float] = 0.15
    radius: ClassVar[float] = 0.05
    solved_within: ClassVar[float] = 0.07
    weights: ClassVar[tuple[float, float, float]] = (1.0, 1.0, 1.0)
    reach: ClassVar[float] = 0.02
    carrying: ClassVar[float] = 5.0
    object_at = At("free")

    def place(self, vector):
        return placed(free=vector[:3])

    def accepts(self, vector):
        return distance(vector[:2], vector[3:5]) >= self.apart

    def begin(self, vector, first, tcp):
        del first
        return Episode(vector[3:], vector[:3], tcp, jnp.zeros(3))

    def reward(self, now, episode, action):
        grasp = self.grasp(now, episode, action)
        in_place = self.in_place(now, episode)
        there = self.gap(now.object, now, episode) < self.radius
        on_the_way = self.on_the_way(now, episode, grasp, in_place)
        total = jnp.where(there, BEST, on_the_way)
        return Reward(total, {"grasp": grasp, "in_place": in_place})

    def success(self, now, episode):
        return distance(now.object, self.goal(now, episode)) <= self.solved_within

    @abc.abstractmethod
    def grasp(
        self, now: Readings, episode: Episode, action: Float[Array, "4"]
    ) -> Scalar:
        """How well the object is grasped, in [0, 1]."""

    def on_the_way(
        self, now: Readings, episode: Episode, grasp: Scalar, in_place: Scalar
    ) -> Scalar:
        """The reward as long as the object is not at the goal."""
        carried = self.carried(now, episode, in_place)
        bonus = 1.0 + self.carrying * carried
        return both(grasp, in_place) + jnp.where(self.held(now, episode), bonus, 0.0)

    def held(self, now: Readings, episode: Episode) -> Bool[Array, ""]:
        """Whether the object counts as held."""
        del episode
        return (distance(now.object, now.tcp) < self.reach) & (now.opening > 0)

    def carried(self, now: Readings, episode: Episode, in_place: Scalar) -> Scalar:
        """What counts, of `in_place`, while the object is held."""
        del now, episode
        return in_place

    def in_place(self, now: Readings, episode: Episode) -> Scalar:
        """How close the object is to the goal, in [0, 1]."""
        start = self.gap(episode.object, now, episode)
        return closeness(self.gap(now.object, now, episode), self.radius, start)

    def gap(self, point: Point, now: Readings, episode: Episode) -> Scalar:
        """Weighted distance of a point from the goal, metres."""
        return length((point - self.goal(now, episode)) * jnp.array(self.weights))

    def goal(self, now: Readings, episode: Episode) -> Point:
        """The goal as reward and success take it, metres."""
        del now
        return episode.target


def puck_caging(
    now: Readings,
    episode: Episode,
    action: Float[Array, "4"],
    density: Literal["low", "high"],
) -> Scalar:
    """The caging of a puck, in [0, 1]; see `caging`."""
    return caging(
        now,
        episode,
        action,
        now.object,
        object_radius=0.015,
        pad_success=0.05,
        xz_threshold=0.005,
        density=density,
    )


def lifting(
    now: Readings, episode: Episode, action: Float[Array, "4"], lift: float
) -> Reward:
    """The version 1 reward of tasks that lift the object and hold it at the goal.

    Args:
      now: the readings.
      episode: what is fixed.
      action: the action taken.
      lift: how far the object is to be lifted at least, metres.
    """
    return pick_and_place(
        now,
        episode,
        action,
        rest=episode.object[2],
        lift=lift,
        gap=distance(now.object, episode.target),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PickPlace(Carry):
    """`vector` is the puck's position and the goal."""

    name = "pick-place"
    low = (-0.1, 0.6, 0.02, -0.1, 0.8, 0.05)
    high = (0.1, 0.7, 0.02, 0.1, 0.9, 0.3)
    goal_low, goal_high = low[3:], high[3:]
    quat_order = "xyzw"
    geometry = Geometry(free=(PUCK,), inertia=PUCK_INERTIA)

    def grasp(self, now, episode, action):
        caged = enclosing(
            now, episode, now.object, object_radius=0.015, xz_threshold=0.005
        )
        return (gripping(caged, action) + caged) / 2

    def held(self, now, episode):
        return holding(now, now.object, episode.object, self.reach)

    def reward_v1(self, now, episode, action):
        return lifting(now, episode, action, 0.04)
