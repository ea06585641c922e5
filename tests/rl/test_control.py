"""What can be wrong with a run of an agent, and what its commands say."""

import dataclasses
import functools
import math
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.cli import main
from jaxmeta.core.config import from_json, to_json
from jaxmeta.core.preemption import PreemptedError
from jaxmeta.core.progress import Progress
from jaxmeta.core.testing import assert_trees_close, timeless_rows
from jaxmeta.core.writers import JsonlWriter
from jaxmeta.manipulation.suites import Suite
from jaxmeta.rl.control import Control
from jaxmeta.rl.ppo import Ppo

REACH = Suite(name="MT1", task="reach")


def test_a_control_is_json_and_back():
    control = Control(suite=REACH, agent=Ppo(policy_layers=(8,)), steps=7)
    assert from_json(to_json(control)) == control


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Control(suite=REACH, steps=0), "steps must be >= 1, got 0"),
        (
            lambda: Control(suite=REACH, checkpoint="first"),
            "checkpoint must be 'latest' or 'best', got 'first'",
        ),
        (lambda: Control(suite=REACH, seed=-1), "seed must be from 0 .* got -1"),
        (
            lambda: Ppo(num_envs=3, batch_size=4, num_minibatches=2),
            r"multiple of num_envs \(3\), got 4 \* 2",
        ),
        (lambda: Ppo(num_epochs=0), "num_epochs must be >= 1, got 0"),
        (
            lambda: Ppo(batch_size=-64, num_minibatches=-16),
            "batch_size must be >= 1, got -64",
        ),
        (
            lambda: Ppo(policy_layers=(64, 0)),
            r"policy_layers must be numbers >= 1, got \(64, 0\)",
        ),
        (lambda: Ppo(learning_rate=0.0), "learning_rate must be positive .* got 0.0"),
        (lambda: Ppo(clipping=-0.2), "clipping must be positive .* got -0.2"),
        (lambda: Ppo(reward_scale=math.inf), "reward_scale must be .* finite, got inf"),
        (lambda: Ppo(max_grad_norm=math.nan), "max_grad_norm must be .* got nan"),
        (lambda: Ppo(desired_kl=0.0), "desired_kl must be positive .* got 0.0"),
        (
            lambda: Ppo(desired_kl=0.01, learning_rate=0.1),
            "in 1e-5 to 1e-2 where desired_kl is given, got 0.1",
        ),
        (lambda: Ppo(entropy_cost=-1e-3), "entropy_cost must be >= 0 .* got -0.001"),
        (lambda: Ppo(discount=1.5), r"discount must be in \[0, 1\], got 1.5"),
        (lambda: Ppo(gae_lambda=math.nan), r"gae_lambda must be in \[0, 1\], got nan"),
    ],
)
def test_mistakes_are_named(make, message, untyped):
    with pytest.raises(ValueError, match=message):
        make()


def test_environments_divide_over_the_devices():
    devices = jax.local_device_count()
    for name, agent in (
        ("num_envs", Ppo(num_envs=2, batch_size=4, num_minibatches=1)),
        ("batch_size", Ppo(num_envs=4, batch_size=2, num_minibatches=2)),
    ):
        message = f"agent.{name} must be a multiple of the {devices} devices, got 2"
        with pytest.raises(ValueError, match=message):
            Control(suite=REACH, agent=agent).check()


@pytest.mark.parametrize(
    ("desired_kl", "schedule"), [(None, None), (0.02, "ADAPTIVE_KL")]
)
def test_the_learning_rate_follows_a_divergence(monkeypatch, desired_kl, schedule):
    told = {}
    train = lambda env, **settings: told.update(settings) or (None, "params", None)
    monkeypatch.setattr("jaxmeta.rl.ppo.ppo.train", train)
    agent, env = Ppo(desired_kl=desired_kl), Control(suite=REACH).env("train")
    settings = {"steps": 1, "evaluations": 1, "episodes": 1, "seed": 0}
    agent.train(env, **settings, start=None, on_evaluation=lambda *_: None)
    assert told["learning_rate_schedule"] == schedule
    assert desired_kl is None or told["desired_kl"] == desired_kl


def test_more_goals_than_there_are(tmp_path):
    with pytest.raises(ValueError, match="has 50 official goals, got num_tasks 51"):
        Control(suite=REACH).measure(tmp_path, 51)


def test_only_multi_task_suites_tell_the_task():
    several, hidden = Suite(name="MT10"), Suite(name="ML10")
    assert Control(suite=REACH).env("train").observation_size == 39
    assert Control(suite=several).env("train").observation_size == 49
    assert Control(suite=hidden).env("train").observation_size == 39
    assert Control(suite=hidden).env("test").hidden_goal


def test_size_is_told_before_training():
    agent = Ppo(policy_layers=(8,))
    lines = Control(suite=REACH, agent=agent, steps=30_000).estimate()
    policy = 40 * 8 + 9 * 8  # mean and deviation of four actions
    value = 40 * 128 + 129 * 128 + 129
    assert lines == [
        f"parameters: {policy + value:,}",
        "updates: 2 of 20,480 steps",
    ]


@pytest.mark.parametrize(
    ("steps", "evaluations", "updates"),
    [(1, 10, 1), (50_000, 10, 3), (2_000_000, 10, 100), (2_000_000, 1, 98)],
)
def test_as_many_updates_before_each_evaluation(steps, evaluations, updates):
    control = Control(suite=REACH, steps=steps, evaluations=evaluations)
    assert control.estimate()[1] == f"updates: {updates} of 20,480 steps"


def test_a_run_that_is_asked_to_end_goes_on_from_the_next_evaluation(
    tmp_path, monkeypatch
):
    """Of an agent that learns nothing, whose first evaluation is the best."""
    told = []
    more = functools.partial(jax.tree.map, lambda x: x + 1)

    def train(self, env, *, steps, seed, start, on_evaluation, **settings):
        told.append((steps, seed, start))
        params = self.init(env, seed)
        for step in (8, 16):
            if len(told) == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            params = more(params)
            metrics = {
                "time/steps_per_second": 1.0,
                "validation/return": 8.0 - step,
            }
            on_evaluation(step, params, metrics)

    monkeypatch.setattr(Ppo, "train", train)
    control = Control(suite=REACH, agent=Ppo(policy_layers=(8,)), steps=20)
    writer = JsonlWriter(tmp_path / "metrics.jsonl")
    quiet = Progress(control.steps, quiet=True)
    with pytest.raises(PreemptedError, match=r"asked to end at step 8\. The same"):
        control._train(tmp_path, writer, quiet)
    control._train(tmp_path, writer, quiet)
    writer.close()
    first, second = told
    assert (first, second[:2]) == ((20, 0, None), (12, 8))
    env = control.env("test")
    of_first = more(control.agent.init(env, 0))
    assert_trees_close(second[2], of_first)
    act = control.agent.policy(env, of_first)(seen := jnp.ones(39))
    best = dataclasses.replace(control, checkpoint="best")
    np.testing.assert_array_equal(best.policy(tmp_path, env)(seen), act)
    assert not np.allclose(control.policy(tmp_path, env)(seen), act)
    assert [row["step"] for row in timeless_rows(tmp_path)] == [8, 16, 24]


def test_dry_run_and_diagnostics(capsys):
    main(["train", "manipulation/reach_ppo", "--dry-run"])
    out = capsys.readouterr().out
    assert '"task": "reach"' in out
    assert "steps" in out.splitlines()[-1]
    with pytest.raises(SystemExit) as stop:
        main(["train", "manipulation/reach-ppo", "--diagnostics"])
    assert stop.value.code == 2
    assert "no gradients of several tasks" in capsys.readouterr().err
