"""Contacts of a scene are MuJoCo XLA's, but for which pairs are looked at."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from mujoco import mjx
from mujoco.mjx._src import collision_driver

from jaxmeta.manipulation.collision import Placed, frame
from jaxmeta.manipulation.hand import Moving
from jaxmeta.manipulation.models import compile_scene
from jaxmeta.manipulation.nearest import OURS, contacts
from jaxmeta.manipulation.physics import start
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
    """A hand and a thing in it, here and there, deep in what stands around.

    Where both look at all pairs, crumbs, too: from which are the nearest they differ.
    """
    table = collision_driver._COLLISION_FUNC
    for types, function in OURS.items():
        theirs = in_its_table(function, table[types].ncon)
        monkeypatch.setitem(table, types, theirs)
    c_model = compile_scene(TASKS[name].geometry, 0.0025)
    c_model.numeric("max_geom_pairs").data[:] = c_model.npair
    c_model.pair_margin[:] = 0.0
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


def test_crumbs_touch_nothing_however_deep_things_are():
    """A lid that has sunk into the table by more than half of its height."""
    c_model = compile_scene(TASKS["box-close"].geometry, 0.0025)
    c_model.body("fixture").pos = (0.0, 0.75, 0.0)
    model = mjx.put_model(c_model, impl="jax")
    hand = Moving(jnp.ones(3), jnp.zeros(3), jnp.array([1.0, 0.0, 0.0, 0.0]))
    lid = placed(free=(0.0, 0.5, 0.002))
    look = jax.jit(lambda m: contacts(m, start(m, hand, lid))._impl.contact)

    def pushing(model):
        with jax.numpy_rank_promotion("allow"):
            found = jax.device_get(look(model))
        push = found.dist < found.includemargin
        names = [{c_model.geom(i).name for i in pair} for pair in found.geom[push]]
        return names, found.dist[push]

    names, distances = pushing(model)
    assert names == [{"floor", "free_box_0"}] * 4
    np.testing.assert_allclose(distances, -0.0137, atol=1e-5)
    names, _ = pushing(model.replace(pair_margin=jnp.zeros_like(model.pair_margin)))
    assert {"floor", "free_capsule_3"} in names  # a crumb, were it not for its margin


@pytest.mark.parametrize("kind", ["box", "capsule"])
def test_a_small_box_is_not_crowded_out_by_large_ones(kind):
    """A thing that touches a peg between slabs, near whose middles it is not."""
    box = '<geom name="{}" type="box" size="{}" pos="{}"/>'
    size = {"box": ".021 .02 .02", "capsule": ".021 .01"}[kind]
    thing = f'<geom name="cube" type="{kind}" size="{size}"/>'
    slabs = {f"slab_{i}": (".5 .5 .01", f"0 0 {z}") for i, z in enumerate((-0.2, 0.2))}
    still = {"peg": (".01 .01 .01", ".43 0 0"), **slabs}
    pairs = "".join(f'<pair geom1="cube" geom2="{name}"/>' for name in still)
    model = mujoco.MjModel.from_xml_string(
        f"<mujoco><worldbody>{''.join(box.format(n, *x) for n, x in still.items())}"
        f'<body pos=".4 0 0"><freejoint/>{thing}</body></worldbody>'
        f"<contact>{pairs}</contact><custom>"
        '<numeric name="max_geom_pairs" data="1"/>'
        '<numeric name="max_contact_points" data="4"/></custom></mujoco>'
    )
    data = mujoco.MjData(model)
    put = mjx.put_model(model, impl="jax"), mjx.put_data(model, data, impl="jax")

    @jax.jit
    def both(model, state):
        state = mjx.kinematics(model, state)
        ways = (contacts, collision_driver.collision)
        return [way(model, state)._impl.contact for way in ways]

    with jax.numpy_rank_promotion("allow"):
        found, theirs = both(*put)
    np.testing.assert_allclose(found.dist.min(), -0.001, atol=1e-6)
    assert (np.asarray(theirs.dist) > 0).all()


@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.parametrize("kind", ["box", "capsule"])
def test_what_never_touches_crowds_nothing_out(kind, most):
    """A thing with a crumb in its middle, which touches a peg by 1 mm."""
    size = {"box": ".021 .02 .02", "capsule": ".021 .01"}[kind]
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><geom name="peg" type="box" size=".01 .01 .01" '
        'pos=".43 0 0"/><geom name="crumb" type="box" size=".001 .001 .001" '
        'pos=".4 0 0"/><body pos=".4 0 0"><freejoint/>'
        f'<geom name="thing" type="{kind}" size="{size}"/></body></worldbody>'
        '<contact><pair geom1="thing" geom2="crumb" margin="-1"/>'
        '<pair geom1="thing" geom2="peg"/></contact><custom>'
        f'<numeric name="max_geom_pairs" data="{most}"/>'
        '<numeric name="max_contact_points" data="2"/></custom></mujoco>'
    )
    data = mujoco.MjData(model)
    put = mjx.put_model(model, impl="jax"), mjx.put_data(model, data, impl="jax")
    look = jax.jit(lambda *put: contacts(put[0], mjx.kinematics(*put))._impl.contact)
    with jax.numpy_rank_promotion("allow"):
        found = jax.device_get(look(*put))
    push = found.dist < found.includemargin
    np.testing.assert_allclose(found.dist[push].min(), -0.001, atol=1e-6)
    assert (found.geom[push] == model.geom("peg").id).any(axis=1).all()


def test_each_pair_has_its_own_frames():
    """Two boxes that lean on a third from above and from the side."""
    geom = '<geom name="{}" type="box" size=".1 .1 .1"/>'
    body = "<body><freejoint/>{}</body>"
    bodies = "".join(body.format(geom.format(name)) for name in ("above", "beside"))
    pair = '<pair geom1="{}" geom2="third" condim="{}"/>'
    # Of different friction, so that both are of a kind of their own.
    pairs = pair.format("above", 3) + pair.format("beside", 4)
    numbers = "".join(
        f'<numeric name="{name}" data="9"/>'
        for name in ("max_geom_pairs", "max_contact_points")
    )
    model = mujoco.MjModel.from_xml_string(
        f"<mujoco><worldbody>{geom.format('third')}{bodies}</worldbody>"
        f"<contact>{pairs}</contact><custom>{numbers}</custom></mujoco>"
    )
    data = mujoco.MjData(model)
    data.qpos[:3], data.qpos[7:10] = (0.0, 0.0, 0.199), (0.199, 0.0, 0.0)
    put = mjx.put_model(model, impl="jax"), mjx.put_data(model, data, impl="jax")
    look = jax.jit(lambda *put: contacts(put[0], mjx.kinematics(*put))._impl.contact)
    with jax.numpy_rank_promotion("allow"):
        found = jax.device_get(look(*put))
    for name, way in (("above", [0.0, 0.0, 1.0]), ("beside", [1.0, 0.0, 0.0])):
        (mine,) = np.where((found.geom == model.geom(name).id).any(axis=1))
        assert len(mine) == 4
        np.testing.assert_allclose(found.dist[mine], -0.001, atol=1e-6)
        from_first = 1.0 if found.geom[mine[0], 1] == model.geom(name).id else -1.0
        expected = np.tile(way, (4, 1)) * from_first
        np.testing.assert_allclose(found.frame[mine, 0], expected, atol=1e-6)
        middles = np.asarray(found.pos)[mine] @ way
        np.testing.assert_allclose(middles, 0.0995, atol=1e-6)
