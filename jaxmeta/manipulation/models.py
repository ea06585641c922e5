"""The compiled scenes of all tasks, of which one program serves any mixture.

Every task's scene is compiled by MuJoCo itself, which knows inertias and bounds, and
the arrays that differ between tasks are stacked. What decides the program (joint and
geom types, pairs, sparsity of the mass matrix) is taken from one deliberately generic
scene, of which every task's is a special case.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import mjx

from jaxmeta.core.types import Array, Float, Int
from jaxmeta.manipulation.scene import Geometry
from jaxmeta.manipulation.template import IMPLICIT, generic_scene, mjcf

NUM_SLIDES, NUM_JOINTS = 5, 3
"""Slides of the tips and the fingers, the first positions of the state, and joints of
the mechanism, the last."""

INVERSE_WEIGHTS = {"hand": 0.67, "right_pad": 2.7, "left_pad": 2.7}
"""Of the official wrist and pads, 1 / kg: contacts are softer the larger they are."""


class Models(NamedTuple):
    """The compiled scenes of some tasks.

    Attributes:
      generic: the MJX model that decides the program.
      differing: indices of the leaves of the model that differ between tasks.
      stacked: those leaves, `[task, ...]` each.
    """

    generic: mjx.Model
    differing: tuple[int, ...]
    stacked: list[Array]

    def of(self, task: Int[Array, ""], fixture: Float[Array, "3"]) -> mjx.Model:
        """The model of one task with its fixture in place, inside `jit`.

        Args:
          task: which of the tasks.
          fixture: `[3]` where the fixture stands in this episode, metres. (MJX does not
            place the children of a body that is moved as mocap.)
        """
        leaves, structure = jax.tree.flatten(self.generic)
        for i, of_tasks in zip(self.differing, self.stacked, strict=True):
            leaves[i] = of_tasks[task]
        model = jax.tree.unflatten(structure, leaves)
        placed = model.body_pos.at[body_ids()["fixture"]].set(fixture)
        return model.replace(body_pos=placed)


def compile_scene(geometry: Geometry, timestep: float) -> Any:
    """The scene of a task as MuJoCo's own model.

    Args:
      geometry: of the task.
      timestep: of the simulation, seconds.

    Example:
      >>> compile_scene(Geometry(), 0.0025).nv
      14
    """
    compiled = mujoco.MjModel.from_xml_string  # pyright: ignore[reportAttributeAccessIssue] - compiled
    model = compiled(mjcf(geometry, timestep=timestep))
    for name, weight in INVERSE_WEIGHTS.items():
        model.body(name).invweight0[0] = weight
    if timestep > IMPLICIT:
        # What joints weigh more then is in place of damping: no limit must stop it.
        light = compiled(mjcf(geometry, timestep=IMPLICIT))
        model.dof_invweight0[-NUM_JOINTS:] = light.dof_invweight0[-NUM_JOINTS:]
    return model


def compile_scenes(
    names: Sequence[str], geometries: Sequence[Geometry], timestep: float
) -> Models:
    """Compiles the scenes of all tasks and stacks what differs.

    Args:
      names: of the tasks.
      geometries: of the tasks, in the same order.
      timestep: of the simulation, seconds.

    Raises:
      ValueError: for a scene that needs another program than the generic one, naming
        the task and what differs.
    """
    with for_mjx():
        generic = mjx.put_model(compile_scene(generic_scene(), timestep), impl="jax")
        models = [
            mjx.put_model(compile_scene(g, timestep), impl="jax") for g in geometries
        ]
    for name, model in zip(names, models, strict=True):
        _check_same_program(name, model, generic)
    rows = [jax.tree.leaves(model) for model in models]
    leaves = jax.tree.leaves(generic)
    differing = tuple(
        i
        for i, leaf in enumerate(leaves)
        if any(not np.array_equal(row[i], leaf) for row in rows)
    )
    stacked = [jnp.stack([row[i] for row in rows]) for i in differing]
    return Models(generic, differing, stacked)


SPARSITY = {"nC", "M_rownnz", "M_rowadr", "M_colind"}
"""Which entries of the mass matrix are stored; the generic scene's are used."""

UNREAD = {
    *("body_sameframe", "geom_sameframe", "body_simple", "dof_simplenum", "ngravcomp"),
    "_impl.geom_rbound_hfield",
}
"""Short cuts of C MuJoCo and what concerns height fields: no part of the program."""


def _check_same_program(task: str, model: mjx.Model, generic: mjx.Model) -> None:
    fields, expected = _program(model), _program(generic)
    for name, value in expected.items():
        if name not in SPARSITY | UNREAD and not np.array_equal(fields[name], value):
            raise ValueError(
                f"the scene of task {task!r} needs a program of its own: {name} "
                f"must be {value}, got {fields[name]}."
            )
    if extra := _mass_entries(model) - _mass_entries(generic):
        raise ValueError(
            f"the scene of task {task!r} has a denser mass matrix than the generic "
            f"one, at {sorted(extra)}."
        )


def _program(model: Any, prefix: str = "") -> dict[str, Any]:
    """All fields of a model by name; of arrays, which may differ, shapes and types."""
    found = {}
    for field in dataclasses.fields(model):
        name, value = prefix + field.name, getattr(model, field.name)
        if dataclasses.is_dataclass(value):
            found |= _program(value, f"{name}.")
        elif isinstance(value, jax.Array):
            found[name] = jax.ShapeDtypeStruct(value.shape, value.dtype)
        else:
            found[name] = value
    return found


def _mass_entries(model: mjx.Model) -> set[tuple[int, int]]:
    """Row and column of what is stored of the mass matrix."""
    rows = np.repeat(np.arange(model.nv), model.M_rownnz)
    return set(zip(rows.tolist(), model.M_colind.tolist(), strict=True))


@contextlib.contextmanager
def for_mjx() -> Iterator[None]:
    """MJX broadcasts ranks, which a caller may have forbidden, and needs all digits.

    Example:
      >>> with jax.numpy_rank_promotion("raise"), for_mjx():
      ...     (jnp.ones((2, 3)) + jnp.ones(3)).shape
      (2, 3)
    """
    with (
        jax.numpy_rank_promotion("allow"),
        jax.default_matmul_precision("highest"),
    ):
        yield


@functools.cache
def body_ids() -> dict[str, int]:
    """Indices of the bodies in arrays such as `data.xpos`."""
    model = compile_scene(Geometry(), 0.0025)
    names = ("hand", "right_pad", "left_pad", "free", "fixture", "mechanism")
    return {name: model.body(name).id for name in names}
