"""The official robot's arm, as it moves where nothing touches it.

Seven joints without motors, heavy and damped. A soft weld drags the hand at their end
to a point and to a direction, and leaves it short of both, by how the arm hangs. Joint
angles q move by MuJoCo's equations ("Computation": constraint model, Euler's method
with implicit damping), of which one joint's limit and the weld are solved exactly:

  (M + J' W J + L) a = f + J' W r + l,  r = -b J v - k d e,  f = -D v - c(q, v)
  v <- v + h (M + h D)^-1 M a,  q <- q + h v

for mass matrix M and forces c of gravity and rotation (Featherstone, Rigid Body
Dynamics Algorithms, 2008, chapters 5 and 6, all in the world's frame), damping D, error
e and Jacobian J of the weld and its weight `W = d / (1 - d) / w`; L and l are the same
for the shoulder where it is at its limit. M, J and c are those of the beginning of a
step of the environment, in which joints turn by hundredths of a radian: that displaces
the hand by up to 1 mm. Masses, lengths and inertias are those of the robot, a Sawyer of
Rethink Robotics, in the official package (MIT licence).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.types import Array, Float
from jaxmeta.manipulation.shaping import Point

TIMESTEP, STEPS = 0.0025, 5
"""Of the arm's motion: seconds, and how many are a step of the environment."""

RESET_STEPS = 250
"""Time steps of the official reset, all joints at 0 before."""

DAMPING, ARMATURE, GRAVITY = 10.0, 0.001, 9.81
"""Of every joint, N m s/rad and kg m^2; m/s^2."""

IMPEDANCE, TIME = 0.95, 0.02
"""Share d of a constraint's acceleration that is met, and its time constant, s."""

WELD_WEIGHTS, TORQUE_SCALE = (6.105627, 284.895061), 5.0
"""Inverse weights w of the hand, 1 / kg and 1 / (kg m^2), and the metres that a radian
counts."""

SHOULDER, LIMIT, LIMIT_WEIGHT = 1, -0.5, 3.924983
"""The joint that comes to its limit, radians, and its inverse weight."""


class Link(NamedTuple):
    """A part of the arm with what is fixed to it; it turns about its z axis.

    Attributes:
      place: its origin in the frame of the part before, metres.
      turn: its orientation there, w first.
      mass: kilograms.
      centre: of mass, metres.
      inertia: about the centre: xx, yy, zz, xy, xz, yz, kg m^2.
    """

    place: tuple[float, ...]
    turn: tuple[float, ...]
    mass: float
    centre: tuple[float, ...]
    inertia: tuple[float, ...]


_HALF = 0.5**0.5
LINKS = (
    Link(
        (0.0, 0.0, 0.08),
        (1.0, 0.0, 0.0, 0.0),
        6.901,
        (0.020006, 0.008452, 0.201992),
        (0.144478, 0.145799, 0.0292147, 0.00444971, 0.0176979, 0.0114332),
    ),
    Link(
        (0.081, 0.05, 0.237),
        (0.5, -0.5, 0.5, 0.5),
        4.505,
        (-0.003085, -0.026811, 0.092521),
        (0.022398, 0.014613, 0.017295, -0.000239862, -0.000293624, -0.0060875),
    ),
    Link(
        (0.0, -0.14, 0.1425),
        (_HALF, _HALF, 0.0, 0.0),
        1.745,
        (-0.00016, -0.014967, 0.13582),
        (0.025506, 0.0253, 0.00341791, 4.41007e-06, 1.49521e-05, -0.00332041),
    ),
    Link(
        (0.0, -0.042, 0.26),
        (_HALF, -_HALF, 0.0, 0.0),
        2.5097,
        (-0.004813, -0.0281, -0.084154),
        (0.01016, 0.0065685, 0.0069078, -9.74018e-06, 0.000266245, 0.0030316),
    ),
    Link(
        (0.0, -0.125, -0.1265),
        (_HALF, _HALF, 0.0, 0.0),
        1.1137,
        (-0.001889, 0.006899, 0.134095),
        (0.0135573, 0.0135556, 0.00136611, 1.80783e-05, 0.000134917, 0.00105606),
    ),
    Link(
        (0.0, 0.031, 0.275),
        (_HALF, -_HALF, 0.0, 0.0),
        1.5625,
        (0.006113, -0.023697, 0.076416),
        (0.0047328, 0.0029676, 0.0031762, 0.000115259, 4.62691e-05, -0.0011557),
    ),
    Link(
        (0.0, -0.11, 0.1053),
        (0.0616248, 0.06163, -0.7044161, 0.7044161),
        0.3616,
        (-7e-06, 0.007815, 0.008435),
        (0.000996414, 0.000977347, 0.00044547, 1.47912e-06, -4.06325e-07, 2.93885e-05),
    ),
)
"""From the base to the wrist, with head, hand and open fingers."""

HAND_PLACE = np.array([0.0, 0.0, 0.1445], np.float32)
HAND_TURN = np.array([[0, -1, 0], [-1, 0, 0], [0, 0, -1]], np.float32)
"""The hand in the frame of the last link, metres. It is not turned where it hangs
straight down with its fingers along y."""


def _matrix(quat: tuple[float, ...]) -> np.ndarray:
    w, *v = np.array(quat) / np.linalg.norm(quat)
    x, y, z = v
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


_column = lambda name: np.array([getattr(link, name) for link in LINKS], np.float32)
_PLACES, _MASSES, _CENTRES = _column("place"), _column("mass"), _column("centre")
_TURNS = np.array([_matrix(link.turn) for link in LINKS], np.float32)
_INERTIAS = _column("inertia")[:, [[0, 3, 4], [3, 1, 5], [4, 5, 2]]]
_WEIGHTS = IMPEDANCE / (1 - IMPEDANCE) / np.repeat(WELD_WEIGHTS, 3).astype(np.float32)
_LIMIT_FORCE = IMPEDANCE / (1 - IMPEDANCE) / LIMIT_WEIGHT
_SPRING, _BRAKE = 1 / (IMPEDANCE * TIME**2), 2 / (IMPEDANCE * TIME)


class Arm(NamedTuple):
    """The state of an arm.

    Attributes:
      angles: `[7]` of its joints, radians.
      speeds: `[7]` radians a second.
    """

    angles: Float[Array, "7"]
    speeds: Float[Array, "7"]


class Frames(NamedTuple):
    """Where links are.

    Attributes:
      turns: `[7, 3, 3]` their axes as columns; a joint's is the last.
      origins: `[7, 3]` metres.
      hand: `[3]` the hand, metres.
      hand_axes: `[3, 3]` its axes as columns.
      turn: `[4]` the same as a unit quaternion, w first.
    """

    turns: Float[Array, "7 3 3"]
    origins: Float[Array, "7 3"]
    hand: Point
    hand_axes: Float[Array, "3 3"]
    turn: Float[Array, "4"]


def frames(angles: Float[Array, "7"]) -> Frames:
    """Where the links are.

    Args:
      angles: `[7]` of the joints, radians.

    Example:
      >>> frames(jnp.zeros(7)).hand.round(4).tolist()
      [1.135..., 0.1603..., 0.317...]
    """
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    zero, one = jnp.zeros_like(cos), jnp.ones_like(cos)
    about_z = jnp.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], axis=-1)
    own = _TURNS @ about_z.reshape(-1, 3, 3)
    turns, origins = [own[0]], [jnp.asarray(_PLACES[0])]
    for i in range(1, len(LINKS)):
        origins.append(origins[-1] + turns[-1] @ _PLACES[i])
        turns.append(turns[-1] @ own[i])
    hand, axes = origins[-1] + turns[-1] @ HAND_PLACE, turns[-1] @ HAND_TURN
    return Frames(jnp.stack(turns), jnp.stack(origins), hand, axes, quaternion(axes))


def quaternion(axes: Float[Array, "3 3"]) -> Float[Array, "4"]:
    """The unit quaternion, w first, of a turn by less than half a circle.

    Args:
      axes: `[3, 3]` as columns.

    Example:
      >>> quaternion(jnp.eye(3)).tolist()
      [1.0, 0.0, 0.0, 0.0]
    """
    w = 0.5 * jnp.sqrt(1.0 + jnp.trace(axes))
    odd = axes - axes.T
    return jnp.stack([w, *jnp.stack([odd[2, 1], odd[0, 2], odd[1, 0]]) / (4.0 * w)])


class Forces(NamedTuple):
    """What moves joints.

    Attributes:
      mass: `[7, 7]` M, kg m^2.
      bias: `[7]` c, N m.
    """

    mass: Float[Array, "7 7"]
    bias: Float[Array, "7"]


def dynamics(at: Frames, speeds: Float[Array, "7"]) -> Forces:
    """The mass matrix, and forces of gravity and rotation.

    Args:
      at: where the links are.
      speeds: `[7]` of the joints, radians a second.
    """
    # Momenta are about the world's origin, and `slide` is the speed of a point there.
    masses = jnp.asarray(_MASSES)
    axes = at.turns[:, :, 2]
    moments = jnp.cross(at.origins, axes)
    centres = at.origins + jnp.einsum("lij,lj->li", at.turns, _CENTRES)
    firsts = _times(masses, centres)
    inertias = at.turns @ _INERTIAS @ at.turns.swapaxes(1, 2)
    squares = jnp.einsum("li,li,jk->ljk", firsts, centres, np.eye(3, dtype=np.float32))
    seconds = inertias + squares - jnp.einsum("li,lj->lij", firsts, centres)

    def momenta(mass, first, second, turn, slide):
        spin = jnp.einsum("lij,lj->li", second, turn) + jnp.cross(first, slide)
        return spin, _times(mass, slide) + jnp.cross(turn, first)

    beyond = (_beyond(masses), _beyond(firsts), _beyond(seconds))
    spin, push = momenta(*beyond, axes, moments)
    upper = jnp.triu(axes @ spin.T + moments @ push.T)
    mass = upper + upper.T + jnp.diag(ARMATURE - jnp.diagonal(upper))

    by_turn, by_slide = _times(speeds, axes), _times(speeds, moments)
    turn, slide = jnp.cumsum(by_turn, axis=0), jnp.cumsum(by_slide, axis=0)
    turned = jnp.cumsum(jnp.cross(turn, by_turn), axis=0)
    slid = jnp.cumsum(jnp.cross(turn, by_slide) + jnp.cross(slide, by_turn), axis=0)
    slid = slid.at[:, 2].add(GRAVITY)
    spin, push = momenta(masses, firsts, seconds, turn, slide)
    torque, force = momenta(masses, firsts, seconds, turned, slid)
    torque = _beyond(torque + jnp.cross(turn, spin) + jnp.cross(slide, push))
    force = _beyond(force + jnp.cross(turn, push))
    return Forces(mass, (axes * torque + moments * force).sum(1))


class Weld(NamedTuple):
    """The weld between hand and point.

    Attributes:
      error: `[6]` e, metres.
      slope: `[6, 7]` J, its derivative by angles.
    """

    error: Float[Array, "6"]
    slope: Float[Array, "6 7"]


def weld(at: Frames, goal: Point) -> Weld:
    """How far the hand is from where it is dragged.

    Args:
      at: where the links are.
      goal: `[3]` the point that drags the hand, metres.
    """
    axes, (w, *v) = at.turns[:, :, 2], at.turn
    own = axes @ at.hand_axes
    v = jnp.broadcast_to(jnp.stack(v), own.shape)
    moved = jnp.cross(axes, at.hand[None] - at.origins)
    turned = 0.5 * TORQUE_SCALE * (w * own - jnp.cross(own, v))
    error = jnp.concatenate([at.hand - goal, TORQUE_SCALE * at.turn[1:]])
    return Weld(error, jnp.concatenate([moved, turned], axis=1).T)


def motion(goal: Point, start: Arm, count: int = STEPS) -> Arm:
    """How an arm moves if nothing touches it.

    Args:
      goal: `[3]` the point that drags the hand, metres.
      start: the arm at the beginning.
      count: time steps; M, J and c are those of the first.

    Returns:
      `[count + 1, 7]` its states, the first of which is the start.

    Example:
      >>> start = after_reset(jnp.array([0.0, 0.6, 0.2]))
      >>> motion(jnp.array([0.01, 0.6, 0.2]), start).angles.shape
      (6, 7)
    """
    at = frames(start.angles)
    mass, bias = dynamics(at, start.speeds)
    error, slope = weld(at, goal)
    pull = slope.T @ np.diag(_WEIGHTS)
    solve = lambda factor, x: jax.scipy.linalg.cho_solve((factor, True), x)
    stiff = jnp.linalg.cholesky(mass + pull @ slope)
    same = jnp.eye(len(LINKS), dtype=mass.dtype)
    slow = jnp.linalg.cholesky(mass + TIMESTEP * DAMPING * same)
    yielding = solve(stiff, same[SHOULDER])

    def step(moving: tuple[Arm, Array], _: None) -> tuple[tuple[Arm, Array], Arm]:
        now, error = moving
        wanted = -_BRAKE * (slope @ now.speeds) - _SPRING * error
        free = solve(stiff, pull @ wanted - DAMPING * now.speeds - bias)
        # The limit pushes where the shoulder is beyond it, and never pulls.
        beyond = now.angles[SHOULDER] - LIMIT
        back = -_BRAKE * now.speeds[SHOULDER] - _SPRING * beyond - free[SHOULDER]
        push = _LIMIT_FORCE * back / (1.0 + _LIMIT_FORCE * yielding[SHOULDER])
        push = jnp.where((beyond > 0) & (push < 0), push, 0.0)
        gained = TIMESTEP * solve(slow, mass @ (free + push * yielding))
        speeds = now.speeds + gained
        error = error + slope @ (TIMESTEP * speeds)
        now = Arm(now.angles + TIMESTEP * speeds, speeds)
        return (now, error), now

    _, states = jax.lax.scan(step, (start, error), length=count)
    return jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), start, states)


@jax.jit
@jax.default_matmul_precision("highest")
def after_reset(goal: Point) -> Arm:
    """The arm after the official reset, which sends it off with all joints at 0.

    Args:
      goal: `[3]` the point that drags the hand, metres.

    Example:
      >>> arm = after_reset(jnp.array([0.0, 0.6, 0.2]))
      >>> frames(arm.angles).hand.round(3).tolist()
      [0.005..., 0.601..., 0.195...]
    """
    zero = jnp.zeros(len(LINKS), goal.dtype)
    step = lambda _, arm: jax.tree.map(lambda x: x[1], motion(goal, arm, 1))
    return jax.lax.fori_loop(0, RESET_STEPS, step, Arm(zero, zero))


def _times(weights: Float[Array, "7"], rows: Float[Array, "7 3"]) -> Array:
    return weights[:, None] * rows


def _beyond(rows: Array) -> Array:
    """For every link the sum over it and all that follow."""
    return jnp.flip(jnp.cumsum(jnp.flip(rows, 0), axis=0), 0)
