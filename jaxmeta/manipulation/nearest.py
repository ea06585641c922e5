"""Which contacts a step reckons with: the deepest of the nearest pairs of geoms.

MuJoCo XLA takes pairs of every two types of geoms and every number of directions of
friction on their own, so that most geometry is compiled twice, and looks up what each
contact is like before it chooses. Here pairs of the same types are taken together, and
what is chosen is looked up. With the same functions for the geometry, all pairs looked
at and no margins, contacts and their order are the same. Which pairs are the nearest is
told by their distance from boxes, less their margin: what never touches comes last.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import mjx
from mujoco.mjx import GeomType
from mujoco.mjx._src import collision_driver
from mujoco.mjx._src.collision_types import FunctionKey
from mujoco.mjx._src.types import Contact

from jaxmeta.core.types import Array, Float, Int
from jaxmeta.manipulation.collision import (
    Placed,
    box_box,
    capsule_box,
    frame,
    plane_box,
)

OURS = {
    (GeomType.PLANE, GeomType.BOX): plane_box,
    (GeomType.BOX, GeomType.BOX): box_box,
    (GeomType.CAPSULE, GeomType.BOX): capsule_box,
}
"""Functions of ours by the types of both geoms; the others are MuJoCo XLA's."""


class _Kind(NamedTuple):
    types: tuple[GeomType, GeomType]
    condim: int


class _Found(NamedTuple):
    distance: Float[Array, " n"]
    place: Float[Array, "n 3"]
    frame: Float[Array, "n 3 3"]
    pair: Int[Array, " n"]  # of the model's


def contacts(model: mjx.Model, data: mjx.Data) -> mjx.Data:
    """The state with its contacts.

    Args:
      model: in which only pairs that it names touch, and which says of how many of a
        kind contacts are found (`max_geom_pairs`) and how many contacts count
        (`max_contact_points`), as scenes of `template.mjcf` do.
      data: of which the geoms are read.
    """
    geoms = _geoms(model)
    near = {
        kind: _nearest(model, data, kind, geoms, pairs)
        for kind, pairs in _kinds(model, geoms).items()
    }
    found: dict[_Kind, _Found] = {}
    for types in dict.fromkeys(kind.types for kind in near):
        alike = {kind: pairs for kind, pairs in near.items() if kind.types == types}
        found |= _collided(model, data, types, geoms, alike)
    together = lambda *rows: jnp.concatenate(rows)
    most = collision_driver._numeric(model, "max_contact_points")
    deepest = []
    for condim in sorted({kind.condim for kind in near}):
        parts = [found[kind] for kind in near if kind.condim == condim]
        rows = jax.tree.map(together, *parts)
        if len(rows.distance) > most:
            over = rows.distance - model.pair_margin[rows.pair]
            _, best = jax.lax.top_k(-over, most)
            rows = _Found(*(x[best] for x in rows))
        deepest.append(rows)
    distance, place, turn, pair = jax.tree.map(together, *deepest)
    geom = jnp.asarray(geoms)[pair]
    state: Any = data  # of which MJX declares less than there is
    before = state._impl.contact
    contact = Contact(
        dist=distance,
        pos=place,
        frame=turn,
        includemargin=model.pair_margin[pair],
        friction=jnp.maximum(model.pair_friction[pair], mujoco.mjMINVAL),  # pyright: ignore[reportAttributeAccessIssue] - compiled
        solref=model.pair_solref[pair],
        solreffriction=model.pair_solreffriction[pair],
        solimp=model.pair_solimp[pair],
        dim=before.dim,
        geom1=geom[:, 0],
        geom2=geom[:, 1],
        geom=geom,
        efc_address=before.efc_address,
    )
    return state.tree_replace({"_impl.contact": contact})


def _geoms(model: mjx.Model) -> np.ndarray:
    """`[pairs, 2]` both geoms of a pair, in the order of their types."""
    geoms = np.stack([model.pair_geom1, model.pair_geom2], axis=1)
    order = np.argsort(model.geom_type[geoms], axis=1, kind="stable")
    return np.take_along_axis(geoms, order, axis=1).astype(int)


def _kinds(model: mjx.Model, geoms: np.ndarray) -> dict[_Kind, np.ndarray]:
    """Pairs by kind."""
    kinds: dict[_Kind, list[int]] = {}
    rows = zip(model.geom_type[geoms], model.pair_dim, strict=True)
    for pair, ((first, second), condim) in enumerate(rows):
        kind = _Kind((GeomType(first), GeomType(second)), int(condim))
        kinds.setdefault(kind, []).append(pair)
    return {kind: np.array(pairs, np.int32) for kind, pairs in kinds.items()}


def _nearest(
    model: mjx.Model, data: mjx.Data, kind: _Kind, geoms: np.ndarray, pairs: np.ndarray
) -> Int[Array, " near"]:
    """Of the pairs of a kind the nearest, as far as can be said without their contacts.

    Nearest to where they touch, which is at their margin.

    A geom is farther from a box than its bounding sphere is; of two boxes this can be
    said of either. Between two spheres, of which MuJoCo XLA takes the distance, a large
    box and whatever is above the middle of it are the nearest of all.
    """
    most = collision_driver._numeric(model, "max_geom_pairs")
    if len(pairs) <= most or GeomType.PLANE in kind.types:
        return jnp.asarray(pairs)
    one, other = geoms[pairs].T
    between = data.geom_xpos[one] - data.geom_xpos[other]

    def apart(box: np.ndarray, thing: np.ndarray) -> Float[Array, " pairs"]:
        seen = jnp.einsum("pij,pi->pj", data.geom_xmat[box], between)
        over = jnp.abs(seen) - model.geom_size[box]
        outside = jnp.linalg.norm(jnp.maximum(over, 0.0), axis=1)
        return outside + jnp.minimum(over.max(axis=1), 0.0) - model.geom_rbound[thing]

    if kind.types[1] == GeomType.BOX:
        gap = apart(other, one)
        if kind.types[0] == GeomType.BOX:
            gap = jnp.maximum(gap, apart(one, other))
    else:
        reach = model.geom_rbound[one] + model.geom_rbound[other]
        gap = jnp.linalg.norm(between, axis=1) - reach
    _, best = jax.lax.top_k(model.pair_margin[pairs] - gap, most)
    return jnp.asarray(pairs)[best]


def _collided(
    model: mjx.Model,
    data: mjx.Data,
    types: tuple[GeomType, GeomType],
    geoms: np.ndarray,
    near: dict[_Kind, Int[Array, " near"]],
) -> dict[_Kind, _Found]:
    """Contacts of pairs of the same types, by kind."""
    pair = jnp.concatenate(list(near.values()))
    geom = jnp.asarray(geoms)[pair]
    if types in OURS:
        of = lambda i: Placed(data.geom_xpos[i], data.geom_xmat[i], model.geom_size[i])
        ours = jax.vmap(OURS[types])(of(geom[:, 0]), of(geom[:, 1]))
        distance, place = ours.distance.reshape(-1), ours.place.reshape(-1, 3)
        turn, count = jax.vmap(frame)(ours.normal), ours.distance.shape[1]
        turn = jnp.repeat(turn, count, axis=0)
    else:
        function = collision_driver._COLLISION_FUNC[types]
        key = FunctionKey(types, (-1, -1), 0)
        distance, place, turn = function(model, data, key, geom)
        count = function.ncon
    rows = _Found(distance, place, turn, jnp.repeat(pair, count))
    ends = np.cumsum([count * len(pairs) for pairs in near.values()])[:-1]
    parts = zip(*(jnp.split(x, ends) for x in rows), strict=True)
    return {kind: _Found(*part) for kind, part in zip(near, parts, strict=True)}
