"""The official hand: dragged by a point, on an arm that is stiffer one way than another.

Actions move a point, to which a soft weld drags the hand. It is met in part, and in
another direction, by what hangs on the hand: an arm of seven joints, heavy and damped.
Ours has no arm but its equation of motion, for hand h and point g in metres and seconds:

  h'' = 1600 K(h) (g + rest(g) - h) - 80 D(h) h'

Stiffness K and damping D depend on where the hand is, linearly; how far from the point
it comes to rest does quadratically, for a stretched arm falls short. The numbers were
fitted to trajectories of the official package up to the first contact: 450 episodes of
its policies, with and without noise, and of random actions (seeds 7, 11 and 13).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.types import Array, Float
from jaxmeta.manipulation.shaping import Point

STEP_LENGTH = 0.01
"""How far an action of 1 moves the point that drags the hand, metres."""

TIMESTEP, STEPS = 0.0025, 5
"""Of the motion of a free hand: seconds, and how many make a step of the environment."""

MASS, WELD_STIFFNESS, WELD_DAMPING = 6.0, 8186.0, 440.0
"""Of the hand with what hangs on it, kg, N/m and N s/m."""

AT_RESET = (0.0045, 0.0014, -0.0049)
"""Where the hand is after the official reset, from where it was sent, metres."""

CENTRE, EXTENT = np.array([0.0, 0.65, 0.2]), np.array([0.3, 0.25, 0.15])
LOW, HIGH = np.array([-0.5, 0.42, 0.0]), np.array([0.5, 0.95, 0.4])
"""How places are scaled, and where the fit holds, metres."""

STIFFNESS = np.array(
    [
        [[1.214, -1.129, -0.594], [-1.132, 3.586, 3.199], [-0.010, 0.462, 1.393]],
        [[-0.254, 0.652, 0.553], [0.826, -1.713, -2.049], [-0.053, 0.025, -0.182]],
        [[0.031, -0.040, -0.466], [-0.101, 0.128, 1.568], [0.020, 0.029, 0.463]],
        [[-0.439, -0.270, 0.182], [1.401, 0.098, 0.099], [0.248, -0.036, 0.206]],
    ]
)
"""`[4, 3, 3]` K by 1, y, z and x, in 1600 / s^2 (`_terms`)."""

DAMPING = np.array(
    [
        [[1.177, -1.557, -0.707], [-1.234, 5.022, 3.576], [-0.053, 0.701, 1.510]],
        [[-0.397, 0.229, 0.806], [1.045, -0.387, -2.918], [-0.008, 0.201, -0.354]],
        [[0.054, -0.097, -0.534], [-0.168, 0.421, 1.900], [0.010, 0.156, 0.521]],
        [[-0.584, -0.196, 0.198], [1.859, 0.126, 0.134], [0.304, -0.001, 0.238]],
    ]
)
"""`[4, 3, 3]` D by 1, y, z and x, in 80 / s."""

REST = np.array(
    [
        [
            -0.002,
            0.054,
            -0.051,
            0.331,
            0.036,
            -0.018,
            0.003,
            -0.023,
            -0.711,
            0.071,
            -0.015,
            -0.009,
            -0.011,
            0.041,
            -0.023,
            0.111,
            -0.160,
            -1.089,
            -0.190,
            -0.033,
        ],
        [
            0.313,
            0.711,
            0.352,
            0.055,
            -1.790,
            -0.210,
            0.422,
            -0.378,
            -0.048,
            0.147,
            -2.248,
            -0.470,
            -0.770,
            0.047,
            -1.069,
            -0.236,
            -0.123,
            0.136,
            -0.159,
            0.111,
        ],
        [
            -0.370,
            0.229,
            0.396,
            -0.113,
            0.197,
            0.213,
            -0.413,
            0.003,
            0.184,
            -0.053,
            -0.055,
            -1.099,
            0.093,
            -0.198,
            -0.063,
            -0.280,
            0.081,
            0.196,
            0.055,
            -0.136,
        ],
    ]
)
"""`[3, 10]` `rest` by 1, y, z, x, y y, z z, y z, x x, x y and x z, centimetres."""


class Moving(NamedTuple):
    """A hand, or several moments of it.

    Attributes:
      position: `[3]` metres.
      velocity: `[3]` m/s.
    """

    position: Point
    velocity: Point


def at_rest(position: Point) -> Moving:
    """A hand that does not move.

    Args:
      position: `[3]` metres.
    """
    return Moving(position, jnp.zeros_like(position))


def free_motion(goal: Point, start: Moving, count: int) -> Moving:
    """How a hand moves in a step of the environment if nothing touches it.

    Args:
      goal: `[3]` the point that drags it, metres.
      start: the hand at the beginning.
      count: of the time steps for which it is wanted.

    Returns:
      `[count + 1, 3]` its moments, the first of which is the start and the last begins
      the next step.

    Example:
      >>> start = at_rest(jnp.array([0.0, 0.6, 0.2]))
      >>> path = free_motion(jnp.array([0.01, 0.6, 0.2]), start, 5)
      >>> path.position.shape, bool(path.position[-1, 0] > 0.0)
      ((6, 3), True)
    """

    def once(now: Moving, _: None):
        a = acceleration(goal, now.position, now.velocity)
        velocity = now.velocity + TIMESTEP * a
        after = Moving(now.position + TIMESTEP * velocity, velocity)
        return after, after

    _, later = jax.lax.scan(once, start, None, length=STEPS)
    path = jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), start, later)
    # Moments in between are means of their neighbours.
    times = STEPS * np.arange(count + 1) / count
    weights = np.maximum(0.0, 1.0 - np.abs(times[:, None] - np.arange(STEPS + 1)))
    return jax.tree.map(lambda xs: jnp.asarray(weights, xs.dtype) @ xs, path)


def force(now: Moving, after: Moving, timestep: float, hand: Moving) -> Point:
    """With which a hand that may be held up is dragged, newtons.

    Args:
      now: a free hand at this moment.
      after: the same a time step later.
      timestep: seconds.
      hand: the hand.
    """
    pull = WELD_STIFFNESS * (now.position - hand.position)
    brake = WELD_DAMPING * (now.velocity - hand.velocity)
    return MASS * (after.velocity - now.velocity) / timestep + brake + pull


def acceleration(goal: Point, hand: Point, velocity: Point) -> Point:
    """How the hand is accelerated where nothing touches it, m/s^2.

    Args:
      goal: `[3]` the point that drags it, metres.
      hand: `[3]` where it is, metres.
      velocity: `[3]` m/s.

    Example:
      >>> hand, still = jnp.array([0.0, 0.6, 0.2]), jnp.zeros(3)
      >>> a = acceleration(hand + jnp.array([0.05, 0.0, 0.0]), hand, still)
      >>> bool(a[0] > 10.0)
      True
    """
    left, terms = goal + rest(goal) - hand, _terms(hand)[:4]
    at = lambda table: (jnp.asarray(table, left.dtype) * terms[:, None, None]).sum(0)
    return 1600.0 * at(STIFFNESS) @ left - 80.0 * at(DAMPING) @ velocity


def rest(goal: Point) -> Point:
    """From the point that drags the hand to where it comes to rest, metres.

    Args:
      goal: `[3]` the point, metres.

    Example:
      >>> bool(rest(jnp.array([0.0, 0.9, 0.2]))[1] < -0.005)
      True
    """
    return 0.01 * jnp.asarray(REST, goal.dtype) @ _terms(goal)


def _terms(at: Point) -> Float[Array, "20"]:
    """The products of up to three of x, y and z, scaled, in the order of `REST`."""
    x, y, z = (jnp.clip(at, LOW, HIGH) - CENTRE) / EXTENT
    one = jnp.ones_like(x)
    squares = [y * y, z * z, y * z, x * x, x * y, x * z]
    cubes = [y**3, y * y * z, y * z * z, z**3, x * x * y, x * x * z, x**3]
    return jnp.stack([one, y, z, x, *squares, *cubes, x * y * y, x * z * z, x * y * z])
