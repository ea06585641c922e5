"""The Gymnasium adapter: the numbers of the environment, the customs of Gymnasium."""

from typing import ClassVar

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_space_limit, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import ClipReward, RecordEpisodeStatistics
from mujoco import mjx

from jaxmeta.manipulation.env import HORIZON, ManipulationEnv
from jaxmeta.manipulation.gym import GymnasiumVectorEnv
from jaxmeta.manipulation.physics import Physics

FAST = Physics(timestep=0.0125, substeps=1)
NUM_ENVS, LENGTH = 3, 4
TASKS = ["push", "reach", "push"]


@pytest.fixture(scope="module")
def single():
    return ManipulationEnv(["reach", "push"], physics=FAST)


@pytest.fixture(scope="module")
def envs(single):
    """Three environments with tasks of their own, compiled once."""
    return GymnasiumVectorEnv(single, NUM_ENVS, TASKS, episode_length=LENGTH)


@pytest.fixture(scope="module")
def actions():
    return np.random.default_rng(0).uniform(-1, 1, (10, NUM_ENVS, 4))


def play(envs, seed, actions):
    """Everything that is returned, from the reset on."""
    return [envs.reset(seed=seed), *(envs.step(action) for action in actions)]


def test_the_spaces_are_the_official_ones(envs):
    space = envs.single_observation_space
    assert (space.shape, space.dtype) == ((39,), np.float32)
    frame = [-0.525, 0.348, -0.0525, -1.0, *[-np.inf] * 14]
    np.testing.assert_allclose(space.low[:36], frame * 2)
    frame = [0.525, 1.025, 0.7, 1.0, *[np.inf] * 14]
    np.testing.assert_allclose(space.high[:36], frame * 2)
    # Of the goals of reach and push, the farthest apart.
    np.testing.assert_allclose(space.low[36:], [-0.1, 0.8, 0.01])
    np.testing.assert_allclose(space.high[36:], [0.1, 0.9, 0.3])
    assert envs.observation_space.shape == (NUM_ENVS, 39)
    actions = envs.single_action_space
    assert (actions.low.tolist(), actions.high.tolist()) == ([-1.0] * 4, [1.0] * 4)
    assert (envs.action_space.shape, actions.dtype) == ((NUM_ENVS, 4), np.float32)
    check_space_limit(actions, "action")


def test_hidden_goals_and_one_hot_numbers_have_their_spaces():
    env = ManipulationEnv(["reach", "push"], hidden_goal=True, one_hot=True)
    space = GymnasiumVectorEnv(env, 2).single_observation_space
    assert space.low[36:].tolist() == [0.0] * 5
    assert space.high[36:].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]


@pytest.mark.slow
def test_the_numbers_are_those_of_the_environment(single, envs, actions):
    """Up to the end of the episode, step by step in one environment of Brax's."""
    keys = jax.random.split(jax.random.key(5), NUM_ENVS)
    tasks = jnp.array([1, 0, 1])
    state = jax.jit(jax.vmap(single.reset_task))(keys, tasks)
    step = jax.jit(jax.vmap(single.step))
    (obs, info), *rest = play(envs, 5, actions[: LENGTH - 1])
    np.testing.assert_allclose(obs, state.obs, atol=1e-6)
    assert info["task"].tolist() == [1, 0, 1]
    for action, (obs, reward, terminated, truncated, info) in zip(
        actions, rest, strict=False
    ):
        state = step(state, jnp.asarray(action, jnp.float32))
        np.testing.assert_allclose(obs, state.obs, atol=1e-5)
        np.testing.assert_allclose(reward, state.reward, atol=1e-4)
        np.testing.assert_array_equal(info["success"], state.metrics["success"] > 0)
        assert not terminated.any()
        assert not truncated.any()


def test_a_seed_says_everything(envs, actions):
    first, again, other = (play(envs, seed, actions) for seed in (1, 1, 2))
    assert all(
        data_equivalence(a, b, exact=True) for a, b in zip(first, again, strict=True)
    )
    assert not np.allclose(first[0][0], other[0][0])
    envs.reset(seed=1)
    more = [envs.reset()[0] for _ in range(2)]
    assert not np.allclose(*more)
    envs.reset(seed=1)
    np.testing.assert_array_equal(envs.reset()[0], more[0])


def test_an_episode_that_ends_is_followed_by_another(envs, actions):
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    (obs, _), *steps = play(envs, 3, actions)
    goals = [obs[:, 36:]]
    for i, (obs, _, terminated, truncated, info) in enumerate(steps):
        assert envs.observation_space.contains(obs)
        assert not terminated.any()
        assert info["task"].tolist() == [1, 0, 1]
        ends = i % LENGTH == LENGTH - 1
        assert truncated.tolist() == [ends] * NUM_ENVS
        assert ("final_obs" in info) == ("final_info" in info) == ends
        if not ends:
            np.testing.assert_array_equal(obs[:, 36:], goals[-1])
            continue
        assert info["_final_obs"].tolist() == [True] * NUM_ENVS
        last = np.stack(info["final_obs"])
        np.testing.assert_array_equal(last[:, 36:], goals[-1])
        # The frame before it is the one that the step before showed.
        np.testing.assert_array_equal(last[:, 18:36], steps[i - 1][0][:, :18])
        np.testing.assert_array_equal(obs[:, :18], obs[:, 18:36])
        assert info["final_info"]["task"].tolist() == [1, 0, 1]
        goals.append(obs[:, 36:])
    assert len(goals) == 3
    assert (np.abs(np.diff(goals, axis=0)).max(axis=-1) > 1e-3).all()


def put(single, envs, tips):
    """Puts the second hand somewhere, from where it is dragged back."""
    data = envs._state.pipeline_state
    qpos = data.qpos.at[1, :3].set(jnp.array(tips))
    qvel = data.qvel.at[1, :3].set(0.0)
    data = data.replace(qpos=qpos, qvel=qvel)
    play, models = envs._state.info["play"], single.models
    where = lambda task, fixture, data: mjx.kinematics(models.of(task, fixture), data)
    with jax.numpy_rank_promotion("allow"):
        data = jax.jit(jax.vmap(where))(play.task, play.fixture, data)
    envs._state = envs._state.replace(pipeline_state=data)


def test_a_success_belongs_to_the_episode_that_had_it(single, envs):
    """The hand of the second environment is at the goal of reach for one step."""
    obs, info = envs.reset(seed=0)
    assert not info["solved"].any()
    found = []
    for i in range(LENGTH):
        put(single, envs, obs[1, 36:] if i == 1 else [-0.4, 0.5, 0.4])
        obs, _, _, _, info = envs.step(np.zeros((NUM_ENVS, 4)))
        found.append((bool(info["success"][1]), bool(info["solved"][1])))
    # The last is that of the new episode.
    assert found == [(False, False), (True, True), (False, True), (False, False)]
    assert info["final_info"]["success"].tolist() == [False, False, False]
    assert info["final_info"]["solved"].tolist() == [False, True, False]


def test_environments_that_end_apart(envs, actions):
    """Only of those that ended is there a last observation; the others go on."""
    envs.reset(seed=0)
    state = envs._state
    late = state.info["steps"].at[1].set(LENGTH - 1)
    state.info.update(steps=late)
    obs, _, _, truncated, info = envs.step(actions[0])
    assert truncated.tolist() == [False, True, False]
    assert info["_final_obs"].tolist() == info["_final_info"].tolist()
    assert info["_final_info"].tolist() == [False, True, False]
    assert [one is None for one in info["final_obs"]] == [True, False, True]
    assert info["final_obs"][1].shape == (39,)
    assert info["final_info"]["_success"].tolist() == [False, True, False]
    fresh = [np.array_equal(row[:18], row[18:36]) for row in obs]
    assert fresh == [False, True, False]


class Short(gymnasium.Env):
    """An environment of Gymnasium's kind that is over after a few steps."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (39,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    told: ClassVar = {"task": np.int32(1), "success": False, "solved": False}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.left = LENGTH
        return np.zeros(39, np.float32), dict(self.told)

    def step(self, action):
        self.left -= 1
        return np.ones(39, np.float32), 0.0, False, self.left == 0, dict(self.told)


def layout(tree):
    """Names, kinds and shapes of everything in an info."""
    if isinstance(tree, dict):
        return {name: layout(tree[name]) for name in sorted(tree)}
    return tree.dtype, tree.shape, tree.dtype == object and layout(tree[0])


def test_infos_are_laid_out_as_gymnasiums_own(envs, actions):
    theirs = SyncVectorEnv([Short] * NUM_ENVS, autoreset_mode=AutoresetMode.SAME_STEP)
    steps = [play(one, 0, actions[:LENGTH]) for one in (envs, theirs)]
    for ours, official in zip(*steps, strict=True):
        assert layout(ours[-1]) == layout(official[-1])
        for a, b in zip(ours[2:-1], official[2:-1], strict=True):
            assert layout(a) == layout(b)


def test_gymnasiums_wrappers_work_on_it(envs, actions):
    """Those that take episodes that end and begin within a step."""
    wrapped = RecordEpisodeStatistics(ClipReward(envs, max_reward=0.01))
    plain = play(envs, 4, actions[:LENGTH])
    episode = play(wrapped, 4, actions[:LENGTH])[-1][-1]["episode"]
    assert episode["l"].tolist() == [LENGTH] * NUM_ENVS
    total = np.sum([np.minimum(step[1], 0.01) for step in plain[1:]], axis=0)
    np.testing.assert_allclose(episode["r"], total, rtol=1e-6)


def test_what_is_returned_is_the_callers(envs, actions):
    obs, _ = envs.reset(seed=0)
    kept = obs.copy()
    seen, reward, *_ = envs.step(actions[0])
    np.testing.assert_array_equal(obs, kept)
    seen[:], reward[:] = 0.0, 0.0
    again, *_ = envs.step(actions[1])
    np.testing.assert_array_equal(again[:, 18:36].any(axis=1), True)


def test_without_tasks_each_reset_draws_them(single):
    envs = GymnasiumVectorEnv(single, 64)
    _, info = envs.reset(seed=0)
    assert 10 < info["task"].sum() < 54
    _, other = envs.reset(seed=1)
    assert (other["task"] != info["task"]).any()


@pytest.mark.usefixtures("untyped")
def test_mistakes_are_named(single, envs, actions):
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        GymnasiumVectorEnv(single, 0)
    for length in (0, HORIZON + 1):
        with pytest.raises(ValueError, match=f"in 1 to 500, got {length}"):
            GymnasiumVectorEnv(single, 2, episode_length=length)
    for tasks in (["reach"], "reach"):
        with pytest.raises(ValueError, match="a list of 2 names, one for every"):
            GymnasiumVectorEnv(single, 2, tasks)
    with pytest.raises(ValueError, match="unknown task 'raech'; did you mean 'reach'"):
        GymnasiumVectorEnv(single, 2, ["reach", "raech"])
    with pytest.raises(ValueError, match="env has no task 'sweep', only reach, push"):
        GymnasiumVectorEnv(single, 2, ["reach", "sweep"])
    with pytest.raises(RuntimeError, match="must be reset before its first step"):
        GymnasiumVectorEnv(single, 2).step(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="no options for a reset, got"):
        envs.reset(options={"goal": 1})
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match=f"seed must be .* got {seed}"):
            envs.reset(seed=seed)
    envs.reset(seed=0)
    for shape in ((4,), (2, 4), (3, 3)):
        with pytest.raises(ValueError, match=r"must have shape \(3, 4\), got"):
            envs.step(np.zeros(shape))
    for dtype in (str, object, bool):
        with pytest.raises(ValueError, match="must be numbers, got"):
            envs.step(np.zeros((3, 4), dtype))
    broken = actions[0].copy()
    broken[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"got nan in environments \[1\]"):
        envs.step(broken)
    obs, *_ = envs.step(np.full((3, 4), np.inf))  # clipped, as without the adapter
    assert np.isfinite(obs).all()
