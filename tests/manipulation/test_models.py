"""One program for every scene."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.manipulation import models
from jaxmeta.manipulation.models import body_ids, compile_scene, compile_scenes
from jaxmeta.manipulation.physics import MODES
from jaxmeta.manipulation.scene import Box, Geometry, Joint
from jaxmeta.manipulation.tasks import TASKS
from jaxmeta.manipulation.template import mjcf

SLANTED = Joint((0.6, 0.0, 0.8), -1.0, 1.0)


def test_a_scene_with_a_program_of_its_own_is_named(monkeypatch):
    def patient(geometry, timestep):
        iterations = 4 if geometry.floor < 0 else 3
        text = mjcf(geometry, timestep=timestep)
        return text.replace('iterations="3"', f'iterations="{iterations}"', 1)

    monkeypatch.setattr(models, "mjcf", patient)
    with pytest.raises(
        ValueError, match=r"of task 'low' .* opt.iterations must be 3, got"
    ):
        compile_scenes(["flat", "low"], [Geometry(), Geometry(floor=-0.1)], 0.0025)


def test_a_scene_with_another_number_of_pairs_is_named(monkeypatch):
    def lonely(geometry, timestep):
        text = mjcf(geometry, timestep=timestep)
        if geometry.floor == 0:
            return text
        start = text.index("<pair")
        return text[:start] + text[text.index("/>", start) + 2 :]

    monkeypatch.setattr(models, "mjcf", lonely)
    with pytest.raises(ValueError, match=r"of task 'low' .* npair must be"):
        compile_scenes(["flat", "low"], [Geometry(), Geometry(floor=-0.1)], 0.0025)


def test_a_denser_mass_matrix_is_refused(monkeypatch):
    monkeypatch.setattr(models, "generic_scene", Geometry)
    crooked = Geometry(
        mechanism=(Box((0.1, 0.2, 0.3), (0.1, 0.1, 0.1)),), slides=(SLANTED,)
    )
    with pytest.raises(
        ValueError, match=r"of task 'bent' has a denser mass matrix .* \(1"
    ):
        compile_scenes(["flat", "bent"], [Geometry(), crooked], 0.0025)


@pytest.mark.parametrize("name", ["assembly", "door-open", "hammer"])
def test_a_model_is_what_mujoco_compiles(name):
    geometries = [task.geometry for task in TASKS.values()]
    compiled = compile_scenes(list(TASKS), geometries, 0.0025)
    fixture = jnp.array([0.1, 0.2, 0.3])
    model = compiled.of(jnp.array(list(TASKS).index(name)), fixture)
    own = compile_scene(TASKS[name].geometry, 0.0025)
    for field in ("geom_size", "body_inertia", "jnt_range", "pair_friction"):
        np.testing.assert_allclose(getattr(model, field), getattr(own, field))
    np.testing.assert_allclose(model.body_pos[body_ids()["fixture"]], fixture)


@pytest.mark.parametrize(
    ("name", "mass", "inertia"),
    [
        # From the official models as MuJoCo compiles them.
        ("hand-insert", 0.01, 1e5),
        ("peg-insert-side", 0.1, 1e5),
        ("pick-out-of-hole", 0.01, 1e5),
        ("push-back", 0.75, 1e5),
        ("shelf-place", 0.01, 1e5),
        ("sweep-into", 0.01, 1e5),
        ("pick-place", 0.75, 8.80012e-4),
        ("reach-wall", 0.75, 8.80012e-4),
        ("push", 0.75, 8.80012e-4),
        ("bin-picking", 0.1, 2.667e-5),
        ("soccer", 0.04, 1.083e-5),
    ],
)
def test_things_weigh_what_they_do_officially(name, mass, inertia):
    free = compile_scene(TASKS[name].geometry, 0.0025).body("free")
    np.testing.assert_allclose(free.mass, mass, rtol=1e-4)
    np.testing.assert_allclose(free.inertia, np.full(3, inertia), rtol=5e-3)


@pytest.mark.parametrize(
    ("name", "mass"),
    [
        # From the official models, too.
        ("button-press", 0.01),
        ("coffee-button", 0.1),
        ("dial-turn", 0.3655),
        ("door-open", 2.2298),
        ("door-lock", 0.001),
        ("drawer-open", 0.38),
        ("faucet-open", 0.2681),
        ("hammer", 0.0886),
        ("handle-press", 0.002),
        ("lever-pull", 0.004),
        ("plate-slide", 0.05),
        ("stick-push", 3.2678),
        ("window-open", 0.6378),
    ],
)
def test_mechanisms_weigh_what_they_do_officially(name, mass):
    mechanism = compile_scene(TASKS[name].geometry, 0.0025).body("mechanism")
    np.testing.assert_allclose(mechanism.mass, mass, rtol=2e-3)


@pytest.mark.parametrize("name", ["door-open", "lever-pull"])
def test_limits_take_joints_for_no_heavier_in_long_steps(name):
    light, heavy = (
        compile_scene(TASKS[name].geometry, MODES[mode].timestep)
        for mode in ("faithful", "fast")
    )
    assert heavy.dof_M0[-1] > 1.1 * light.dof_M0[-1]
    np.testing.assert_array_equal(heavy.dof_invweight0[-3:], light.dof_invweight0[-3:])
