"""A run killed at any moment and started again ends as if it had not been."""

import random
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxmeta.core.testing import timeless_rows

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


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    (tmp_path / "config.py").write_text(CONFIG)
    return tmp_path


def kill_when(process, ready, log):
    while not ready():
        assert process.poll() is None, log.read_text()
        time.sleep(0.002)
    time.sleep(random.Random(process.pid).random() / 20)
    assert process.poll() is None, "it ended before it was killed"
    process.kill()
    process.wait()


def test_five_kills_leave_no_trace(workspace):
    log, killed = workspace / "log.txt", workspace / "killed"
    assert start(workspace, "whole").wait() == 0, log.read_text()
    # While it starts, in each third of its steps (where it trains, validates and
    # saves), and while it measures the trained model.
    written = lambda lines: lambda: count(killed / "metrics.jsonl") >= lines
    moments = [(killed / "config.json").exists]
    moments += [written(STEPS // 2 * part // 3 - 5) for part in (1, 2, 3)]
    moments += [written(STEPS // 2)]
    for moment in moments:
        kill_when(start(workspace, "killed"), moment, log)
    assert not (killed / "result.json").exists()
    assert start(workspace, "killed").wait() == 0, log.read_text()
    assert log.read_text().count("going on from step") == 4
    assert timeless_rows(killed) == timeless_rows(workspace / "whole")
    for name in np.load(killed / "test_tasks.npz"):
        np.testing.assert_array_equal(
            np.load(killed / "test_tasks.npz")[name],
            np.load(workspace / "whole" / "test_tasks.npz")[name],
        )
