"""How time passes in a scene."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from mujoco import mjx
from mujoco.mjx._src import collision_driver

from jaxmeta.manipulation.hand import Moving
from jaxmeta.manipulation.models import compile_scene
from jaxmeta.manipulation.nearest import contacts
from jaxmeta.manipulation.physics import MODES, advance, pad_forces, start
from jaxmeta.manipulation.scene import placed
from jaxmeta.manipulation.tasks import TASKS

MOVING = {
    "faucet-open": [0.0, 0.0, 0.3],
    "handle-pull": [-0.05, 0.0, 0.0],
    "window-open": [0.1, 0.0, 0.0],
}
"""Positions and, as numbers, velocities of joints that nothing touches."""


def coasting(name, timestep):
    """A scene in which the fingers and a joint move, and the path of a hand at rest."""
    model = compile_scene(TASKS[name].geometry, timestep)
    data = mujoco.MjData(model)
    data.qpos[:3], data.qpos[-3:] = (0.0, 0.4, 0.4), MOVING[name]
    data.qvel[3:5], data.qvel[-3:] = (0.1, -0.1), MOVING[name]
    hand = np.tile(data.qpos[:3], (6, 1))
    down = np.tile([1.0, 0.0, 0.0, 0.0], (6, 1))
    return model, data, Moving(hand, np.zeros_like(hand), down)


@pytest.mark.parametrize("name", MOVING)
def test_damping_is_that_of_mujoco(name):
    """Which our scenes leave out, as MJX takes long for it."""
    faithful = MODES["faithful"]
    model, ours, path = coasting(name, faithful.timestep)
    faithful.step_in_c(model, ours, 0.0, path)
    model, theirs, _ = coasting(name, faithful.timestep)
    model.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_EULERDAMP)
    model.opt.iterations = 50
    mujoco.mj_step(model, theirs, faithful.substeps)
    assert np.abs(theirs.qvel[-3:]).max() < 0.98 * np.abs(MOVING[name]).max()
    np.testing.assert_allclose(ours.qvel[3:5], theirs.qvel[3:5], atol=1e-5)
    np.testing.assert_allclose(ours.qpos[-3:], theirs.qpos[-3:], atol=1e-5)
    np.testing.assert_allclose(ours.qvel[-3:], theirs.qvel[-3:], atol=1e-4)


@pytest.mark.parametrize("name", MOVING)
def test_damping_in_long_steps_does_not_turn_round(name):
    """Of a speed it leaves `M / (M + h D)`, however long the step."""
    fast = MODES["fast"]
    model, data, path = coasting(name, fast.timestep)
    fast.step_in_c(model, data, 0.0, path)
    light = compile_scene(TASKS[name].geometry, MODES["faithful"].timestep)
    left = light.dof_M0 / (light.dof_M0 + fast.timestep * light.dof_damping)
    expected = left[-3:] * MOVING[name]
    np.testing.assert_allclose(data.qvel[-3:], expected, atol=1e-4)


@pytest.mark.parametrize(("margin", "expected"), [(0.0, [0, 1]), (-1.0, [0, 0])])
def test_a_pad_touches_a_thing_where_it_is_deeper_than_its_margin(margin, expected):
    c_model = compile_scene(TASKS["push"].geometry, 0.0025)
    data = mjx.make_data(mjx.put_model(c_model, impl="jax"))
    contact = data._impl.contact
    apart, all_of = jnp.ones_like(contact.dist), jnp.full_like(contact.dist, margin)
    pair = jnp.array([c_model.geom(x).id for x in ("right_pad", "free_box_0")])
    contact = contact.replace(
        dist=apart.at[3].set(-0.01),
        includemargin=all_of,
        geom=jnp.zeros_like(contact.geom).at[3].set(pair),
    )
    found = pad_forces(data.tree_replace({"_impl.contact": contact}))
    assert found.tolist() == expected


def test_a_time_step_is_that_of_mujoco_xla_with_our_contacts(monkeypatch):
    """A cube 1 mm deep in the table between fingers that close, from where it is."""
    monkeypatch.setattr(collision_driver, "collision", contacts)
    c_model = compile_scene(TASKS["push"].geometry, 0.0025)
    model = mjx.put_model(c_model, impl="jax")
    hand = Moving(*map(jnp.array, ([0.0, 0.6, 0.05], [0.1, 0.0, 0.0], [1.0, 0, 0, 0])))
    state = start(model, hand, placed(free=jnp.array([0.0, 0.6, 0.019])))
    state = state.replace(ctrl=jnp.array([1.0, -1.0]))
    with jax.numpy_rank_promotion("allow"):
        theirs, ours = (jax.jit(step)(model, state) for step in (mjx.step, advance))
    assert (np.asarray(ours._impl.contact.dist) < 0).any()
    for name in ("qpos", "qvel", "qacc", "qacc_warmstart"):
        expected = np.asarray(getattr(theirs, name))
        largest = np.abs(expected).max()
        np.testing.assert_allclose(getattr(ours, name), expected, atol=1e-5 * largest)


def test_lids_that_are_dropped_askew_land_as_in_c_mujoco():
    """In long steps they sink in, some of their corners deeper than others."""
    physics, drops, steps = MODES["fast"], 6, 40
    c_model = compile_scene(TASKS["box-close"].geometry, physics.timestep)
    c_model.body("fixture").pos = (0.0, 0.9, 0.0)
    model = mjx.put_model(c_model, impl="jax")
    turns = 0.15 * np.random.default_rng(0).normal(size=(drops, 4)) + [1, 0, 0, 0]
    turns = (turns / np.linalg.norm(turns, axis=1)[:, None]).astype(np.float32)
    hand = Moving(jnp.array([0.0, 0.4, 0.4]), jnp.zeros(3), jnp.array([1.0, 0, 0, 0]))
    still = jax.tree.map(lambda x: jnp.stack([x, x]), hand)
    where = (0.0, 0.6, 0.09)

    @jax.jit
    @jax.vmap
    def land(turn):
        lid = placed(free=where, free_quat=turn)
        once = lambda data, _: (physics.step(model, data, jnp.zeros(()), still),) * 2
        _, states = jax.lax.scan(once, start(model, hand, lid), length=steps)
        return states.qpos[:, 5:12]

    ours, theirs = np.asarray(land(turns)), np.zeros((drops, steps, 7))
    path = jax.tree.map(np.asarray, still)
    for drop, turn in enumerate(turns):
        data = mujoco.MjData(c_model)
        data.qpos[:3], data.qpos[5:8], data.qpos[8:12] = hand.position, where, turn
        for step in range(steps):
            physics.step_in_c(c_model, data, 0.0, path)
            theirs[drop, step] = data.qpos[5:12]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
