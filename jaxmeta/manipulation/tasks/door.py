"""Open or close the door of a safe that turns about a vertical hinge.

`vector` is the safe's position, the goal lies a fixed way from it. `object` is the
door's handle, `joint` the door's angle: 0 is shut, -pi / 2 wide open. `landmark` is not
read; the episode's is where the handle starts. Yu et al., Meta-World (CoRL 2019),
rewards of versions 2 and 1.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from jaxmeta.manipulation.scene import (
    ALONG_X,
    ALONG_Y,
    At,
    Box,
    Capsule,
    Geometry,
    Joint,
    placed,
)
from jaxmeta.manipulation.shaping import (
    above,
    both,
    closeness,
    distance,
    funnel,
    tolerance,
)
from jaxmeta.manipulation.shaping_v1 import reach_then
from jaxmeta.manipulation.task import Episode, ManipulationTask, Reward

SOLVED = 0.08
"""Within this of the goal, in metres, the door is open or shut."""

SAFE = (
    Box((0.016, 0.106, 0.15), (-0.204, 0.0, 0.0)),
    Box((0.016, 0.106, 0.15), (0.204, 0.0, 0.0)),
    Box((0.188, 0.106, 0.012), (0.0, 0.0, 0.138)),
    Box((0.189, 0.106, 0.012), (0.0, 0.0, -0.138)),
    Box((0.188, 0.012, 0.126), (0.0, 0.094, 0.0)),
)
"""Its sides, top, bottom and back."""
# The handle's foot is officially a cylinder along y, here a box of the same size; its
# neck and bars are cylinders, here capsules that are as thick and end where they end.
DOOR = (
    Box((0.18, 0.01, 0.123), (0.185, 0.0, 0.0), mass=1.77),
    Box((0.025, 0.012, 0.025), (0.325, -0.006, 0.0), mass=0.06),
    Capsule(0.013, 0.047, (0.325, -0.065, 0.0), ALONG_Y, 0.05),
    Capsule(0.019, 0.056, (0.381, -0.12, 0.0), ALONG_X, 0.17),
    Capsule(0.023, 0.031, (0.395, -0.12, 0.0), ALONG_X, 0.18),
)
# Officially from -2, but at -1.304 the door's edge meets the safe's side, which pushes
# it back over some 0.2 s. The limit stands in for this contact: its place, time and
# ratio are fitted to how the official door moves when it starts further open.
HINGE = Joint((0.0, 0.0, 1.0), -1.301, 0.0, damping=2.0, ratio=1.75)
HANDLE = At(
    "mechanism",
    (0.375722, -0.10714, 0.000036),
    (0.151171, 0.690758, -0.150621, 0.690879),
)
"""What is observed: the frame of the handle's mesh, between its neck and its bars."""


class Door(ManipulationTask):
    """What both have in common.

    Attributes:
      way: from the safe to the goal, metres.
      angle: the door's at the start, radians.
    """

    low = (0.0, 0.85, 0.15)
    high = (0.1, 0.95, 0.15)
    quat_order = "xyzw"
    geometry = Geometry(
        fixed=SAFE, mechanism=DOOR, mechanism_pos=(-0.185, -0.1, 0.0), hinge=HINGE
    )
    object_at = HANDLE
    way: ClassVar[tuple[float, float, float]]
    angle: ClassVar[float] = 0.0

    def place(self, vector):
        return placed(fixture=vector, joints=(0.0, 0.0, self.angle))

    def begin(self, vector, first, tcp):
        return Episode(vector + jnp.array(self.way), vector, tcp, first.object)

    def reward_v1(self, now, episode, action):
        del action
        return reach_then(
            "pull",
            distance(now.object, now.tcp),
            distance(now.object[:2], episode.target[:2]),
            distance(episode.landmark[:2], episode.target[:2]),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoorOpen(Door):
    """Grip behind the handle and pull; solved by the handle's x alone."""

    name = "door-open"
    goal_low = (-0.3, 0.4, 0.1499)
    goal_high = (-0.2, 0.5, 0.1501)
    way = (-0.3, -0.45, 0.0)

    def reward(self, now, episode, action):
        ready = self._ready(now.hand, now.object)
        gripped = (jnp.clip(action[3], -1.0, 1.0) + 1.0) / 2
        # Fully opened is 30 degrees more than a quarter turn, with a wide bound.
        left = jnp.pi / 2 + jnp.pi / 6 + now.joint
        wide = closeness(left, 0.5, jnp.pi / 3)
        opened = 0.2 * jnp.where(now.joint < -jnp.pi / 90, 1.0, 0.0) + 0.8 * wide
        total = 2.0 * both(ready, gripped) + 8.0 * opened
        terms = {"ready": ready, "gripped": gripped, "opened": opened}
        return Reward(jnp.where(self.success(now, episode), 10.0, total), terms)

    def success(self, now, episode):
        return jnp.abs(now.object[0] - episode.target[0]) <= SOLVED

    def _ready(self, hand, handle):
        """Near the gap behind the handle, coming from above and not through it."""
        radius = 0.12
        door = handle - jnp.array([0.05, 0.0, 0.0])
        floor = funnel(distance(hand[:2], door[:2]), radius, 0.04, 0.4)
        gap = handle + jnp.array([0.0, 0.03, -0.01])
        near = closeness(distance(hand, gap), radius / 2, 0.5)
        return both(above(hand[2], floor, floor / 2), near)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoorClose(Door):
    """Push the handle to where it is when the door is shut; the hand starts aside."""

    name = "door-close"
    hand_start = (-0.5, 0.6, 0.2)
    goal_low = (0.2, 0.65, 0.1499)
    goal_high = (0.3, 0.75, 0.1501)
    way = (0.2, -0.2, 0.0)
    angle = -1.5708

    def reward(self, now, episode, action):
        del action
        radius = 0.05
        left = distance(now.object, episode.target)
        shut = tolerance(left, (0.0, radius), distance(episode.object, episode.target))
        # The hand is drawn to the goal, but over its distance from the handle.
        margin = distance(jnp.array(self.hand_start), now.object) + 0.1
        apart = distance(now.tcp, episode.target)
        near = tolerance(apart, (0.0, radius / 4), margin)
        total = jnp.where(left < radius, 10.0, 3.0 * near + 6.0 * shut)
        return Reward(total, {"near": near, "shut": shut})

    def success(self, now, episode):
        return distance(now.object, episode.target) <= SOLVED
