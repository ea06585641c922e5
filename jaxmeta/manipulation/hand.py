"""The official hand without its arm: how it moves, and what drags it if it is held up.

Actions move a point, to which a soft weld drags the hand. It gives way in part, and in
another direction, to what hangs on it: an arm of seven joints, heavy and damped. Ours
has no arm but its equation of motion where nothing touches the hand, for hand h and
point g in metres and seconds:

  h'' = 1600 K(h) (g + rest(g) - h) - 80 D(h) h'

Stiffness K and damping D are quadratic in where the hand is; so, with cubes, is how far
from the point it comes to rest, for a stretched arm falls short. The numbers were
fitted to trajectories of the official package without contact: 650 episodes of its
policies, with and without noise, and of random actions (seeds 7, 11, 13, 17 and 19),
and 240 in which the hand goes to random points and stays there. What they leave out is
how the arm's elbow hangs, which moves the hand by some millimetres.

A hand that is held up is dragged towards where a free one would be, by a spring that is
as stiff as the official weld, `1 / (time^2 (1 - d) w)`, for a time constant of 20 ms,
an impedance d of .95 and the inverse weight w of the official hand, 6.1 / kg; mass and
damping are what weld and arm have in the mean.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.types import Array, Float
from jaxmeta.manipulation.shaping import Point

STEP_LENGTH = 0.01
"""How far an action of 1 moves the point that drags the hand, metres."""

TIMESTEP, STEPS = 0.0025, 5
"""Of the motion of a free hand: seconds, and how many are a step of the environment."""

MASS, WELD_STIFFNESS, WELD_DAMPING = 6.0, 8186.0, 440.0
"""Of the hand with what hangs on it, kg, N/m and N s/m."""

AT_RESET = (0.0045, 0.0014, -0.0049)
"""Where the hand is after the official reset, from where it was sent, metres."""

CENTRE, EXTENT = np.array([0.0, 0.65, 0.2]), np.array([0.3, 0.25, 0.15])
LOW, HIGH = np.array([-0.5, 0.38, 0.0]), np.array([0.5, 0.9, 0.4])
REST_LOW, REST_HIGH = np.array([-0.5, 0.38, 0.0]), np.array([0.5, 1.0, 0.5])
"""How places are scaled, and where K and D and where `rest` were fitted, metres."""


class Tables(NamedTuple):
    """The numbers of the equation of motion, by products of coordinates (`_terms`).

    Attributes:
      stiffness: `[7, 3, 3]` K by 1, y, z, x, y y, z z and y z, in 1600 / s^2.
      damping: `[7, 3, 3]` D by the same, in 80 / s.
      rest: `[20, 3]` `rest` by all products, centimetres.
    """

    stiffness: Any
    damping: Any
    rest: Any


OFFICIAL = Tables(
    stiffness=np.array(
        [
            [[1.110, -0.755, -0.387], [-0.302, 1.515, 1.723], [0.281, -0.339, 0.601]],
            [
                [-0.091, -0.742, -1.832],
                [0.395, -0.179, 1.141],
                [-0.027, -1.306, -2.104],
            ],
            [[-0.021, 0.470, 0.573], [-0.196, -0.599, -0.699], [-0.112, 0.320, 0.497]],
            [[-0.346, -0.226, 0.410], [0.327, 0.116, -0.325], [-0.292, 0.058, 0.216]],
            [[-0.621, 0.279, -0.531], [0.206, 0.295, 1.397], [-0.638, 0.671, 0.218]],
            [[0.314, -0.498, -0.278], [-0.412, 0.719, 0.218], [0.231, -0.248, -0.080]],
            [[0.063, 0.549, 0.496], [0.259, -0.928, -1.293], [0.290, 0.297, -0.110]],
        ]
    ),
    damping=np.array(
        [
            [[1.057, -1.060, -0.453], [-0.360, 2.207, 1.890], [0.249, -0.409, 0.641]],
            [[-0.136, -1.539, -1.762], [0.436, 0.669, 0.801], [0.062, -2.111, -2.256]],
            [[-0.035, 0.607, 0.629], [-0.160, -0.637, -0.693], [-0.122, 0.504, 0.508]],
            [[-0.436, -0.086, 0.441], [0.429, 0.066, -0.380], [-0.385, 0.138, 0.219]],
            [[-0.649, -0.127, -0.252], [0.214, 0.427, 1.291], [-0.695, 0.037, 0.596]],
            [[0.343, -0.588, -0.368], [-0.443, 0.702, 0.327], [0.262, -0.352, -0.093]],
            [[0.044, 0.683, 0.370], [0.275, -1.146, -1.322], [0.271, 0.348, -0.302]],
        ]
    ),
    rest=np.array(
        [
            [-0.006, 0.324, -0.368],  # 1
            [0.028, 0.754, 0.231],  # y
            [-0.038, 0.357, 0.375],  # z
            [0.339, 0.010, -0.098],  # x
            [0.036, -1.736, 0.182],  # y y
            [-0.001, -0.232, 0.106],  # z z
            [0.018, 0.418, -0.413],  # y z
            [-0.024, -0.379, -0.004],  # x x
            [-0.713, -0.057, 0.153],  # x y
            [0.039, 0.148, -0.101],  # x z
            [-0.002, -2.269, -0.029],  # y y y
            [0.023, -0.368, -1.097],  # y y z
            [-0.064, -0.685, -0.094],  # y z z
            [-0.009, -0.031, -0.151],  # z z z
            [0.022, -1.120, 0.007],  # x x y
            [0.123, -0.223, -0.202],  # x x z
            [-0.179, -0.097, 0.021],  # x x x
            [-1.060, 0.306, 0.143],  # x y y
            [-0.188, -0.220, 0.067],  # x z z
            [-0.036, 0.130, -0.148],  # x y z
        ]
    ),
)
"""As fitted."""


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


def free_motion(
    goal: Point, start: Moving, count: int, tables: Tables = OFFICIAL
) -> Moving:
    """How a hand moves in a step of the environment if nothing touches it.

    Args:
      goal: `[3]` the point that drags it, metres.
      start: the hand at the beginning.
      count: of the time steps for which it is wanted.
      tables: the numbers; others while they are fitted.

    Returns:
      `[count + 1, 3]` its moments, the first of which is the start and the last begins
      the next step.

    Example:
      >>> start = at_rest(jnp.array([0.0, 0.6, 0.2]))
      >>> path = free_motion(jnp.array([0.01, 0.6, 0.2]), start, 5)
      >>> path.position.shape, bool(path.position[-1, 0] > 0.0)
      ((6, 3), True)
    """
    stiffness, damping = _tensors(start.position, tables)
    end = goal + rest(goal, tables)
    now, moments = start, [start]
    for _ in range(STEPS):
        pull = stiffness @ (end - now.position) - damping @ now.velocity
        velocity = now.velocity + TIMESTEP * pull
        now = Moving(now.position + TIMESTEP * velocity, velocity)
        moments.append(now)
    path = jax.tree.map(lambda *xs: jnp.stack(xs), *moments)
    if count == STEPS:
        return path
    # Moments in between are means of their neighbours.
    times = STEPS * np.arange(count + 1) / count
    weights = np.maximum(0.0, 1.0 - np.abs(times[:, None] - np.arange(STEPS + 1)))
    return jax.tree.map(lambda xs: jnp.asarray(weights, xs.dtype) @ xs, path)


def force(now: Moving, after: Moving, timestep: float, hand: Moving) -> Any:
    """With which a hand that may be held up is dragged, newtons.

    Args:
      now: a free hand at this moment.
      after: the same a time step later.
      timestep: seconds.
      hand: the hand.

    Returns:
      `[3]` of NumPy, if all else is.
    """
    pull = WELD_STIFFNESS * (now.position - hand.position)
    brake = WELD_DAMPING * (now.velocity - hand.velocity)
    return MASS * (after.velocity - now.velocity) / timestep + brake + pull


def rest(goal: Point, tables: Tables = OFFICIAL) -> Point:
    """From the point that drags the hand to where it comes to rest, metres.

    Args:
      goal: `[3]` the point, metres.
      tables: as of `free_motion`.

    Example:
      >>> bool(rest(jnp.array([0.0, 0.9, 0.2]))[1] < -0.005)
      True
    """
    within = jnp.clip(goal, REST_LOW, REST_HIGH)
    return 0.01 * _terms(within) @ jnp.asarray(tables.rest, goal.dtype)


def _tensors(
    at: Point, tables: Tables
) -> tuple[Float[Array, "3 3"], Float[Array, "3 3"]]:
    """Stiffness, 1/s^2, and damping, 1/s, at a place."""
    terms = _terms(jnp.clip(at, LOW, HIGH))[: len(tables.stiffness), None, None]
    sum_of = lambda table: (jnp.asarray(table, terms.dtype) * terms).sum(0)
    return 1600.0 * sum_of(tables.stiffness), 80.0 * sum_of(tables.damping)


def _terms(at: Point) -> Float[Array, "20"]:
    """The products of up to three of x, y and z, scaled, as `Tables` orders them."""
    x, y, z = (at - CENTRE) / EXTENT
    one = jnp.ones_like(x)
    squares = [y * y, z * z, y * z, x * x, x * y, x * z]
    cubes = [y**3, y * y * z, y * z * z, z**3, x * x * y, x * x * z, x**3]
    return jnp.stack([one, y, z, x, *squares, *cubes, x * y * y, x * z * z, x * y * z])
