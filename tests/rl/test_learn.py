"""Training an agent: its run directory, going on, and what its result is."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.fit import complete
from jaxmeta.core.progress import Progress
from jaxmeta.core.run import Run
from jaxmeta.core.writers import JsonlWriter, read_jsonl
from jaxmeta.manipulation.physics import Physics
from jaxmeta.manipulation.suites import Suite
from jaxmeta.rl.control import Control
from jaxmeta.rl.learn import learn, measure, play
from jaxmeta.rl.ppo import Ppo

FAST = Physics(timestep=0.0125, substeps=1)
CONTROL = Control(
    suite=Suite(name="MT1", task="reach"),
    agent=Ppo(num_envs=4, batch_size=4, num_minibatches=1, unroll_length=5),
    physics=FAST,
    steps=20,
    evaluations=1,
    episodes=4,
)


def straight(obs):
    """Towards the goal."""
    return jnp.append(jnp.clip(10.0 * (obs[36:39] - obs[:3]), -1.0, 1.0), 0.0)


def test_success_is_of_any_step_and_return_of_all():
    env = CONTROL.env("test")
    goals = CONTROL.suite.goals("test")[0, :3]
    good = play(env, straight, goals, jnp.zeros(3, int))
    assert good["success"].tolist() == [1.0, 1.0, 1.0]
    assert (good["return"] > 3000).all()
    away = lambda obs: -straight(obs)
    bad = play(env, away, goals, jnp.zeros(3, int))
    assert bad["success"].tolist() == [0.0, 0.0, 0.0]
    assert (bad["return"] < good["return"]).all()


@pytest.mark.slow
def test_a_run_of_ppo(tmp_path):
    """Twice as long, interrupted half way by its number of steps."""
    half = Run.open(tmp_path / "run", CONTROL)
    writer = JsonlWriter(half.metrics_path)
    quiet = lambda: Progress(1, quiet=True)
    learn(half, writer, quiet())
    assert half.latest.steps() == [20]
    whole = dataclasses.replace(CONTROL, steps=40, evaluations=2)
    run = Run(tmp_path / "run", whole)
    found = complete(run, writer, quiet(), learn, measure)
    writer.close()
    rows = read_jsonl(run.metrics_path)
    assert [row["step"] for row in rows] == [20, 40]
    assert all(0 <= row["validation/success"] <= 1 for row in rows)
    assert run.latest.steps() == [20, 40]
    assert found["success"].count == 50
    assert json.loads(run.result_path.read_text())["return"]["count"] == 50
    first, second = (
        run.latest.restore(CONTROL.agent.init(CONTROL.env("train"), 0))
        for _ in range(2)
    )
    assert first is not None
    assert second is not None
    same = jax.tree.map(np.array_equal, first[0], second[0])
    assert all(jax.tree.leaves(same))
    fresh = CONTROL.agent.init(CONTROL.env("train"), 0)
    moved = jax.tree.map(lambda a, b: not np.allclose(a, b), first[0][1:], fresh[1:])
    assert any(jax.tree.leaves(moved))
