"""Plate: slide a plate into a cabinet or out of it, away from the robot or sideways.

`vector` is the plate's position, as the rewards take it, and the goal. `object` is the
plate, which slides on two rails and never turns. `landmark` and `joint` are not read;
an episode's landmark is where the plate really starts, up to 10 cm from `vector`.
Yu et al., Meta-World (CoRL 2019), rewards of versions 2 and 1.
"""

import abc
import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from jaxmeta.core.types import Scalar
from jaxmeta.manipulation.scene import At, Box, Geometry, Joint, Vector, placed
from jaxmeta.manipulation.shaping import both, closeness, distance
from jaxmeta.manipulation.shaping_v1 import reach_then
from jaxmeta.manipulation.task import Episode, ManipulationTask, Readings, Reward
from jaxmeta.manipulation.tasks.handle import SIDEWAYS, turned_box

RADIUS = 0.05
"""Within this, in metres, the plate is at the goal and the fingers at the plate."""

# The nets of the cabinet, meshes, with the bars that frame them, capsules, are boxes as
# thick as the bars: its sides, its slanting back and its top.
CABINET = (
    Box((0.008, 0.068, 0.09), (-0.1, -0.0085, 0.09)),
    Box((0.008, 0.068, 0.09), (0.1, -0.0085, 0.09)),
    Box((0.108, 0.006, 0.085), (0.0, 0.059, 0.091), (0.9929, 0.1193, 0.0, 0.0)),
    Box((0.108, 0.057, 0.006), (0.0, -0.0195, 0.176)),
)
PLATE = Box((0.05, 0.05, 0.015), mass=0.05)
HEIGHT = 0.015
"""Of the plate's middle, metres."""
START: Vector = (0.0, 0.6, HEIGHT)
"""Where both rails are at 0, metres."""
BACK = 0.019
"""How far behind the middle of the cabinet its back bar stops the plate, metres."""
SOFTNESS = 0.005
"""Time constant of the rails' ends, which are as hard as that bar, seconds."""


def _geometry(
    origin: Vector,
    along_x: tuple[float, float] = (-0.2, 0.2),
    along_y: tuple[float, float] = (0.0, 0.3),
    yaw: float = 0.0,
) -> Geometry:
    """The cabinet and the plate on its rails.

    The plate does not touch the cabinet, as a mechanism touches nothing immovable:
    where the back would stop it, its rail ends.

    Args:
      origin: where the rails are at 0, seen from the cabinet, metres.
      along_x: lowest and highest position on the first rail; the official ones.
      along_y: the same on the second.
      yaw: the angle by which the cabinet is turned.
    """
    return Geometry(
        fixed=tuple(turned_box(box, yaw) for box in CABINET),
        mechanism=(PLATE,),
        mechanism_pos=origin,
        slides=(
            Joint((1.0, 0.0, 0.0), *along_x, softness=SOFTNESS),
            Joint((0.0, 1.0, 0.0), *along_y, softness=SOFTNESS),
        ),
    )


class Plate(ManipulationTask):
    """Being at the plate and having it at the goal, put together in one of two ways.

    Attributes:
      inset: what the margins are smaller than the distances at the start, metres.
    """

    quat_order = "xyzw"
    object_at = At("mechanism")
    inset: ClassVar[float]

    def begin(self, vector, first, tcp):
        return Episode(vector[3:], vector[:3], tcp, first.object)

    def reward(self, now, episode, action):
        del action
        left = distance(now.object, episode.target)
        start = distance(episode.object, episode.target)
        slid = closeness(left, RADIUS, start - self.inset)
        apart = distance(now.tcp, now.object)
        start = distance(episode.tcp, episode.object)
        reached = closeness(apart, RADIUS, start - self.inset)
        total = self._underway(now, apart, reached, slid)
        total = jnp.where(left < RADIUS, 10.0, total)
        return Reward(total, {"reached": reached, "slid": slid})

    def reward_v1(self, now, episode, action):
        del action
        return reach_then(
            "push",
            distance(now.object, now.tcp),
            distance(now.object[:2], episode.target[:2]),
            distance(episode.landmark[:2], episode.target[:2]),
        )

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
    # The cabinet is at the goal and the rails, officially fixed in the world, go along.
    geometry = _geometry((0.0, 0.0, HEIGHT), (-0.3, 0.3), (-0.3, BACK))

    def place(self, vector):
        start = jnp.array(START[:2]) - vector[3:5]
        return placed(fixture=vector[3:], joints=jnp.append(start, 0.0))

    def _underway(self, now, apart, reached, slid):
        del now, apart
        return 8.0 * both(reached, slid)


class StagedPlate(Plate):
    """First come down to the plate; how near the goal is counts only then."""

    inset = RADIUS

    def _underway(self, now, apart, reached, slid):
        at_plate = (now.tcp[2] <= 0.03) & (apart < 0.07)
        return jnp.where(at_plate, 2.0 + 7.0 * slid, 1.5 * reached)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlateSlideSide(StagedPlate):
    """Into the cabinet, to the left."""

    name = "plate-slide-side"
    low = (0.0, 0.6, 0.0, -0.3, 0.54, 0.0)
    high = (0.0, 0.6, 0.0, -0.25, 0.66, 0.0)
    goal_low, goal_high = low[3:], high[3:]
    # The rail officially ends, softly, at -0.2, short of most goals.
    geometry = _geometry((0.3, 0.0, HEIGHT), (-0.3 - BACK, 0.2), yaw=SIDEWAYS)

    def place(self, vector):
        del vector
        return placed(fixture=(-0.3, 0.6, 0.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlateSlideBack(StagedPlate):
    """Out of the cabinet, toward the robot."""

    name = "plate-slide-back"
    low = (0.0, 0.85, 0.0, -0.1, 0.6, 0.015)
    high = (0.0, 0.85, 0.0, 0.1, 0.6, 0.015)
    goal_low, goal_high = low[3:], high[3:]
    geometry = _geometry((0.0, -0.25, HEIGHT), along_y=(0.0, 0.25 + BACK))

    def place(self, vector):
        return placed(fixture=vector[:3], joints=(0.0, 0.15, 0.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlateSlideBackSide(StagedPlate):
    """Out of the cabinet, to the right."""

    name = "plate-slide-back-side"
    low = (-0.25, 0.6, 0.0, -0.05, 0.6, 0.015)
    high = (-0.25, 0.6, 0.0, 0.15, 0.6, 0.015)
    goal_low, goal_high = low[3:], high[3:]
    geometry = _geometry((0.25, 0.0, HEIGHT), yaw=SIDEWAYS)

    def place(self, vector):
        return placed(fixture=vector[:3], joints=(-0.15, 0.0, 0.0))
