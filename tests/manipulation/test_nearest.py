"""Contacts of a scene are those that MuJoCo XLA would have chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mujoco import mjx
from mujoco.mjx._src import collision_driver

from jaxmeta.manipulation.collision import Placed, frame
from jaxmeta.manipulation.hand import Moving
from jaxmeta.manipulation.nearest import OURS, contacts
from jaxmeta.manipulation.physics import compile_scene, start
from jaxmeta.manipulation.scene import placed
from jaxmeta.manipulation.tasks import TASKS

COUNT = 40
"""States."""
OFF = np.array([0.01, 0.04, 0.01], np.float32)
"""From the thing to the hand, metres."""


def in_its_table(function, count):
    """A function of ours as MuJoCo XLA calls its own."""

    def collide(model, data, key, geom):
        del key
        of = lambda i: Placed(data.geom_xpos[i], data.geom_xmat[i], model.geom_size[i])
        found = jax.vmap(function)(of(geom[:, 0]), of(geom[:, 1]))
        turns = jnp.repeat(jax.vmap(frame)(found.normal), count, axis=0)
        return found.distance.reshape(-1), found.place.reshape(-1, 3), turns

    collide.ncon = count
    return collide


@pytest.mark.parametrize("name", ["stick-pull", "coffee-push"])
def test_contacts_are_those_of_mujoco_xla(monkeypatch, name):
    """A hand and a thing in it, here and there, deep in what stands around."""
    table = collision_driver._COLLISION_FUNC
    for types, function in OURS.items():
        theirs = in_its_table(function, table[types].ncon)
        monkeypatch.setitem(table, types, theirs)
    c_model = compile_scene(TASKS[name].geometry, 0.0025)
    model = mjx.put_model(c_model, impl="jax")
    low, high = np.array([-0.2, 0.6, 0.0]), np.array([0.3, 0.8, 0.03])
    places = np.random.default_rng(0).uniform(low, high, (COUNT, 3)).astype(np.float32)

    @jax.jit
    @jax.vmap
    def both(place):
        hand = Moving(place + OFF, jnp.zeros(3), jnp.array([1.0, 0.0, 0.0, 0.0]))
        state = start(model, hand, placed(free=place))
        ways = (collision_driver.collision, contacts)
        return [way(model, state)._impl.contact for way in ways]

    with jax.numpy_rank_promotion("allow"):
        theirs, ours = both(places)
    assert (np.asarray(theirs.dist) < 0).any(1).mean() > 0.5
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
