"""Brax's own agents on the tasks: two updates of each."""

import jax
import numpy as np
import pytest

from jaxmeta.manipulation.env import ManipulationEnv
from jaxmeta.manipulation.physics import Physics
from jaxmeta.manipulation.training import supply_removed, wrap

# Compiling an agent with its environment takes minutes.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("untyped"),
]
FAST = Physics(timestep=0.0125, substeps=1)


@pytest.fixture(autouse=True)
def brax():
    """What Brax needs of JAX; it broadcasts ranks."""
    supply_removed()
    with jax.numpy_rank_promotion("allow"):
        yield


def test_ppo():
    from brax.training.agents.ppo import train as ppo

    env = ManipulationEnv(["reach", "push"], physics=FAST, one_hot=True)
    _, (_, params, _), metrics = ppo.train(
        environment=env,
        wrap_env_fn=wrap,
        num_timesteps=2 * 8 * 4 * 2,
        episode_length=20,
        num_envs=8,
        unroll_length=4,
        batch_size=8,
        num_minibatches=2,
        num_updates_per_batch=1,
        num_evals=2,
        num_eval_envs=4,
        max_devices_per_host=1,
    )
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
    assert np.isfinite(metrics["eval/episode_reward"])


def test_sac():
    from brax.training.agents.sac import train as sac

    env = ManipulationEnv(["reach"], physics=FAST)
    _, params, metrics = sac.train(
        environment=env,
        wrap_env_fn=wrap,
        num_timesteps=64,
        episode_length=20,
        num_envs=4,
        batch_size=8,
        grad_updates_per_step=1,
        min_replay_size=8,
        max_replay_size=1024,
        num_evals=2,
        num_eval_envs=4,
        max_devices_per_host=1,
    )
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
    assert np.isfinite(metrics["eval/episode_reward"])
