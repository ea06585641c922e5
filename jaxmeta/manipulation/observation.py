"""The 39 numbers that the official package shows of a moment."""

import jax.numpy as jnp

from jaxmeta.core.types import Array, Float
from jaxmeta.manipulation.shaping import Point
from jaxmeta.manipulation.task import (
    HAND_HIGH,
    HAND_LOW,
    ManipulationTask,
    Quaternion,
    QuatOrder,
    Readings,
)

Frame = Float[Array, "18"]
"""`[18]` hand, opening, and position and orientation of two objects."""


def frame(task: ManipulationTask, now: Readings) -> Frame:
    """What is seen of one moment, without the goal.

    Args:
      task: says how orientations are written.
      now: the readings.

    Returns:
      `[18]`: `[0:3]` hand, `[3]` opening of the gripper (1 is .1 m), `[4:7]` and
      `[7:11]` position and quaternion of the main object, `[11:14]` and `[14:18]` of
      the second one, zeros if there is none.
    """
    return jnp.concatenate(
        [
            now.hand,
            now.opening[None],
            now.object,
            _written(task.quat_order, now.quat),
            now.second,
            _written(task.second_order, now.second_quat),
        ]
    )


def observe(
    task: ManipulationTask, now: Frame, before: Frame, target: Point, *, hidden: bool
) -> Float[Array, "39"]:
    """The official observation: this frame, the one before, and the goal.

    Args:
      task: says where the goal is clipped.
      now: `[18]` `frame` of this moment.
      before: `[18]` of the step before; of this moment after a reset.
      target: `[3]` the goal, metres.
      hidden: whether the goal is hidden (zeros), as in the meta-learning suites.

    Returns:
      `[39]`: `[0:18]` now, `[18:36]` before, `[36:39]` goal.
    """
    goal = jnp.clip(target, jnp.array(task.goal_low), jnp.array(task.goal_high))
    goal = jnp.zeros_like(goal) if hidden else goal
    return jnp.concatenate([now, before, goal])


def clipped(now: Readings) -> Readings:
    """The readings as they are observed: hand and opening within their bounds."""
    hand = jnp.clip(now.hand, jnp.array(HAND_LOW), jnp.array(HAND_HIGH))
    return now._replace(hand=hand, opening=jnp.clip(now.opening, 0.0, 1.0))


def _written(order: QuatOrder, quat: Quaternion) -> Quaternion:
    if order == "zeros":
        return jnp.zeros_like(quat)
    if order == "ones":
        return jnp.zeros_like(quat).at[0].set(1.0)
    if order == "wxyz":
        return quat
    # SciPy, which writes x first, makes the largest component positive.
    largest = quat[jnp.argmax(jnp.abs(quat))]
    return jnp.roll(jnp.where(largest < 0, -quat, quat), -1)
