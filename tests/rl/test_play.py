"""Episodes of a policy, and a run of PPO that goes on where it stopped."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.config import to_json
from jaxmeta.core.fit import complete
from jaxmeta.core.progress import Progress
from jaxmeta.core.run import Run, write_json
from jaxmeta.core.writers import JsonlWriter, read_jsonl
from jaxmeta.manipulation.physics import Physics
from jaxmeta.manipulation.suites import Suite
from jaxmeta.report.render import render
from jaxmeta.rl.control import Control
from jaxmeta.rl.play import play
from jaxmeta.rl.ppo import Ppo

FAST = Physics(timestep=0.0125, substeps=1)
CONTROL = Control(
    suite=Suite(name="MT1", task="reach"),
    agent=Ppo(
        num_envs=4, batch_size=4, num_minibatches=1, unroll_length=5, desired_kl=0.01
    ),
    physics=FAST,
    steps=20,
    evaluations=1,
    episodes=4,
)


def straight(obs):
    """Towards the goal."""
    return jnp.append(jnp.clip(10.0 * (obs[36:39] - obs[:3]), -1.0, 1.0), 0.0)


@pytest.mark.slow
def test_success_is_of_any_step_and_return_of_all():
    env = CONTROL.env("test")
    goals = CONTROL.suite.goals("test")[0, :3]
    good = play(env, straight, goals, jnp.zeros(3, int), keep=True)
    assert good.solved.tolist() == [True, True, True]
    np.testing.assert_allclose(good.states.info["play"].vector[0], goals)
    assert (good.total > 3000).all()
    away = lambda obs: -straight(obs)
    bad = play(env, away, goals, jnp.zeros(3, int))
    assert bad.solved.tolist() == [False, False, False]
    assert (bad.total < good.total).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:episode.gif is left out")
def test_a_run_of_ppo(tmp_path):
    """Half of it, then the whole."""

    def perform(control):
        run = Run(tmp_path / "run", control)
        run.directory.mkdir(exist_ok=True)
        write_json(run.config_path, to_json(control))
        writer = JsonlWriter(run.metrics_path)
        found = complete(run, writer, Progress(1, quiet=True))
        writer.close()
        return run, found

    run, _ = perform(CONTROL)
    run.result_path.unlink()
    run, found = perform(dataclasses.replace(CONTROL, steps=40, evaluations=2))
    rows = read_jsonl(run.metrics_path)
    assert [row["step"] for row in rows] == [20, 40]
    latest = run.directory / "checkpoints" / "latest"
    assert all(0 <= row["validation/success"] <= 1 for row in rows)
    assert sorted(p.name for p in latest.glob("[0-9]*")) == ["20", "40"]
    assert found["success"].count == 50
    assert json.loads(run.result_path.read_text())["return"]["count"] == 50
    agent, env = run.experiment.agent, run.experiment.env("test")
    obs = jnp.zeros((1, 39)).at[0, 36].set(0.1)
    ours = run.experiment.policy(run.directory, env)(obs[0])
    fresh = agent.policy(env, agent.init(env, 0))(obs[0])
    assert np.abs(ours).max() <= 1
    assert not np.allclose(ours, fresh)
    again = run.experiment.measure(run.directory, 3)
    assert len(again["success"]) == 3
    assert "Ppo on Suite (name MT1, task reach)" in render(run.directory)
    assert (run.directory / "curves.png").is_file()
    assert jax.tree.all(jax.tree.map(np.isfinite, found))
