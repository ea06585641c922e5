"""MuJoCo XLA on the scene: how time passes, for any mixture of tasks."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import mjx
from mujoco.mjx._src import forward, smooth, support

from jaxmeta.core.types import Array, Float, Scalar
from jaxmeta.manipulation.constraint import rows
from jaxmeta.manipulation.hand import Moving, force
from jaxmeta.manipulation.models import (
    NUM_JOINTS,
    NUM_SLIDES,
    body_ids,
    compile_scene,
    for_mjx,
)
from jaxmeta.manipulation.nearest import contacts
from jaxmeta.manipulation.newton import solve
from jaxmeta.manipulation.scene import Geometry, Placement
from jaxmeta.manipulation.sensors import BODIES, Poses
from jaxmeta.manipulation.template import IMPLICIT

STEP_TIME = 0.0125
"""From one observation to the next, seconds."""


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

        with for_mjx():
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


def poses(data: mjx.Data) -> Poses:
    """What MJX says of a moment, of which a task reads what it wants."""
    ids = body_ids()
    bodies = jnp.array([ids[name] for name in BODIES])
    return Poses(
        tips=data.xpos[ids["hand"]],
        turn=data.xquat[ids["hand"]],
        pads=data.xpos[jnp.array([ids["left_pad"], ids["right_pad"]])],
        bodies=data.xpos[bodies],
        quats=data.xquat[bodies],
        joints=data.qpos[-NUM_JOINTS:],
        pad_forces=pad_forces(data),
    )


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
    with for_mjx():
        data = mjx.make_data(model)
    fingers = jnp.zeros(2)
    qpos = jnp.concatenate(
        [hand.position, fingers, place.free, place.free_quat, place.joints]
    ).astype(data.qpos.dtype)
    data = data.replace(qpos=qpos, qvel=data.qvel.at[:3].set(hand.velocity))
    with for_mjx():
        return mjx.kinematics(turned(model, hand.turn), data)


@functools.cache
def _geom_ids() -> tuple[np.ndarray, np.ndarray]:
    """The pads, left and right, and the shapes of the free body."""
    model = compile_scene(Geometry(), 0.0025)
    names = [model.geom(i).name for i in range(model.ngeom)]
    pads = [names.index(f"{side}_pad") for side in ("left", "right")]
    free = [i for i, name in enumerate(names) if name.startswith("free")]
    return np.array(pads), np.array(free)
