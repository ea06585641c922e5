"""Plate: slide a plate into a cabinet or out of it, away from the robot or sideways.

`vector` is the plate's position, as the rewards take it, and the goal. `object` is the
plate, which slides on two rails and never turns. `landmark` and `joint` are not read.
Yu et al., Meta-World (CoRL 2019), version 2 reward.
"""

import abc
import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from jaxmeta.core.types import Scalar
from jaxmeta.manipulation.shaping import both, choose, closeness, distance
from jaxmeta.manipulation.task import Episode, ManipulationTask, Readings, Reward

RADIUS = 0.05
"""Within this, in metres, the plate is at the goal and the fingers at the plate."""


class Plate(ManipulationTask):
    """Being at the plate and having it at the goal, put together in one of two ways.

    Attributes:
      inset: what the margins are smaller than the distances at the start, metres.
    """

    quat_order = "xyzw"
    inset: ClassVar[float]

    def begin(self, vector, first, tcp):
        # The plate itself starts up to 10 cm from `vector[:3]`.
        del first
        return Episode(vector[3:], vector[:3], tcp, jnp.zeros(3))

    def reward(self, now, episode, action):
        del action
        left = distance(now.object, episode.target)
        start = distance(episode.object, episode.target)
        slid = closeness(left, RADIUS, start - self.inset)
        apart = distance(now.tcp, now.object)
        start = distance(episode.tcp, episode.object)
        reached = closeness(apart, RADIUS, start - self.inset)
        total = self._underway(now, apart, reached, slid)
        total = choose(left < RADIUS, 10.0, total)
        return Reward(total, {"reached": reached, "slid": slid})

    def success(self, now, episode):
        return distance(now.object, episode.target) <= 0.07

    @abc.abstractmethod
    def _underway(
        self, now: Readings, apart: Scalar, reached: Scalar, slid: Scalar
    ) -> Scalar:
        """The reward while the plate is not at the goal.

        Args:
          now: the readings.
          apart: distance between finger tips and plate, metres.
          reached: how near to the plate the fingers are, in [0, 1].
          slid: how near to the goal the plate is, in [0, 1].
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlateSlide(Plate):
    """Into the cabinet, away from the robot."""

    name = "plate-slide"
    low = (0.0, 0.6, 0.0, -0.1, 0.85, 0.0)
    high = (0.0, 0.6, 0.0, 0.1, 0.9, 0.0)
    goal_low, goal_high = low[3:], high[3:]
    inset = 0.0

    def _underway(self, now, apart, reached, slid):
        del now, apart
        return 8.0 * both(reached, slid)


class StagedPlate(Plate):
    """First come down to the plate; how near the goal is counts only then."""

    inset = RADIUS

    def _underway(self, now, apart, reached, slid):
        at_plate = (now.tcp[2] <= 0.03) & (apart < 0.07)
        return choose(at_plate, 2.0 + 7.0 * slid, 1.5 * reached)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlateSlideSide(StagedPlate):
    """Into the cabinet, to the left."""

    name = "plate-slide-side"
    low = (0.0, 0.6, 0.0, -0.3, 0.54, 0.0)
    high = (0.0, 0.6, 0.0, -0.25, 0.66, 0.0)
    goal_low, goal_high = low[3:], high[3:]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlateSlideBack(StagedPlate):
    """Out of the cabinet, toward the robot."""

    name = "plate-slide-back"
    low = (0.0, 0.85, 0.0, -0.1, 0.6, 0.015)
    high = (0.0, 0.85, 0.0, 0.1, 0.6, 0.015)
    goal_low, goal_high = low[3:], high[3:]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlateSlideBackSide(StagedPlate):
    """Out of the cabinet, to the right."""

    name = "plate-slide-back-side"
    low = (-0.25, 0.6, 0.0, -0.05, 0.6, 0.015)
    high = (-0.25, 0.6, 0.0, 0.15, 0.6, 0.015)
    goal_low, goal_high = low[3:], high[3:]
