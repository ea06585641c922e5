"""What limits and contacts ask for is what MuJoCo XLA makes of them."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from mujoco import mjx
from mujoco.mjx._src import constraint, forward, smooth

from jaxmeta.manipulation.constraint import rows
from jaxmeta.manipulation.hand import Moving
from jaxmeta.manipulation.models import compile_scene
from jaxmeta.manipulation.nearest import contacts
from jaxmeta.manipulation.physics import start
from jaxmeta.manipulation.scene import placed
from jaxmeta.manipulation.tasks import TASKS

COUNT = 20
"""States."""


def force(jacobian, stiffness, wanted, acceleration):
    """What rows do to an acceleration, and what it costs."""
    lack = jnp.minimum(jacobian @ acceleration - wanted, 0.0)
    return jacobian.T @ (stiffness * lack), (stiffness * lack**2).sum()


@pytest.mark.parametrize("name", ["stick-pull", "coffee-push"])
@pytest.mark.parametrize("timestep", [0.0025, 0.0125])
def test_rows_push_as_those_of_mujoco_xla(name, timestep):
    """A hand and a thing in it, moving, deep in the table; joints beyond their ends."""
    c_model = compile_scene(TASKS[name].geometry, timestep)
    c_model.numeric("max_contact_points").data[:] = 60  # room for crumbs
    model = mjx.put_model(c_model, impl="jax")
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=(COUNT, *shape)).astype(np.float32)
    low, high = np.array([-0.2, 0.6, -0.05]), np.array([0.3, 0.8, 0.03])
    places = rng.uniform(low, high, (COUNT, 3)).astype(np.float32)

    @jax.jit
    @jax.vmap
    def both(place, joints, speeds, acceleration):
        hand = Moving(place + 0.01, jnp.zeros(3), jnp.array([1.0, 0.0, 0.0, 0.0]))
        state = start(model, hand, placed(free=place, joints=0.2 * joints))
        state = state.replace(qvel=0.1 * speeds)
        for part in (smooth.com_pos, smooth.crb, contacts, forward.fwd_velocity):
            state = part(model, state)
        theirs, ours = (
            constraint.make_constraint(model, state)._impl,
            rows(model, state),
        )
        of_theirs = theirs.efc_J, theirs.efc_D, theirs.efc_aref
        of_ours = ours.jacobian.T, ours.stiffness, ours.wanted
        contact = theirs.contact
        touching = (contact.dist < contact.includemargin).sum()
        crumbs = ((contact.dist < 0) & (contact.dist > contact.includemargin)).any()
        limited = (jnp.abs(state.qpos[-3:]) > 0.2).any()
        pushed = (force(*one, 10.0 * acceleration) for one in (of_theirs, of_ours))
        return (*pushed, touching, limited, crumbs)

    with jax.numpy_rank_promotion("allow"), jax.default_matmul_precision("highest"):
        found = both(places, draw(3), draw(model.nv), draw(model.nv))
    theirs, ours, touching, limited, crumbs = jax.tree.map(np.asarray, found)
    assert (touching > 2).mean() > 0.5
    assert limited.any()
    assert crumbs.any()
    for mine, expected in zip(ours, theirs, strict=True):
        largest = np.abs(expected).reshape(COUNT, -1).max(axis=1)
        apart = np.abs(mine - expected).reshape(COUNT, -1).max(axis=1)
        assert (largest > 0).mean() > 0.5
        assert (apart <= 1e-4 * largest).all()


def test_contacts_need_not_resist_turning():
    """A box in a plane, of `condim` 3, and nothing else."""
    c_model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><geom name="floor" type="plane" size="1 1 1"/>'
        '<body pos="0 0 .09"><freejoint/><geom name="cube" type="box" size=".1 .1 .1"/>'
        '</body></worldbody><contact><pair geom1="floor" geom2="cube" condim="3"/>'
        '</contact><custom><numeric name="max_geom_pairs" data="4"/>'
        '<numeric name="max_contact_points" data="4"/></custom></mujoco>'
    )
    model = mjx.put_model(c_model, impl="jax")
    state = mjx.put_data(c_model, mujoco.MjData(c_model), impl="jax")
    acceleration = jnp.linspace(-9.0, 1.0, 6)

    @jax.jit
    def both(model, state):
        for part in (mjx.kinematics, smooth.com_pos, smooth.crb, contacts):
            state = part(model, state)
        return constraint.make_constraint(model, state)._impl, rows(model, state)

    with jax.numpy_rank_promotion("allow"):
        theirs, ours = both(model, state)
        expected, cost = force(
            theirs.efc_J, theirs.efc_D, theirs.efc_aref, acceleration
        )
        found = force(ours.jacobian.T, ours.stiffness, ours.wanted, acceleration)
    assert cost > 0
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found[1], cost, rtol=1e-4)
