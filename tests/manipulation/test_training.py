"""Brax's own agents on the tasks: two updates of each."""

import jax
import numpy as np
import pytest

from jaxmeta.core.testing import compilations
from jaxmeta.manipulation.env import ManipulationEnv
from jaxmeta.manipulation.physics import Physics
from jaxmeta.manipulation.training import BRAX_AXIS, supply_removed, wrap

pytestmark = [
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


def test_what_is_put_on_devices_lies_as_what_comes_back():
    from brax.training.agents.ppo import train as ppo
    from brax.training.agents.sac import train as sac

    assert {ppo._PMAP_AXIS_NAME, sac._PMAP_AXIS_NAME} == {BRAX_AXIS}
    devices = jax.local_devices()
    start = jax.device_put_replicated({"weights": np.ones(3, np.float32)}, devices)
    update = jax.pmap(lambda tree: jax.tree.map(jax.numpy.sin, tree), BRAX_AXIS)
    update(start)
    with compilations() as compiled:
        update(update(start))
    assert compiled == []
    assert start["weights"].shape == (len(devices), 3)


# Compiling an agent with its environment takes minutes.
@pytest.mark.slow
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


@pytest.mark.slow
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
