"""The 39 numbers that the official package shows of a moment."""

from typing import NamedTuple, get_args

import jax.numpy as jnp

from jaxmeta.core.types import Array, Float, Int
from jaxmeta.manipulation.shaping import Point
from jaxmeta.manipulation.task import (
    HAND_HIGH,
    HAND_LOW,
    ManipulationTask,
    Quaternion,
    QuatOrder,
    Readings,
)

ORDERS: tuple[QuatOrder, ...] = get_args(QuatOrder)
"""By their numbers in a `Layout`."""

Frame = Float[Array, "18"]
"""`[18]` hand, opening, and position and orientation of two objects."""


class Layout(NamedTuple):
    """How a task is observed, as numbers, so that tasks can be mixed.

    Attributes:
      orders: `[2]` how the orientations of both objects are written: which of the
        `QuatOrder`.
      goal_low: `[3]` where the goal is clipped, metres.
      goal_high: `[3]`.
    """

    orders: Int[Array, "2"]
    goal_low: Point
    goal_high: Point


def layout_of(task: ManipulationTask) -> Layout:
    """How one task is observed."""
    orders = [ORDERS.index(x) for x in (task.quat_order, task.second_order)]
    return Layout(
        jnp.array(orders), jnp.array(task.goal_low), jnp.array(task.goal_high)
    )


def frame(layout: Layout, now: Readings) -> Frame:
    """What is seen of one moment, without the goal.

    Args:
      layout: of the task.
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
            _written(layout.orders[0], now.quat),
            now.second,
            _written(layout.orders[1], now.second_quat),
        ]
    )


def observe(
    layout: Layout, now: Frame, before: Frame, target: Point, *, hidden: bool
) -> Float[Array, "39"]:
    """The official observation: this frame, the one before, and the goal.

    Args:
      layout: of the task.
      now: `[18]` `frame` of this moment.
      before: `[18]` of the step before; of this moment after a reset.
      target: `[3]` the goal, metres.
      hidden: whether the goal is hidden (zeros), as in the meta-learning suites.

    Returns:
      `[39]`: `[0:18]` now, `[18:36]` before, `[36:39]` goal.
    """
    goal = jnp.clip(target, layout.goal_low, layout.goal_high)
    goal = jnp.zeros_like(goal) if hidden else goal
    return jnp.concatenate([now, before, goal])


def clipped(now: Readings) -> Readings:
    """The readings as they are observed: hand and opening within their bounds."""
    hand = jnp.clip(now.hand, jnp.array(HAND_LOW), jnp.array(HAND_HIGH))
    return now._replace(hand=hand, opening=jnp.clip(now.opening, 0.0, 1.0))


def _written(order: Int[Array, ""], quat: Quaternion) -> Quaternion:
    # SciPy, which writes x first, makes the largest component positive.
    largest = quat[jnp.argmax(jnp.abs(quat))]
    written: dict[QuatOrder, Quaternion] = {
        "wxyz": quat,
        "xyzw": jnp.roll(jnp.where(largest < 0, -quat, quat), -1),
        "zeros": jnp.zeros_like(quat),
        "ones": jnp.zeros_like(quat).at[0].set(1.0),
    }
    return jnp.stack([written[name] for name in ORDERS])[order]
