"""The hand on the official arm, and what drags it when it is held up."""

import functools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from jaxmeta.manipulation.arm import frames
from jaxmeta.manipulation.hand import (
    TIPS,
    WELD_STIFFNESS,
    Moving,
    force,
    free_motion,
    moment,
    started,
)
from jaxmeta.manipulation.models import compile_scene
from jaxmeta.manipulation.physics import MODES
from jaxmeta.manipulation.scene import Geometry

GOAL = np.array([0.0, 0.6, 0.2], np.float32)


@pytest.fixture(scope="module")
def start():
    """The hand after a reset."""
    return started(jnp.asarray(GOAL))


def test_a_hand_moves_as_the_middle_between_its_tips(start):
    path, end = free_motion(jnp.array([0.05, 0.62, 0.2]), start, 5)
    found = frames(end.arm.angles)
    tips = found.hand + found.hand_axes @ TIPS
    np.testing.assert_allclose(path.position[-1], tips, atol=1e-6)
    np.testing.assert_allclose(path.turn[-1], found.turn, atol=1e-6)
    assert 0.04 < found.hand[2] - path.position[-1, 2] < 0.0451
    np.testing.assert_array_equal(path.velocity[0], start.velocity)
    np.testing.assert_array_equal(path.velocity[-1], end.velocity)
    moved = np.diff(path.position, axis=0) / 0.0025
    np.testing.assert_allclose(path.velocity[1:], moved, atol=1e-3)
    # Where it is not sent elsewhere it goes on as it moved.
    on, _ = free_motion(jnp.asarray(GOAL), start, 5)
    np.testing.assert_allclose(on.velocity[0], on.velocity[1], atol=0.01)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_in_the_way_the_hand_is_where_a_free_one_is(mode, start):
    physics = MODES[mode]
    model = compile_scene(Geometry(), physics.timestep)
    data, free, first = mujoco.MjData(model), start, moment(start)
    data.qpos[:3], data.qvel[:3] = first.position, first.velocity
    goal = GOAL
    move = jax.jit(functools.partial(free_motion, count=physics.substeps))
    for i in range(40):
        goal = goal + np.float32([0.008, 0.006, -0.002]) * (i < 20)
        path, free = move(jnp.asarray(goal), free)
        path = jax.tree.map(np.asarray, path)
        physics.step_in_c(model, data, -1.0, path)
        np.testing.assert_allclose(data.qpos[:3], path.position[-1], atol=2e-5)
        mujoco.mj_kinematics(model, data)
        turn = data.body("hand").xquat
        np.testing.assert_allclose(turn, path.turn[-1], atol=1e-6)
    assert data.qpos[0] > 0.1


def test_a_held_hand_is_dragged_by_the_weld():
    still, down = np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])
    free = Moving(GOAL, still, down)
    expected = [0.0, 0.01 * WELD_STIFFNESS, 0.0]
    held = GOAL - [0.0, 0.01, 0.0]
    np.testing.assert_allclose(force(free, free, 0.0025, held, still), expected)
    moving = force(free, free, 0.0025, GOAL, np.array([0.1, 0.0, 0.0]))
    np.testing.assert_allclose(moving, [-44.0, 0.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 10])
def test_other_time_steps_see_the_same_motion(count, start):
    goal = jnp.array([0.05, 0.62, 0.2])
    (usual, end), (other, same) = (free_motion(goal, start, n) for n in (5, count))
    assert other.position.shape == (count + 1, 3)
    np.testing.assert_allclose(other.position[-1], usual.position[-1], atol=1e-7)
    np.testing.assert_array_equal(end.arm.angles, same.arm.angles)
    assert end.velocity.shape == same.velocity.shape == (3,)
    if count > 1:
        middle = usual.position[2:4].mean(0)
        np.testing.assert_allclose(other.position[count // 2], middle, atol=1e-5)
