"""From the simulator's state to the quantities that rewards and observations read."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core.types import Array, Float, Int
from jaxmeta.manipulation.hand import TIPS
from jaxmeta.manipulation.scene import At
from jaxmeta.manipulation.shaping import Point
from jaxmeta.manipulation.task import ManipulationTask, Quaternion, Readings

BODIES = ("free", "mechanism", "fixture")
"""What a point may be fixed to."""

PAD_TO_CLAW = 0.003
"""The claws, whose distance is observed, are outside the pads by this, metres."""


class Views(NamedTuple):
    """Where the points that a task reads are fixed, as numbers.

    Attributes:
      body: `[3]` index into `BODIES` of the main object's point, of the second one's
        and of the landmark.
      offset: `[3, 3]` in the frames of these bodies, metres.
      quat: `[3, 4]` orientations there, w first.
      there: `[3]` 1 for a point that the task has, else 0: it is then read as zeros.
      joint: `[]` which joint of the mechanism is read.
    """

    body: Int[Array, "3"]
    offset: Float[Array, "3 3"]
    quat: Float[Array, "3 4"]
    there: Float[Array, "3"]
    joint: Int[Array, ""]


class Poses(NamedTuple):
    """What the simulator says of a moment.

    Attributes:
      tips: `[3]` the middle between the finger tips where they open evenly, metres.
      turn: `[4]` orientation of the hand, w first.
      pads: `[2, 3]` left and right.
      bodies: `[3, 3]` positions in the order of `BODIES`.
      quats: `[3, 4]` their orientations, w first.
      joints: `[3]` of the mechanism.
      pad_forces: `[2]` as in `Readings`.
    """

    tips: Point
    turn: Quaternion
    pads: Float[Array, "2 3"]
    bodies: Float[Array, "3 3"]
    quats: Float[Array, "3 4"]
    joints: Float[Array, "3"]
    pad_forces: Float[Array, "2"]


def views_of(task: ManipulationTask) -> Views:
    """The points of one task."""
    spots: Sequence[At | None] = (task.object_at, task.second_at, task.landmark_at)
    at = [At("free") if spot is None else spot for spot in spots]
    return Views(
        body=jnp.array([BODIES.index(spot.body) for spot in at]),
        offset=jnp.array([spot.offset for spot in at], jnp.float32),
        quat=jnp.array([spot.quat for spot in at], jnp.float32),
        there=jnp.array([spot is not None for spot in spots], jnp.float32),
        joint=jnp.array(task.joint_index),
    )


def read(views: Views, poses: Poses) -> Readings:
    """The readings of a moment.

    Args:
      views: of the task.
      poses: what the simulator says.
    """
    body = poses.bodies[views.body]
    frame = poses.quats[views.body]
    points = body + jax.vmap(rotate)(frame, views.offset)
    points = points * views.there[:, None]
    quats = jax.vmap(multiply)(frame, views.quat)
    left, right = poses.pads
    claws = jnp.linalg.norm(left - right) + 2 * PAD_TO_CLAW
    down = rotate(poses.turn, jnp.asarray(TIPS))
    return Readings(
        hand=poses.tips - down,
        tcp=(left + right) / 2 + down,
        left_pad=left,
        right_pad=right,
        opening=claws / 0.1,
        object=points[0],
        quat=quats[0],
        second=points[1],
        second_quat=quats[1],
        landmark=points[2],
        joint=poses.joints[views.joint],
        pad_forces=poses.pad_forces,
    )


def rotate(quat: Quaternion, x: Point) -> Point:
    """A vector turned by a unit quaternion, w first.

    Example:
      >>> quarter = jnp.sqrt(jnp.array([0.5, 0.0, 0.0, 0.5]))
      >>> rotate(quarter, jnp.array([1.0, 0.0, 0.0])).round(3).tolist()
      [0.0, 1.0, 0.0]
    """
    w, v = quat[0], quat[1:]
    across = jnp.cross(v, x)
    return x + 2.0 * (w * across + jnp.cross(v, across))


def multiply(a: Quaternion, b: Quaternion) -> Quaternion:
    """The product of quaternions, w first: first turn by b, then by a.

    Example:
      >>> i = jnp.array([0.0, 1.0, 0.0, 0.0])
      >>> multiply(i, i).tolist()
      [-1.0, 0.0, 0.0, 0.0]
    """
    w = a[0] * b[0] - a[1:] @ b[1:]
    v = a[0] * b[1:] + b[0] * a[1:] + jnp.cross(a[1:], b[1:])
    return jnp.concatenate([w[None], v])
