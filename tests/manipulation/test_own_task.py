"""A task that the package has not, beside one that it has."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.manipulation.env import ManipulationEnv
from jaxmeta.manipulation.gym import GymnasiumVectorEnv
from jaxmeta.manipulation.hand import TIPS
from jaxmeta.manipulation.physics import Physics
from jaxmeta.manipulation.scene import At, Box, Geometry, placed
from jaxmeta.manipulation.task import Episode, ManipulationTask, Reward, complete

FAST = Physics(timestep=0.0125, substeps=1)
STEPS, GOAL = 12, 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Raise(ManipulationTask):
    """Raise the hand above a cube; `vector` is where the cube lies."""

    name = "raise"
    low = (-0.1, 0.6, 0.03)
    high = (0.1, 0.7, 0.03)
    goal_low, goal_high = low, (*high[:2], 0.3)
    geometry = Geometry(free=(Box((0.03, 0.03, 0.03), mass=0.2),))
    object_at = At("free")

    def place(self, vector):
        return placed(free=vector)

    def begin(self, vector, first, tcp):
        return Episode(vector.at[2].set(GOAL), first.object, tcp, jnp.zeros(3))

    def reward(self, now, episode, action):
        del action
        height = now.tcp[2] - episode.object[2]
        return Reward(height, {"height": height})

    def success(self, now, episode):
        return now.tcp[2] >= episode.target[2]


def test_a_task_of_ones_own_plays_beside_an_official_one():
    env = ManipulationEnv(["reach", Raise()], physics=FAST)
    keys, tasks = jax.random.split(jax.random.key(0), 2), jnp.array([0, 1])
    state = jax.jit(jax.vmap(env.reset_task))(keys, tasks)
    step, made = jax.jit(jax.vmap(env.step)), []
    up = jnp.tile(jnp.array([0.0, 0.0, 1.0, -1.0]), (2, 1))
    for _ in range(STEPS):
        state = step(state, up)
        made.append((state.obs, state.reward, state.metrics["success"]))
    obs, reward, success = (np.stack(x) for x in zip(*made, strict=True))
    # A puck and a cube lie there, of different heights; both sink in a little at first.
    np.testing.assert_allclose(obs[:, :, 6], [[0.02, 0.03]] * STEPS, atol=2e-3)
    height = obs[:, 1, 2] + TIPS[2]
    np.testing.assert_allclose(reward[:, 1], height - 0.03, atol=1e-4)
    np.testing.assert_allclose(obs[:, 1, 38], GOAL, atol=1e-6)
    np.testing.assert_array_equal(success[:, 1], reward[:, 1] + 0.03 >= GOAL)
    assert success[-1].tolist() == [0.0, 1.0]


def test_it_is_found_by_its_name():
    env = ManipulationEnv(["reach", Raise()], physics=FAST)
    envs = GymnasiumVectorEnv(env, 3, ["raise", "reach", "raise"])
    _, info = envs.reset(seed=0)
    assert info["task"].tolist() == [1, 0, 1]


def test_what_it_lacks_is_named(untyped, monkeypatch):
    class Bare(Raise):
        pass

    class Half(ManipulationTask):
        name = "half"
        place = begin = reward = success = Raise.place

    assert complete(Bare()).name == "raise"
    wanted = "Half must say its low, high, goal_low, goal_high, geometry, object_at"
    with pytest.raises(ValueError, match=wanted):
        ManipulationEnv([Half()])
    monkeypatch.setattr(Bare, "high", Raise.high[:2])
    with pytest.raises(ValueError, match=r"Bare must have as many .* got 3 and 2"):
        ManipulationEnv([Bare()])
    with pytest.raises(ValueError, match=r"as MyTask\(\) is, got <class .*Raise'>"):
        ManipulationEnv([Raise])


def test_it_needs_no_version_1_reward(untyped):
    env = ManipulationEnv([Raise()], physics=FAST, reward_version="v1")
    with pytest.raises(ValueError, match="raise has no version 1 reward"):
        jax.eval_shape(env.reset, jax.random.key(0))
