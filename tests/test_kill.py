"""A run killed at any moment and started again ends as if it had not been."""

import json
import random
import subprocess
import sys
import time

import numpy as np
import pytest

STEPS = 80
CONFIG = f'''"""Many checkpoints, little else."""

from jaxmeta import Experiment, Optimizer
from jaxmeta.core.experiment import Checkpointing, Evaluation
from jaxmeta.core.testing import smoke_learner, smoke_source


def get_config():
    return Experiment(
        learner=smoke_learner(),
        source=smoke_source(),
        optimizer=Optimizer(learning_rate=0.01),
        evaluation=Evaluation(
            every=8,
            num_validation_tasks=8,
            num_test_tasks=16,
            tasks_per_batch=8,
            checkpoint="best",
        ),
        checkpoint=Checkpointing(every=2),
        tasks_per_step=8,
        steps={STEPS},
        log_every=2,
    )
'''
PROGRAM = "import sys; from jaxmeta.cli import main; main(sys.argv[1:])"


def start(directory, name):
    argv = [sys.executable, "-c", PROGRAM, "train", str(directory / "config.py")]
    with (directory / "log.txt").open("a") as log:
        return subprocess.Popen(
            [*argv, "--run-dir", str(directory / name)], stdout=log, stderr=log
        )


def count(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def rows(directory):
    """The metrics, without what is allowed to differ."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in row.items() if not name.startswith("time/")}
        for row in map(json.loads, lines)
    ]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    (tmp_path / "config.py").write_text(CONFIG)
    return tmp_path


def test_five_kills_leave_no_trace(workspace):
    assert start(workspace, "whole").wait() == 0, (workspace / "log.txt").read_text()
    rng, metrics = random.Random(0), workspace / "killed" / "metrics.jsonl"
    lines = STEPS // 2
    for kill in range(5):
        process = start(workspace, "killed")
        # Somewhere in the next sixth of the run: while it trains, validates or saves.
        target = int(lines * (kill + rng.random()) / 6) + 1
        while count(metrics) < target:
            assert process.poll() is None, (workspace / "log.txt").read_text()
            time.sleep(0.002)
        time.sleep(rng.random() / 20)
        assert process.poll() is None, "it ended before it was killed"
        process.kill()
        process.wait()
    assert start(workspace, "killed").wait() == 0, (workspace / "log.txt").read_text()
    assert (workspace / "log.txt").read_text().count("going on from step") == 5
    assert rows(workspace / "killed") == rows(workspace / "whole")
    whole = np.load(workspace / "whole" / "test_tasks.npz")
    killed = np.load(workspace / "killed" / "test_tasks.npz")
    np.testing.assert_array_equal(killed["loss"], whole["loss"])
