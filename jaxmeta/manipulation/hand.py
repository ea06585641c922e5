"""The hand, which moves as the official arm would have it, and what drags it back.

Where nothing touches it the hand follows the arm (`arm`), which knows of no contact. A
hand that is held up is dragged towards where a free one would be, by a spring that is
as stiff as the official weld, `1 / (time^2 (1 - d) w)` with the arm's numbers; mass and
damping are what weld and arm have in the mean. How it is turned is the arm's alone, and
what it holds is carried along: a hand moves as the middle between its finger tips.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.types import Array, Float
from jaxmeta.manipulation.arm import (
    IMPEDANCE,
    STEPS,
    TIME,
    TIMESTEP,
    WELD_WEIGHTS,
    Arm,
    after_reset,
    frames,
    motion,
)
from jaxmeta.manipulation.shaping import Point

STEP_LENGTH = 0.01
"""How far an action of 1 moves the point that drags the hand, metres."""

WELD_STIFFNESS = 1 / (TIME**2 * (1 - IMPEDANCE) * WELD_WEIGHTS[0])
MASS, WELD_DAMPING = 6.0, 440.0
"""Of the hand with what hangs on it, N/m; kg and N s/m."""

TIPS = np.array([0.0, 0.0, -0.045], np.float32)
"""From the hand to the middle between its finger tips, straight down, metres."""


class Moving(NamedTuple):
    """A hand, or several moments of it.

    Attributes:
      position: `[3]` of the middle between its finger tips, metres.
      velocity: `[3]` m/s.
      turn: `[4]` unit quaternion, w first; 1, 0, 0, 0 straight down.
    """

    position: Point
    velocity: Point
    turn: Float[Array, "4"]


class Free(NamedTuple):
    """A hand that nothing ever touched.

    Attributes:
      arm: that it hangs on.
      velocity: `[3]` of its tips in the time step before, m/s.
    """

    arm: Arm
    velocity: Point


@jax.default_matmul_precision("highest")
def started(goal: Point) -> Free:
    """The hand after the official reset, in which it still swings a little.

    Args:
      goal: `[3]` the point it was sent to, metres.

    Example:
      >>> moment(started(jnp.array([0.0, 0.6, 0.2]))).position.round(3).tolist()
      [0.004..., 0.601..., 0.15...]
    """
    arm = after_reset(goal)
    tips = lambda angles: _seen(angles)[0]
    _, velocity = jax.jvp(tips, (arm.angles,), (arm.speeds,))
    return Free(arm, velocity)


@jax.default_matmul_precision("highest")
def free_motion(goal: Point, start: Free, count: int) -> tuple[Moving, Free]:
    """How a hand moves in a step of the environment if nothing touches it.

    Args:
      goal: `[3]` the point that drags it, metres.
      start: the hand at the beginning.
      count: of the time steps for which it is wanted.

    Returns:
      `[count + 1, ...]` its moments, and how it begins the next step.

    Example:
      >>> start = started(jnp.array([0.0, 0.6, 0.2]))
      >>> path, end = free_motion(jnp.array([0.01, 0.6, 0.2]), start, 5)
      >>> path.position.shape, bool(path.velocity[-1, 0] > 0.0)
      ((6, 3), True)
    """
    states = motion(goal, start.arm)
    end = jax.tree.map(lambda xs: xs[-1], states)
    angles = states.angles
    if count != STEPS:  # moments in between are means of their neighbours
        times = STEPS * np.arange(count + 1) / count
        weights = np.maximum(0.0, 1.0 - np.abs(times[:, None] - np.arange(STEPS + 1)))
        angles = jnp.asarray(weights, angles.dtype) @ angles
    places, turns = jax.vmap(_seen)(angles)
    moved = jnp.diff(places, axis=0) * (count / (STEPS * TIMESTEP))
    velocities = jnp.concatenate([start.velocity[None], moved])
    return Moving(places, velocities, turns), Free(end, velocities[-1])


@jax.default_matmul_precision("highest")
def moment(free: Free) -> Moving:
    """The moment of a hand that nothing ever touched."""
    place, turn = _seen(free.arm.angles)
    return Moving(place, free.velocity, turn)


def force(now: Moving, after: Moving, timestep: float, hand: Any, velocity: Any) -> Any:
    """With which a hand that may be held up is dragged, newtons.

    Args:
      now: a free hand at this moment.
      after: the same a time step later.
      timestep: seconds.
      hand: `[3]` where its tips are, metres.
      velocity: `[3]` its own, m/s.

    Returns:
      `[3]` of NumPy, if all else is.
    """
    pull = WELD_STIFFNESS * (now.position - hand)
    brake = WELD_DAMPING * (now.velocity - velocity)
    return MASS * (after.velocity - now.velocity) / timestep + brake + pull


def _seen(angles: Float[Array, "7"]) -> tuple[Point, Float[Array, "4"]]:
    """Position of the tips and turn of the hand."""
    found = frames(angles)
    return found.hand + found.hand_axes @ TIPS, found.turn
