"""The step of the environment spread over four devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.parallel import map_tasks
from jaxmeta.manipulation.env import ManipulationEnv
from jaxmeta.manipulation.physics import Physics

NUM_ENVS, STEPS = 8, 20


@functools.cache
def played(backend):
    """What is seen at every step, and the last state."""
    fast = Physics(timestep=0.0125, substeps=1)
    env = ManipulationEnv(["push", "door-open"], physics=fast)
    tasks = jnp.arange(NUM_ENVS) % 2
    keys = jax.random.split(jax.random.key(0), NUM_ENVS)
    start = jax.jit(jax.vmap(env.reset_task))(keys, tasks)
    actions = np.random.default_rng(0).uniform(-1, 1, size=(STEPS, NUM_ENVS, 4))
    actions[..., 2] -= 0.5  # down, where things are

    advance = lambda _, state, action: env.step(state, action)
    step, state, made = jax.jit(map_tasks(advance, backend)), start, []
    for action in jnp.asarray(actions, jnp.float32):
        state = step((), state, action)
        made.append((state.obs, state.reward))
    obs, reward = (np.stack(x) for x in zip(*made, strict=True))
    return obs, reward, jax.device_get(state)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["pmap", "shard_map"])
def test_all_backends_give_the_same_numbers(backend):
    """The order of sums differs, by some 1e-7 m after twenty steps."""
    assert jax.device_count() == 4
    (obs, reward, state), (theirs, rewards, other) = played("vmap"), played(backend)
    # The opening is in tenths of a metre.
    np.testing.assert_allclose(theirs, obs, atol=2e-6)
    np.testing.assert_allclose(rewards, reward, atol=1e-5)
    ours, play = other.pipeline_state, state.info["play"]
    np.testing.assert_allclose(ours.qpos, state.pipeline_state.qpos, atol=1e-6)
    np.testing.assert_allclose(ours.qvel, state.pipeline_state.qvel, atol=1e-4)
    np.testing.assert_array_equal(other.info["play"].steps, play.steps)
    np.testing.assert_array_equal(other.info["play"].key, play.key)
    assert np.ptp(obs[-1, :, :3], axis=0).min() > 0.01  # they did different things
