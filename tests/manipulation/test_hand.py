"""The hand without the arm: its free motion, and what drags it when it is held up."""

import itertools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from jaxmeta.manipulation.hand import (
    AT_RESET,
    HIGH,
    LOW,
    REST_HIGH,
    REST_LOW,
    STEP_LENGTH,
    WELD_STIFFNESS,
    Moving,
    at_rest,
    force,
    free_motion,
    rest,
)
from jaxmeta.manipulation.physics import MODES, compile_scene
from jaxmeta.manipulation.scene import Geometry

START = np.array([0.0, 0.6, 0.2], np.float32) + np.array(AT_RESET, np.float32)


@jax.jit
def after_a_step(goal, hand):
    return jax.tree.map(lambda x: x[-1], free_motion(goal, hand, 5))


def test_motion_is_stable_wherever_the_hand_can_be():
    """The map from one step to the next shrinks distances in the long run."""

    def next_one(vector, goal):
        after = after_a_step(goal, Moving(vector[:3], vector[3:]))
        return jnp.concatenate(after)

    # Stiffness and damping change slowly: they are held at the place.
    places = np.array(list(itertools.product(*np.linspace(LOW, HIGH, 7).T)))
    states = np.concatenate([places, np.zeros_like(places)], axis=1)
    goals = places - np.asarray(jax.vmap(rest)(places))
    maps = jax.jit(jax.vmap(jax.jacfwd(next_one)))(states, goals)
    radii = np.abs(np.linalg.eigvals(np.asarray(maps))).max(axis=1)
    assert radii.max() < 1.0


@pytest.mark.parametrize("x", [-0.5, 0.5])
@pytest.mark.parametrize("y", [0.35, 1.0])
@pytest.mark.parametrize("z", [-0.15, 0.5])
def test_a_point_in_a_corner_leaves_the_hand_at_rest_nearby(x, y, z):
    goal, corner = jnp.array([0.0, 0.6, 0.2]), jnp.array([x, y, z])
    hand = at_rest(jnp.asarray(START))
    for _ in range(250):
        goal = goal + jnp.clip(corner - goal, -STEP_LENGTH, STEP_LENGTH)
        hand = after_a_step(goal, hand)
    assert jnp.abs(hand.velocity).max() < 1e-3
    assert jnp.abs(hand.position - corner).max() < 0.2
    within = jnp.clip(corner, REST_LOW, REST_HIGH)
    np.testing.assert_allclose(rest(corner), rest(within))


@pytest.mark.parametrize("mode", MODES)
def test_nothing_in_the_way_the_hand_is_where_a_free_one_is(mode):
    physics = MODES[mode]
    model = compile_scene(Geometry(), physics.timestep)
    data, free = mujoco.MjData(model), at_rest(jnp.asarray(START))
    data.qpos[:3] = START
    goal = np.array([0.0, 0.6, 0.2], np.float32)
    for i in range(40):
        goal = goal + np.float32([0.008, 0.006, -0.002]) * (i < 20)
        path = free_motion(jnp.asarray(goal), free, physics.substeps)
        free = jax.tree.map(lambda x: x[-1], path)
        physics.step_in_c(model, data, -1.0, Moving(*map(np.asarray, path)))
        atol = 1e-5 if mode == "faithful" else 3e-3
        np.testing.assert_allclose(data.qpos[:3], free.position, atol=atol)
    assert data.qpos[0] > 0.1


def test_a_held_hand_is_dragged_by_the_weld():
    free = at_rest(jnp.array([0.0, 0.6, 0.2]))
    held = at_rest(jnp.array([0.0, 0.59, 0.2]))
    expected = [0.0, 0.01 * WELD_STIFFNESS, 0.0]
    np.testing.assert_allclose(force(free, free, 0.0025, held), expected, atol=1e-3)


@pytest.mark.parametrize("count", [2, 10])
def test_other_time_steps_see_the_same_motion(count):
    goal, start = jnp.array([0.05, 0.62, 0.2]), at_rest(jnp.asarray(START))
    usual, other = (free_motion(goal, start, n) for n in (5, count))
    assert other.position.shape == (count + 1, 3)
    np.testing.assert_allclose(other.position[-1], usual.position[-1])
    middle = usual.position[2:4].mean(0)
    np.testing.assert_allclose(other.position[count // 2], middle, atol=1e-6)
