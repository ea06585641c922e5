"""MuJoCo XLA on the scene: one compiled step for any mixture of tasks.

Every task's scene is compiled by MuJoCo itself, which knows inertias and bounds, and
the arrays that differ between tasks are stacked. What decides the program (joint and
geom types, pairs, sparsity of the mass matrix) is taken from one deliberately generic
scene, of which every task's is a special case.

Pads have a contact dimension of their own against what can be grasped, because only
the nearest pairs of every kind are looked at (`nearest`): so other things that touch
cannot crowd the fingers out.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import mjx
from mujoco.mjx._src import forward, smooth, support

from jaxmeta.core.types import Array, Float, Int, Scalar
from jaxmeta.manipulation.constraint import rows
from jaxmeta.manipulation.hand import Moving, force
from jaxmeta.manipulation.nearest import contacts
from jaxmeta.manipulation.newton import solve
from jaxmeta.manipulation.scene import (
    IMPLICIT,
    NUM_BOXES,
    NUM_CAPSULES,
    NUM_FIXED,
    NUM_WALLS,
    Box,
    Capsule,
    Geometry,
    Joint,
    Placement,
    Shape,
    mjcf,
)

STEP_TIME = 0.0125
"""From one observation to the next, seconds."""

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
    with _for_mjx():
        generic = mjx.put_model(compile_scene(_generic(), timestep), impl="jax")
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


def _generic() -> Geometry:
    """A scene in which nothing is aligned with anything."""
    quat = (0.8, 0.4, 0.2, 0.4)
    box = lambda i: Box((0.02, 0.03, 0.04), (0.01 * i, 0.02, 0.03), quat, 0.1)
    capsule = lambda i: Capsule(0.02, 0.03, (0.01, 0.02 * i, 0.03), quat, 0.1)
    shapes: tuple[Shape, ...] = (
        *(box(i + 1) for i in range(NUM_BOXES)),
        *(capsule(i + 1) for i in range(NUM_CAPSULES)),
    )
    joint = Joint((0.6, 0.48, 0.64), -1.0, 1.0, anchor=(0.1, 0.2, 0.3), stiffness=1.0)
    return Geometry(
        walls=tuple(box(i + 1) for i in range(NUM_WALLS)),
        fixed=tuple(box(i + 1) for i in range(NUM_FIXED)),
        free=shapes,
        mechanism=shapes,
        mechanism_pos=(0.1, 0.2, 0.3),
        slides=(joint, joint),
        hinge=joint,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Physics:
    """How time passes; a step of the environment takes 12.5 ms in all.

    Raises:
      ValueError: for a number that is not positive, or steps of another length.

    Example:
      >>> between = Physics(timestep=0.00625, substeps=2)
      >>> MODES["faithful"].timestep < between.timestep < MODES["fast"].timestep
      True
    """

    timestep: float = 0.0025
    """Of the simulation, seconds."""

    substeps: int = 5
    """Simulation steps in one step of the environment, 12.5 ms."""

    def __post_init__(self):
        if not self.timestep > 0 or self.substeps < 1:
            raise ValueError(
                "timestep must be positive and substeps >= 1, got "
                f"{self.timestep} and {self.substeps}."
            )
        if not math.isclose(self.timestep * self.substeps, STEP_TIME):
            raise ValueError(
                f"timestep times substeps must be {STEP_TIME} s, as 0.0025 times 5 "
                f"(faithful) or 0.0125 times 1 (fast), got {self.timestep} times "
                f"{self.substeps}."
            )

    def step(
        self, model: mjx.Model, data: mjx.Data, grip: Scalar, path: Moving
    ) -> mjx.Data:
        """One step of the environment.

        Args:
          model: of the task, its fixture in place.
          data: the state, in which positions of bodies are those of its joints.
          grip: what the fingers do, from -1 (open) to 1 (close).
          path: `[substeps + 1, ...]` how a free hand moves meanwhile.
        """
        data = data.replace(ctrl=jnp.stack([grip, -grip]))
        moment = lambda i: jax.tree.map(lambda x: x[i], path)

        def once(i: Array, data: Any):
            now, after = moment(i), moment(i + 1)
            pull = force(now, after, self.timestep, data.qpos[:3], data.qvel[:3])
            data = data.replace(qfrc_applied=data.qfrc_applied.at[:3].set(pull))
            data = advance(turned(model, now.turn), data)
            lost = _lost(model, data.qacc, self.timestep)
            moved = self.timestep * lost
            qpos = data.qpos.at[:NUM_SLIDES].add(-moved[:NUM_SLIDES])
            qpos = qpos.at[-NUM_JOINTS:].add(-moved[-NUM_JOINTS:])
            data = data.replace(qvel=data.qvel - lost, qpos=qpos)
            return mjx.kinematics(turned(model, after.turn), data)

        with _for_mjx():
            return jax.lax.fori_loop(0, self.substeps, once, data)

    def step_in_c(self, model: Any, data: Any, grip: float, path: Moving) -> None:
        """The same in C MuJoCo, in place, for one environment.

        Args:
          model: what `compile_scene` returns, its fixture in place.
          data: its state.
          grip: as of `step`.
          path: as of `step`, of NumPy arrays.
        """
        data.ctrl[:] = grip, -grip
        for i in range(self.substeps):
            now, after = (Moving(*(x[k] for x in path)) for k in (i, i + 1))
            pull = force(now, after, self.timestep, data.qpos[:3], data.qvel[:3])
            data.qfrc_applied[:3] = pull
            model.body("hand").quat = now.turn
            mujoco.mj_step(model, data)  # pyright: ignore[reportAttributeAccessIssue] - compiled
            lost = _lost(model, data.qacc, self.timestep)
            data.qvel[:] -= lost
            data.qpos[:NUM_SLIDES] -= self.timestep * lost[:NUM_SLIDES]
            data.qpos[-NUM_JOINTS:] -= self.timestep * lost[-NUM_JOINTS:]
        model.body("hand").quat = path.turn[-1]


def advance(model: mjx.Model, data: mjx.Data) -> mjx.Data:
    """One time step of MuJoCo XLA, from positions that are known.

    Its own step computes positions at its beginning. Contacts (`nearest`), what they
    and limits ask for (`constraint`) and the acceleration that meets it (`newton`) are
    found by ours; the rest is the same. There are no cameras, tendons and sensors.

    Args:
      model: of the scene.
      data: the state; positions of bodies, as by `mjx.kinematics`, are those of its
        joints, and will be those of the joints before.
    """
    parts = (
        *(smooth.com_pos, smooth.crb, smooth.factor_m, smooth.transmission, contacts),
        *(forward.fwd_velocity, forward.fwd_actuation, forward.fwd_acceleration),
    )
    for part in parts:
        data = part(model, data)
    qacc = solve(
        rows(model, data),
        support.full_m(model, data),
        data.qacc_smooth,
        data.qacc_warmstart,
        steps=model.opt.iterations,
        line_steps=model.opt.ls_iterations,
    )
    return forward.euler(model, data.replace(qacc=qacc, qacc_warmstart=qacc))


def _lost(model: Any, qacc: Any, timestep: float) -> Any:
    """`[dof]` the speed that implicit damping takes from a step without it.

    Damping D is met at the end of a time step h, so that it never overshoots, while
    contacts are solved without it: of an acceleration `M / (M + h D)` is left for a
    joint of inertia M. So MuJoCo does, for all joints together, which takes MJX long.
    """
    heavier = min(timestep, IMPLICIT) * model.dof_damping
    return heavier / (model.dof_M0 + heavier) * timestep * qacc


MODES = {
    "faithful": Physics(),
    "fast": Physics(timestep=0.0125, substeps=1),
}
"""5 x 2.5 ms; 1 x 12.5 ms, some four times as fast and less true."""


def pad_forces(data: mjx.Data) -> Float[Array, "2"]:
    """`[2]` 1 where the left and right pad touch the free body, else 0.

    The success of one task asks whether both press on it, not how hard.
    """
    contact: Any = data._impl.contact  # pyright: ignore[reportAttributeAccessIssue] - one of three
    pads, free = _geom_ids()
    touching = contact.dist < contact.includemargin
    on_free = jnp.isin(contact.geom, free).any(axis=1) & touching
    by_pad = (contact.geom[:, :, None] == pads[None, None, :]).any(axis=1)
    return (by_pad & on_free[:, None]).any(axis=0).astype(jnp.float32)


def turned(model: mjx.Model, turn: Float[Array, "4"]) -> mjx.Model:
    """The model with its hand turned, `[4]` w first."""
    return model.replace(body_quat=model.body_quat.at[body_ids()["hand"]].set(turn))


def start(model: mjx.Model, hand: Moving, place: Placement) -> mjx.Data:
    """The state at the start of an episode: fingers open, all but the hand at rest.

    Args:
      model: of the task, its fixture in place.
      hand: the hand.
      place: of everything else.
    """
    with _for_mjx():
        data = mjx.make_data(model)
    fingers = jnp.zeros(2)
    qpos = jnp.concatenate(
        [hand.position, fingers, place.free, place.free_quat, place.joints]
    ).astype(data.qpos.dtype)
    data = data.replace(qpos=qpos, qvel=data.qvel.at[:3].set(hand.velocity))
    with _for_mjx():
        return mjx.kinematics(turned(model, hand.turn), data)


@contextlib.contextmanager
def _for_mjx() -> Iterator[None]:
    """MJX broadcasts ranks, which a caller may have forbidden, and needs all digits."""
    with (
        jax.numpy_rank_promotion("allow"),
        jax.default_matmul_precision("highest"),
    ):
        yield


@functools.cache
def _geom_ids() -> tuple[np.ndarray, np.ndarray]:
    """The pads, left and right, and the shapes of the free body."""
    model = compile_scene(Geometry(), 0.0025)
    names = [model.geom(i).name for i in range(model.ngeom)]
    pads = [names.index(f"{side}_pad") for side in ("left", "right")]
    free = [i for i, name in enumerate(names) if name.startswith("free")]
    return np.array(pads), np.array(free)


@functools.cache
def body_ids() -> dict[str, int]:
    """Indices of the bodies in arrays such as `data.xpos`."""
    model = compile_scene(Geometry(), 0.0025)
    names = ("hand", "right_pad", "left_pad", "free", "fixture", "mechanism")
    return {name: model.body(name).id for name in names}
