"""Handle: press a handle down, or pull it up, from the front or from the side.

`vector` is where the handle's box stands. `object` is a point of the handle: the middle
of its top for pressing, its right end for pulling from the front, a point in the middle
of it for pulling from the side. `landmark` and `joint` are not read. Version 1 takes
the left finger's tip for the fingers, and only heights count in it. Yu et al.,
Meta-World (CoRL 2019), rewards of versions 2 and 1.
"""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp

from jaxmeta.core.types import Array, Bool, Scalar
from jaxmeta.manipulation.grasp import caging
from jaxmeta.manipulation.scene import (
    ALONG_X,
    At,
    Box,
    Capsule,
    Geometry,
    Joint,
    Quat,
    Vector,
    placed,
)
from jaxmeta.manipulation.shaping import (
    Point,
    both,
    closeness,
    distance,
    nearing,
)
from jaxmeta.manipulation.shaping_v1 import left_tip, reach_then
from jaxmeta.manipulation.task import Episode, ManipulationTask, Readings, Reward

OUT = 0.216
"""How far in front of the middle of its box the handle is, metres."""
SIDEWAYS = 1.57
"""The angle about z by which a box is turned that faces right; official, not pi / 2."""

# The official meshes, two cheeks with rounded fronts and a block between them, are a
# block of their width and the fronts of the cheeks; in front there is a sill.
BLOCK = (
    Box((0.0865, 0.0825, 0.1075), (0.0, 0.0275, 0.1075)),
    Box((0.026, 0.0275, 0.08), (-0.0605, -0.0825, 0.08)),
    Box((0.026, 0.0275, 0.08), (0.0605, -0.0825, 0.08)),
    Box((0.035, 0.028, 0.014), (0.0, -0.082, 0.014)),
)
# The grip, a cylinder, is a capsule of the same length.
LEVER = Box((0.032, 0.075, 0.011), (0.0, -0.081, 0.0), mass=0.001)
GRIP = Capsule(0.022, 0.048, (0.0, -0.166, 0.0), ALONG_X, 0.001)
SLIDE = Joint((0.0, 0.0, 1.0), -0.1, 0.0, damping=30.0)
AT = (0.0, -0.05, 0.15)
"""Where the handle is in the box when it is up, metres."""
TOP = 0.022
"""Of the handle's top above its middle, metres."""


def turned(x: Vector, yaw: float) -> Vector:
    """A vector turned about z.

    Args:
      x: the vector.
      yaw: the angle, radians.
    """
    cos, sin = math.cos(yaw), math.sin(yaw)
    return (cos * x[0] - sin * x[1], sin * x[0] + cos * x[1], x[2])


def turned_box(box: Box, yaw: float) -> Box:
    """A box of a body turned about z."""
    quat = _turned_quat(box.quat, yaw)
    return box._replace(pos=turned(box.pos, yaw), quat=quat)


def _turned_quat(quat: Quat, yaw: float) -> Quat:
    cos, sin = math.cos(yaw / 2), math.sin(yaw / 2)
    w, x, y, z = quat
    return (
        cos * w - sin * z,
        cos * x - sin * y,
        cos * y + sin * x,
        cos * z + sin * w,
    )


def _geometry(yaw: float) -> Geometry:
    grip = GRIP._replace(pos=turned(GRIP.pos, yaw), quat=_turned_quat(GRIP.quat, yaw))
    return Geometry(
        fixed=tuple(turned_box(box, yaw) for box in BLOCK),
        mechanism=(turned_box(LEVER, yaw), grip),
        mechanism_pos=turned(AT, yaw),
        slides=(SLIDE,),
    )


class Handle(ManipulationTask):
    """A box with a handle that slides up and down on its front.

    Attributes:
      yaw: the angle by which the box is turned about z; 0 faces the robot.
      height: the goal's height above the foot of the box, metres.
      radius: within this of the goal the reward is full, metres.
      start: where the handle starts on its slide, metres.
    """

    quat_order = "zeros"
    yaw: ClassVar[float] = 0.0
    height: ClassVar[float]
    radius: ClassVar[float]
    start: ClassVar[float]

    def place(self, vector):
        return placed(fixture=vector, joints=(self.start, 0.0, 0.0))

    def begin(self, vector, first, tcp):
        out = (OUT * math.sin(self.yaw), -OUT * math.cos(self.yaw), self.height)
        start = self._start(vector, first)
        return Episode(vector + jnp.array(out), start, tcp, jnp.zeros(3))

    def _start(self, vector: Point, first: Readings) -> Point:
        """Where the reward takes the handle to start."""
        del vector
        return first.object


@dataclasses.dataclass(frozen=True, kw_only=True)
class HandlePress(Handle):
    """Only heights count for what is left to do."""

    name = "handle-press"
    low = (-0.1, 0.8, -0.001)
    high = (0.1, 0.9, 0.001)
    goal_low = (-0.1, 0.55, 0.04)
    goal_high = (0.1, 0.70, 0.08)
    height = 0.075
    radius = 0.02
    start = -0.001
    geometry = _geometry(0.0)
    object_at = At("mechanism", (0.0, -0.166, TOP))

    def reward(self, now, episode, action):
        del action
        start = jnp.abs(episode.object[2] - episode.target[2])
        pressed = nearing(self._left(now, episode), start, self.radius)
        reached = nearing(
            distance(now.object, now.tcp),
            distance(episode.object, episode.tcp),
            self.radius,
        )
        made = jnp.where(self.success(now, episode), 1.0, both(reached, pressed))
        return Reward(10.0 * made, {"reached": reached, "pressed": pressed})

    def reward_v1(self, now, episode, action):
        del action
        apart = distance(now.object, left_tip(now))
        start = jnp.abs(episode.object[2] - episode.target[2])
        return reach_then("press", apart, self._left(now, episode), start)

    def success(self, now, episode):
        return self._left(now, episode) <= self.radius

    def _left(self, now, episode):
        return jnp.abs(now.object[2] - episode.target[2])


@dataclasses.dataclass(frozen=True, kw_only=True)
class HandlePressSide(HandlePress):
    """The same with the box on the left, facing right."""

    name = "handle-press-side"
    low = (-0.35, 0.65, -0.001)
    high = (-0.25, 0.75, 0.001)
    goal_low, goal_high = ManipulationTask.hand_low, ManipulationTask.hand_high
    yaw = SIDEWAYS
    geometry = _geometry(yaw)
    object_at = At("mechanism", turned((0.0, -0.166, TOP), yaw))


@dataclasses.dataclass(frozen=True, kw_only=True)
class HandlePull(Handle):
    """Only heights count; `Episode.object` is the foot of the box, not the handle.

    Attributes:
      half: half of the handle's width between the pads, metres.
      beside: a pad is beside the handle up to this distance, metres.
      solved: up to this distance from the goal the task is solved, metres.
    """

    name = "handle-pull"
    low = (-0.1, 0.8, -0.001)
    high = (0.1, 0.9, 0.001)
    goal_low = (-0.1, 0.55, 0.04)
    goal_high = (0.1, 0.70, 0.18)
    height = 0.172
    radius = 0.05
    start = -0.1
    geometry = _geometry(0.0)
    object_at = At("mechanism", (0.05, -0.166, 0.014))
    half: ClassVar[float] = 0.022
    beside: ClassVar[float] = 0.05
    solved: ClassVar[float] = 0.05

    def reward(self, now, episode, action):
        left = self._gap(now.object, episode.target)
        start = self._gap(episode.object, episode.target)
        pulled = closeness(left, self.radius, start)
        caged = caging(
            now,
            episode,
            action,
            now.object,
            object_radius=self.half,
            pad_success=self.beside,
            xz_threshold=0.01,
            density="high",
        )
        held = (
            (distance(now.object, now.tcp) < 0.035)
            & (now.opening > 0)
            & self._rises(now.object, episode.object)
        )
        total = both(caged, pulled) + jnp.where(held, 1.0 + 5.0 * pulled, 0.0)
        total = jnp.where(left < self.radius, 10.0, total)
        return Reward(total, {"caged": caged, "pulled": pulled})

    def reward_v1(self, now, episode, action):
        del action
        apart = distance(now.object, left_tip(now))
        gap = jnp.abs(now.object[2] - episode.target[2])
        return reach_then("pull", apart, gap, self._way(episode))

    def success(self, now, episode):
        return self._gap(now.object, episode.target) <= self.solved

    def _start(self, vector, first):
        del first
        return vector

    def _gap(self, a: Point, b: Point) -> Scalar:
        """What a point of the handle has left to the goal, metres."""
        return jnp.abs(a[2] - b[2])

    def _way(self, episode: Episode) -> Scalar:
        """What version 1 takes for the way up: as if the handle were on the floor."""
        return jnp.abs(TOP - episode.target[2])

    def _rises(self, point: Point, start: Point) -> Bool[Array, ""]:
        """Whether the handle is up; it always is, as officially y is compared."""
        return point[1] - 0.01 > start[2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HandlePullSide(HandlePull):
    """The box is on the left, facing right; distances count in all directions."""

    name = "handle-pull-side"
    low = (-0.35, 0.65, 0.0)
    high = (-0.25, 0.75, 0.0)
    goal_low, goal_high = ManipulationTask.hand_low, ManipulationTask.hand_high
    yaw = SIDEWAYS
    geometry = _geometry(yaw)
    object_at = At("mechanism", turned((0.0, -0.12, 0.0), yaw))
    half = 0.032
    beside = 0.06
    solved = 0.08

    def _start(self, vector, first):
        del vector
        return first.object

    def _gap(self, a, b):
        return distance(a, b)

    def _way(self, episode):
        del episode
        return jnp.array(-self.start)

    def _rises(self, point, start):
        return point[2] - 0.01 > start[2]
