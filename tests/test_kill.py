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


def kill_when(process, ready, log, within=0.05):
    while not ready():
        assert process.poll() is None, log.read_text()
        time.sleep(0.0005)
    time.sleep(random.Random(process.pid).random() * within)
    assert process.poll() is None, "it ended before it was killed"
    process.kill()
    process.wait()


def saving_after(run, lines):
    """Whether a checkpoint is being written, so many lines of metrics later."""
    latest = run / "checkpoints" / "latest"
    return lambda: (
        count(run / "metrics.jsonl") >= lines
        and any("tmp" in path.name for path in latest.glob("*"))
    )


def assert_same_runs(killed, whole):
    assert timeless_rows(killed) == timeless_rows(whole)
    for name in np.load(killed / "test_tasks.npz"):
        np.testing.assert_array_equal(
            np.load(killed / "test_tasks.npz")[name],
            np.load(whole / "test_tasks.npz")[name],
        )


def test_seven_kills_leave_no_trace(workspace):
    log, killed = workspace / "log.txt", workspace / "killed"
    assert start(workspace, "whole").wait() == 0, log.read_text()
    # While it starts, five times while it saves, and while it measures the trained
    # model.
    kill_when(start(workspace, "killed"), (killed / "config.json").exists, log)
    for part in range(1, 6):
        saving = saving_after(killed, STEPS // 2 * part // 5 - 4)
        kill_when(start(workspace, "killed"), saving, log, within=0.005)
    all_steps = lambda: count(killed / "metrics.jsonl") >= STEPS // 2
    kill_when(start(workspace, "killed"), all_steps, log)
    assert not (killed / "result.json").exists()
    assert start(workspace, "killed").wait() == 0, log.read_text()
    assert log.read_text().count("going on from step") == 6
    assert_same_runs(killed, workspace / "whole")


@pytest.mark.slow
def test_twenty_kills_while_it_saves_are_no_bad_restore(workspace):
    log, killed = workspace / "log.txt", workspace / "killed"
    assert start(workspace, "whole").wait() == 0, log.read_text()
    for part in range(20):
        saving = saving_after(killed, 1 + STEPS // 2 * part // 25)
        kill_when(start(workspace, "killed"), saving, log, within=0.01)
    assert start(workspace, "killed").wait() == 0, log.read_text()
    assert log.read_text().count("going on from step") >= 15
    assert "damaged" not in log.read_text()
    assert_same_runs(killed, workspace / "whole")
