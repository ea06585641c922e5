"""The environment: fifty tasks in one program."""

from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from jaxmeta.manipulation.env import HORIZON, ManipulationEnv
from jaxmeta.manipulation.hand import pull
from jaxmeta.manipulation.physics import Physics, compile_scene
from jaxmeta.manipulation.sensors import TIP
from jaxmeta.manipulation.tasks import TASKS, find
from jaxmeta.manipulation.training import wrap

RECORDINGS = Path(__file__).parents[1] / "parity" / "recordings"
NAMES = list(TASKS)
# What is observed right after the official reset, before the positions set by it have
# been passed on, is 20 cm off there.
STALE = {"window-close"}


@pytest.fixture(scope="module")
def recorded():
    """The first episode of every task: the clean scripted policy."""
    found = {}
    for name in NAMES:
        with np.load(RECORDINGS / f"{name}.npz") as file:
            rows = dict(file)
        found[name] = {key: x[rows["episode"] == 0] for key, x in rows.items()}
    return found


@pytest.fixture(scope="module")
def replayed(room, recorded):
    """The official actions in our scene: what is seen at every step."""
    pad = lambda v: np.pad(v, (0, 6 - len(v)))
    vectors = jnp.array([pad(recorded[name]["vector"][0]) for name in NAMES])
    keys = jax.random.split(jax.random.key(0), len(NAMES))
    state = room.reset_to(vectors, room.tasks, keys)
    lengths = [len(recorded[name]["action"]) for name in NAMES]
    actions = np.zeros((max(lengths), len(NAMES), 4), np.float32)
    for i, name in enumerate(NAMES):
        actions[: lengths[i], i] = recorded[name]["action"]
    seen = [np.asarray(state.obs)]
    for action in actions[1:]:
        state = room.step(state, jnp.asarray(action))
        seen.append(np.asarray(state.obs))
    return np.array(seen), lengths


def test_all_tasks_compile_once(room):
    state = room.start(0)
    state = room.step(state, jnp.zeros((50, 4)))
    room.step(state, jnp.ones((50, 4)))
    assert room.step._cache_size() == 1
    assert state.obs.shape == (50, 39)


@pytest.mark.parametrize("name", NAMES)
def test_things_start_where_they_do_officially(replayed, recorded, name):
    if name in STALE:
        pytest.skip("the official observation of a reset is stale here")
    ours, theirs = replayed[0][0, NAMES.index(name)], recorded[name]["observation"][0]
    # In three tasks the official hand has been pushed aside before the first step.
    np.testing.assert_allclose(ours[:3], theirs[:3], atol=7e-3)
    np.testing.assert_allclose(ours[4:7], theirs[4:7], atol=1e-3)
    np.testing.assert_allclose(ours[11:14], theirs[11:14], atol=1e-3)
    np.testing.assert_allclose(ours[36:], theirs[36:], atol=1e-3)
    apart = min(np.abs(ours[7:11] - sign * theirs[7:11]).max() for sign in (1, -1))
    # The official box-close leaves the lid turned as the episode before did.
    assert apart < 2e-3


def test_the_hand_follows_the_official_one(replayed, recorded):
    """Until the first contact, of which the object's first motion tells."""
    seen, lengths = replayed
    medians = {}
    for i, (name, length) in enumerate(zip(NAMES, lengths, strict=True)):
        theirs = recorded[name]["observation"]
        moved = np.abs(theirs[1:, 4:7] - theirs[1, 4:7]).max(axis=1) > 1e-3
        free = max(5, int(np.argmax(moved)) if moved.any() else length)
        free = min(free, length)
        errors = np.linalg.norm(seen[:free, i, :3] - theirs[:free, :3], axis=1)
        medians[name] = np.median(errors)
    # Open loop, without the official arm and its sideways bending.
    assert max(medians.values()) < 0.016, medians
    assert np.sort(list(medians.values()))[39] < 0.0065, medians


def test_mjx_is_mujoco(room):
    """The same controls in C MuJoCo: the hand stays within a millimetre."""
    state = room.start(3)
    rng, physics = np.random.default_rng(0), room.env.physics
    loops = []
    for i, name in enumerate(NAMES):
        model = compile_scene(find(name).geometry, physics.timestep)
        data = mujoco.MjData(model)
        model.body("fixture").pos = state.info["play"].fixture[i]
        data.qpos[:] = state.pipeline_state.qpos[i]
        loops.append((model, data))
    actions = rng.uniform(-1, 1, size=(40, 50, 4)).astype(np.float32)
    actions[:, :, 2] = np.abs(actions[:, :, 2])  # up: contacts make chaos
    for action in actions:
        state = room.step(state, jnp.asarray(action))
        goals = np.asarray(jax.vmap(pull)(state.info["play"].goal))
        for (model, data), goal, one in zip(loops, goals, action, strict=True):
            data.ctrl[:] = [one[3], -one[3], *goal]
            mujoco.mj_step(model, data, physics.substeps)
    ours = np.asarray(state.pipeline_state.qpos)
    theirs = np.array([data.qpos for _, data in loops])
    np.testing.assert_allclose(ours[:, :3], theirs[:, :3], atol=1e-3)


def test_no_action_makes_a_nan(room):
    """10,000 steps: random, extreme, into the table, not a number."""
    state, rng = room.start(1), np.random.default_rng(1)
    for i in range(200):
        kind = i // 10 % 5
        if kind == 0:
            action = rng.uniform(-1, 1, size=(50, 4))
        elif kind == 1:
            action = rng.choice([-1e6, 1e6], size=(50, 4))
        elif kind == 2:
            action = np.tile([0.0, 0.3, -1.0, 1.0], (50, 1))
        elif kind == 3:
            action = rng.choice([np.nan, np.inf, -np.inf, 1.0], size=(50, 4))
        else:  # towards the object
            seen = np.asarray(state.obs)
            action = np.c_[20 * (seen[:, 4:7] - seen[:, :3]), rng.choice([-1, 1], 50)]
        state = room.step(state, jnp.asarray(action, jnp.float32))
        reward = np.asarray(state.reward)
        assert np.isfinite(state.obs).all()
        assert ((reward >= 0) & (reward <= 10)).all()
    assert np.isfinite(state.pipeline_state.qpos).all()


def test_the_step_lowers_for_accelerators(room, untyped):
    env = ManipulationEnv(["push", "door-open"])
    keys = jax.random.split(jax.random.key(0), 2)
    state = jax.eval_shape(jax.vmap(env.reset), keys)
    action = jax.ShapeDtypeStruct((2, 4), jnp.float32)
    traced = jax.jit(jax.vmap(env.step)).trace(state, action)
    for platform in ("tpu", "cuda"):
        assert traced.lower(lowering_platforms=(platform,)).as_text()


def test_one_hot_and_hidden_goals():
    env = ManipulationEnv(["reach", "push", "sweep"], hidden_goal=True, one_hot=True)
    task = jnp.array(1)
    state = jax.jit(env.reset_task)(jax.random.key(0), task)
    assert env.observation_size == 42
    assert state.obs.shape == (42,)
    assert state.obs[36:].tolist() == [0, 0, 0, 0, 1, 0]


def test_draws_are_within_the_box_and_accepted():
    env = ManipulationEnv(NAMES)
    keys = jax.random.split(jax.random.key(0), 50 * 20)
    tasks = jnp.repeat(jnp.arange(50), 20)
    vectors = np.asarray(jax.jit(jax.vmap(env.draw))(keys, tasks))
    for i, name in enumerate(NAMES):
        task, mine = TASKS[name], vectors[np.asarray(tasks) == i]
        width = len(task.low)
        assert (mine[:, :width] >= np.array(task.low) - 1e-6).all()
        assert (mine[:, :width] <= np.array(task.high) + 1e-6).all()
        assert all(bool(task.accepts(jnp.asarray(v[:width]))) for v in mine[:3])
        assert len(np.unique(mine, axis=0)) == 20


def test_an_episode_ends_and_another_begins():
    env = wrap(ManipulationEnv(["reach"]), episode_length=3)
    state = jax.jit(env.reset)(jax.random.split(jax.random.key(0), 2))
    step = jax.jit(env.step)
    first = state.info["play"]
    for i in range(7):
        before = state
        state = step(state, jnp.ones((2, 4)))
        assert state.done.tolist() == [float(i % 3 == 2)] * 2
        if i % 3 == 2:
            play = state.info["play"]
            assert not np.allclose(play.vector, before.info["play"].vector)
            assert play.steps.tolist() == [0, 0]
            assert state.info["truncation"].tolist() == [1.0, 1.0]
            # The last of the old episode, not the first of the new one.
            assert not np.allclose(state.info["final_obs"], state.obs)
            np.testing.assert_allclose(state.obs[:, :18], state.obs[:, 18:36])
    assert step._cache_size() == 1
    assert not np.allclose(state.info["play"].vector, first.vector)


def test_agents_are_told_that_it_was_for_the_time():
    """At the default length, where the environment's own end comes first."""
    fast = Physics(timestep=0.0125, substeps=1)
    env = wrap(ManipulationEnv(["reach"], physics=fast))
    state = jax.jit(env.reset)(jax.random.split(jax.random.key(0), 1))
    play = state.info["play"]
    late = play._replace(steps=play.steps + HORIZON - 2)
    steps = state.info["steps"] + HORIZON - 2
    state.info.update(play=late, steps=steps)
    step = jax.jit(env.step)
    for expected in (0.0, 1.0, 0.0):
        state = step(state, jnp.zeros((1, 4)))
        assert state.done.tolist() == [expected]
        assert state.info["truncation"].tolist() == [expected]


def test_time_is_up_after_500_steps():
    env = ManipulationEnv(["reach"], physics=Physics(timestep=0.0125, substeps=1))
    state = jax.jit(env.reset)(jax.random.key(0))
    late = state.info["play"]._replace(steps=jnp.array(HORIZON - 2))
    state = state.replace(info={**state.info, "play": late})
    step = jax.jit(env.step)
    state = step(state, jnp.zeros(4))
    assert (float(state.done), float(state.info["truncation"])) == (0.0, 0.0)
    state = step(state, jnp.zeros(4))
    assert (float(state.done), float(state.info["truncation"])) == (1.0, 1.0)
    assert env.dt == pytest.approx(1 / 80)


def test_either_version_of_the_reward_can_be_asked_for():
    """Far from the handle the first is minus the distance to it."""
    fast = Physics(timestep=0.0125, substeps=1)
    made = {}
    for version in ("v1", "v2"):
        env = ManipulationEnv(["door-open"], physics=fast, reward_version=version)
        state = jax.jit(env.reset)(jax.random.key(0))
        made[version] = jax.jit(env.step)(state, jnp.zeros(4))
    np.testing.assert_array_equal(made["v1"].obs, made["v2"].obs)
    seen = np.asarray(made["v1"].obs)
    tips = seen[:3] - np.array([0.0, 0.0, TIP], np.float32)
    apart = np.linalg.norm(seen[4:7] - tips)
    assert float(made["v1"].reward) == pytest.approx(-apart, abs=1e-3)
    assert float(made["v2"].reward) > 0


def test_all_tasks_have_version_1_in_one_program(untyped):
    env = ManipulationEnv(NAMES, reward_version="v1")
    state = jax.eval_shape(env.reset, jax.random.key(0))
    assert jax.eval_shape(env.step, state, jnp.zeros(4)).reward.shape == ()


def test_mistakes_are_named(untyped):
    with pytest.raises(ValueError, match="unknown task 'raech'; did you mean 'reach'"):
        ManipulationEnv(["raech"])
    for tasks in ([], "reach"):
        with pytest.raises(ValueError, match="a list of at least one name, got"):
            ManipulationEnv(tasks)
    with pytest.raises(ValueError, match='must be "v1" or "v2", got \'v3\''):
        ManipulationEnv(["reach"], reward_version="v3")
    with pytest.raises(ValueError, match=r"timestep must be positive .* got 0.0"):
        Physics(timestep=0.0)
    env = ManipulationEnv(["reach"])
    state = jax.eval_shape(env.reset, jax.random.key(0))
    with pytest.raises(ValueError, match=r"shape \(4,\), got \(3,\)"):
        jax.eval_shape(env.step, state, jnp.zeros(3))
