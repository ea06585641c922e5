"""What the limits of joints and contacts ask of the acceleration, row by row.

A row J of the Jacobian says how fast something comes apart, `J v`. It pushes with a
force that is never negative, D times what the acceleration a lacks, `aref - J a`. That
is what a spring of stiffness k and damping b would ask for, `aref = -b J v - k d x` at
a distance x, of which the impedance d is a share (MuJoCo's documentation, "Computation:
constraint model"). A contact has two rows for each direction t in which it resists: the
edges `n + mu t` and `n - mu t` of a pyramid around its normal n.

MuJoCo XLA does the same for scenes of every kind, and takes longer. Here an edge is a
force at a point: its moment about the origin and itself, times the axes of all joints,
are its row; and what the edges of a contact have in common is done once.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from mujoco import mjx

from jaxmeta.core.types import Array, Float

LEAST_SHARE, LARGEST_SHARE = 1e-4, 0.9999
"""Of impedances (MuJoCo's `mjMINIMP` and `mjMAXIMP`)."""
TINY = 1e-15
"""What is less is divided by no more (`mjMINVAL`)."""


class Rows(NamedTuple):
    """What is asked of the acceleration.

    Attributes:
      jacobian: `[dof, row]` its columns are the rows, so that the long axis is last.
      stiffness: `[row]` D, kg or kg m^2; 0 of what is apart.
      wanted: `[row]` aref, m/s^2 or rad/s^2.
    """

    jacobian: Float[Array, "dof row"]
    stiffness: Float[Array, " row"]
    wanted: Float[Array, " row"]


class _Spring(NamedTuple):
    """A limit or contact: how far apart, MuJoCo's numbers, and inverse inertia."""

    distance: Float[Array, " n"]
    solref: Float[Array, "n 2"]
    solimp: Float[Array, "n 5"]
    inverse_weight: Float[Array, " n"]


def rows(model: mjx.Model, data: mjx.Data) -> Rows:
    """The rows of all limits, then those of all contacts.

    Args:
      model: as scenes of `template.mjcf` are. Limits are of slides and hinges, contacts
        of `condim` 3 or 4, in this order, and pyramids; impedances have the middle and
        the power that MuJoCo gives them (`solimp[3:]` of .5 and 2), `solref` is a time
        and a ratio, `impratio` 1; nothing else (equalities, friction of joints,
        tendons) asks for anything.
      data: of which joints and contacts are read.

    Example:
      >>> from jaxmeta.manipulation.models import compile_scene
      >>> from jaxmeta.manipulation.scene import Geometry
      >>> model = mjx.put_model(compile_scene(Geometry(), 0.0025), impl="jax")
      >>> found = jax.eval_shape(rows, model, mjx.make_data(model))
      >>> found.jacobian.shape  # 5 limits, 10 contacts of 4 and of 6
      (14, 105)
    """
    state: Any = data  # of which MJX declares less than there is
    contact = state._impl.contact
    twisting = int((contact.dim == 4).sum())
    stops, limits = _limits(model, data)
    touches, contacts = _contacts(model, state, twisting)
    jacobian = jnp.concatenate([stops, touches], axis=1)
    springs = jax.tree.map(lambda *parts: jnp.concatenate(parts), limits, contacts)
    stiffness, damping, pull = _asked(springs, model.opt.timestep)

    def spread(values: Array) -> Array:
        of_limits, of_contacts = jnp.split(values, [len(limits.distance)])
        return jnp.concatenate([of_limits, _edges(of_contacts, twisting)])

    wanted = -spread(damping) * (data.qvel @ jacobian) - spread(pull)
    return Rows(jacobian, spread(stiffness), wanted)


def _asked(springs: _Spring, timestep: Any) -> tuple[Array, Array, Array]:
    """`[n]` each: D, b, and k d x."""
    x, solref, solimp, inverse_weight = springs
    time, ratio = jnp.maximum(solref[:, 0], 2 * timestep), solref[:, 1]
    low, high = jnp.clip(solimp[:, :2], LEAST_SHARE, LARGEST_SHARE).T
    deep = jnp.minimum(jnp.abs(x) / jnp.maximum(solimp[:, 2], TINY), 1.0)
    rise = jnp.where(deep < 0.5, 2 * deep**2, 1 - 2 * (1 - deep) ** 2)
    share = low + rise * (high - low)
    softness = jnp.maximum(inverse_weight * (1 - share) / share, TINY)
    stiffness = jnp.where(x < 0, 1 / softness, 0.0)
    return stiffness, 2 / (high * time), share * x / (high * time * ratio) ** 2


def _limits(model: mjx.Model, data: mjx.Data) -> tuple[Array, _Spring]:
    """`[dof, limit]` columns, and springs, of the nearer end of every limited joint."""
    joints = np.flatnonzero(model.jnt_limited)
    dofs, places = model.jnt_dofadr[joints], data.qpos[model.jnt_qposadr[joints]]
    below = places - model.jnt_range[joints, 0]
    above = model.jnt_range[joints, 1] - places
    inwards = jnp.where(below < above, 1.0, -1.0)
    spring = _Spring(
        jnp.minimum(below, above) - model.jnt_margin[joints],
        model.jnt_solref[joints],
        model.jnt_solimp[joints],
        model.dof_invweight0[dofs],
    )
    return jnp.eye(model.nv)[:, dofs] * inwards[None], spring


def _contacts(model: mjx.Model, state: Any, twisting: int) -> tuple[Array, _Spring]:
    """`[dof, edge]` columns of all contacts, and their springs."""
    contact = state._impl.contact
    normal, *tangents = jnp.transpose(contact.frame, (1, 2, 0))  # [3, contact] each
    slide, slide_too, twist, *_ = contact.friction.T
    leaning = [
        normal + sign * friction[None] * tangent
        for friction, tangent in zip((slide, slide_too), tangents, strict=True)
        for sign in (1, -1)
    ]
    last = _last(normal, twisting)
    turning = _last(twist, twisting)[None] * last
    upright = jnp.zeros((3, 4 * normal.shape[1]))
    direction = jnp.concatenate([*leaning, last, last], axis=1)
    place = _edges(contact.pos.T, twisting)
    spin = jnp.concatenate([upright, turning, -turning], axis=1)
    moment = jnp.cross(place, direction, axis=0) + spin
    bodies = jnp.asarray(model.geom_bodyid)[contact.geom]
    first, second = jnp.moveaxis(jax.nn.one_hot(bodies, model.nbody), 1, 0)
    sign = _moves(model) @ (second - first).T
    columns = _screws(model, state) @ jnp.concatenate([moment, direction])
    weight = (first + second) @ model.body_invweight0[:, 0]
    spring = _Spring(
        contact.dist - contact.includemargin,
        contact.solref,
        contact.solimp,
        2 * slide**2 * (1 + slide**2) * weight,
    )
    return columns * _edges(sign, twisting), spring


def _edges(values: Array, twisting: int) -> Array:
    """`[..., edge]` of `[..., contact]`, the last of which resist turning, too."""
    return jnp.concatenate([values] * 4 + [_last(values, twisting)] * 2, axis=-1)


def _last(values: Array, count: int) -> Array:
    return values[..., values.shape[-1] - count :]


def _screws(model: mjx.Model, state: Any) -> Array:
    """`[dof, 6]` how every joint turns the world and moves its origin."""
    centre = state.subtree_com[model.body_rootid[model.dof_bodyid]]
    turn, move = jnp.split(state.cdof, 2, axis=1)
    return jnp.concatenate([turn, move + jnp.cross(centre, turn)], axis=1)


def _moves(model: mjx.Model) -> np.ndarray:
    """`[dof, body]` 1 where a joint moves it, else 0."""
    moves = np.zeros((model.nv, model.nbody), np.float32)
    for body in range(1, model.nbody):  # parents come first
        moves[:, body] = moves[:, model.body_parentid[body]]
        moves[model.dof_bodyid == body, body] = 1.0
    return moves
