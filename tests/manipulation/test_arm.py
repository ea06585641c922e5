"""The official arm: against MuJoCo's own rigid bodies, and official trajectories."""

from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from jaxmeta.manipulation.arm import (
    ARMATURE,
    HAND_PLACE,
    LIMIT,
    LINKS,
    SHOULDER,
    TORQUE_SCALE,
    Arm,
    after_reset,
    dynamics,
    frames,
    motion,
    weld,
)
from jaxmeta.manipulation.hand import STEP_LENGTH, TIPS
from jaxmeta.manipulation.tasks import TASKS

RECORDINGS = Path(__file__).parents[1] / "parity" / "recordings"
GOAL = jnp.array([0.05, 0.65, 0.15])

# Steps of the first recorded episode before anything touches most hands.
UNTOUCHED = 20
# Where the lock, the handle and the lever are at the hand from the start or soon.
TOUCHED = {"door-lock", "door-unlock", "handle-press", "lever-pull"}
# Where the arm, as it swings up while the official environment is reset, hits something
# and is left turned a little about the vertical.
HIT = {"box-close", "coffee-button", "coffee-pull", "coffee-push"}


def mjcf():
    """The arm for MuJoCo."""
    numbers = lambda x: " ".join(f"{v:.9g}" for v in x)
    text = "".join(
        f'<body pos="{numbers(link.place)}" quat="{numbers(link.turn)}">'
        f'<joint axis="0 0 1" armature="{ARMATURE}"/><inertial '
        f'pos="{numbers(link.centre)}" mass="{link.mass}" '
        f'fullinertia="{numbers(link.inertia)}"/>'
        for link in LINKS
    )
    hand = f'<body name="hand" pos="{numbers(HAND_PLACE)}" quat="1 1 -1 1"/>'
    ends = "</body>" * len(LINKS)
    return f"<mujoco><worldbody>{text}{hand}{ends}</worldbody></mujoco>"


@pytest.fixture(scope="module")
def oracle():
    """MuJoCo's model and data of the arm."""
    model = mujoco.MjModel.from_xml_string(mjcf())
    return model, mujoco.MjData(model)


@pytest.mark.parametrize("seed", range(5))
def test_frames_masses_and_forces_are_those_of_mujoco(oracle, seed):
    model, data = oracle
    rng = np.random.default_rng(seed)
    data.qpos[:], data.qvel[:] = rng.normal(size=(2, 7))
    mujoco.mj_forward(model, data)
    found = frames(jnp.asarray(data.qpos, jnp.float32))
    np.testing.assert_allclose(found.origins, data.xpos[1:8], atol=1e-6)
    np.testing.assert_allclose(found.turns.reshape(7, 9), data.xmat[1:8], atol=1e-6)
    hand = data.body("hand")
    np.testing.assert_allclose(found.hand, hand.xpos, atol=1e-6)
    # Turned as the official one, which points down at this orientation.
    back, turn = np.array([1.0, 0.0, -1.0, 0.0]) / 2**0.5, np.zeros(4)
    mujoco.mju_mulQuat(turn, hand.xquat, back)
    np.testing.assert_allclose(found.turn, turn * np.sign(turn[0]), atol=1e-5)
    forces = dynamics(found, jnp.asarray(data.qvel, jnp.float32))
    mass = np.zeros((7, 7))
    for i in range(7):  # mj_mulM is the same in all versions
        mujoco.mj_mulM(model, data, mass[i], np.eye(7)[i])
    np.testing.assert_allclose(forces.mass, mass, atol=1e-5)
    np.testing.assert_allclose(forces.bias, data.qfrc_bias, atol=1e-4)


def test_the_slope_of_the_weld_is_the_derivative_of_its_error():
    angles = after_reset(GOAL).angles + 0.05
    error = lambda x: weld(frames(x), jnp.zeros(3)).error
    expected = jax.jacfwd(error)(angles)
    np.testing.assert_allclose(weld(frames(angles), GOAL).slope, expected, atol=1e-5)
    # A turn by a small angle counts as half of that many times `TORQUE_SCALE` metres.
    half = jnp.linalg.norm(weld(frames(angles), GOAL).error[3:]) / TORQUE_SCALE
    assert 0.0 < half < 0.1


def test_the_weld_holds_the_arm_where_forces_balance():
    on = lambda arm, _: (jax.tree.map(lambda x: x[-1], motion(GOAL, arm)), None)
    arm, _ = jax.lax.scan(on, after_reset(GOAL), length=400)
    assert jnp.abs(arm.speeds).max() < 0.02  # the elbow sinks for long
    at = frames(arm.angles)
    assert jnp.linalg.norm(at.hand - GOAL) < 0.02


def test_the_shoulder_is_kept_back_at_its_limit():
    arm = Arm(jnp.zeros(7).at[SHOULDER].set(LIMIT + 0.1), jnp.zeros(7))
    near = jnp.asarray(frames(arm.angles).hand)
    after = jax.tree.map(lambda x: x[-1], motion(near, arm))
    below = arm._replace(angles=arm.angles.at[SHOULDER].set(LIMIT - 0.1))
    near = jnp.asarray(frames(below.angles).hand)
    free = jax.tree.map(lambda x: x[-1], motion(near, below))
    assert after.speeds[SHOULDER] < -1.0
    assert abs(free.speeds[SHOULDER]) < 1.0


@pytest.fixture(scope="module")
def followed():
    """Names of tasks, where their arms are at every step, and what was recorded."""
    names = [name for name in TASKS if (RECORDINGS / f"{name}.npz").exists()]
    rows = []
    for name in names:
        with np.load(RECORDINGS / f"{name}.npz") as file:
            rows.append({key: file[key][file["episode"] == 0] for key in file})
    actions = np.stack([row["action"][1 : UNTOUCHED + 1, :3] for row in rows])
    tasks = [TASKS[name] for name in names]
    column = lambda name: jnp.array([getattr(task, name) for task in tasks])

    def one(actions, start, low, high):
        def step(carry, action):
            goal, arm = carry
            moved = goal + STEP_LENGTH * jnp.clip(action, -1.0, 1.0)
            goal = jnp.clip(moved, low, high)
            arm = jax.tree.map(lambda x: x[-1], motion(goal, arm))
            return (goal, arm), frames(arm.angles)

        return jax.lax.scan(step, (start, after_reset(start)), actions)[1]

    bounds = (column("hand_start"), column("hand_low"), column("hand_high"))
    found = jax.jit(jax.vmap(one))(jnp.asarray(actions), *bounds)
    points = ("hand", "left_pad", "right_pad", "tcp")
    rows_of = lambda key: [row[key][1 : UNTOUCHED + 1] for row in rows]
    seen = {key: np.stack(rows_of(key)) for key in points}
    return names, jax.device_get(found), seen


def test_hands_follow_the_official_ones(followed):
    names, found, seen = followed
    free = [name not in TOUCHED for name in names]
    assert sum(free) == 46
    apart = np.linalg.norm(found.hand - seen["hand"], axis=-1)[free].max(axis=1)
    assert apart.max() < 1.2e-3
    assert np.median(apart) < 5e-4


def test_hands_turn_as_the_official_ones(followed):
    names, found, seen = followed
    free = [name not in TOUCHED | HIT for name in names]
    pads = seen["left_pad"][free], seen["right_pad"][free]
    across = pads[0] - pads[1]
    across /= np.linalg.norm(across, axis=-1, keepdims=True)
    np.testing.assert_allclose(found.hand_axes[free][..., 1], across, atol=0.01)
    up = ((pads[0] + pads[1]) / 2 - seen["tcp"][free]) / -TIPS[2]
    np.testing.assert_allclose(found.hand_axes[free][..., 2], up, atol=0.01)
    assert np.abs(across[..., 0]).max() > 0.05  # they do turn
