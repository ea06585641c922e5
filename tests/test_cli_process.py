"""What only a process of its own can show."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

CONFIG = '''"""A run whose disk fills up or whose loss blows up when told to."""

import dataclasses
import os
import resource

import jax
import optax

from jaxmeta import Experiment, Optimizer
from jaxmeta.core.experiment import Checkpointing, Evaluation
from jaxmeta.core.testing import SmokeHostSource, SmokeLearner

DRAWN = []


class Heavy(SmokeLearner):
    """Its checkpoints are larger than its metrics."""

    def init(self, key, example):
        params, state = super().init(key, example)
        return params | {"ballast": jax.random.normal(key, (4096,))}, state


class Filling(SmokeHostSource):
    """After some draws, files may not grow beyond so many bytes."""

    def sample(self, key, slots, *, split):
        DRAWN.append(key)
        if len(DRAWN) == int(os.environ.get("FULL_AFTER", "-1")):
            limit = int(os.environ["FULL_AT"])
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return super().sample(key, slots, split=split)


def transform(learning_rate):
    boundary = {int(os.environ.get("BLOW_UP_AT", "1000000")): 1e38}
    schedule = optax.piecewise_constant_schedule(learning_rate, boundary)
    return optax.chain(optax.scale_by_adam(), optax.scale_by_learning_rate(schedule))


def get_config():
    return Experiment(
        learner=Heavy(),
        source=Filling(),
        optimizer=Optimizer(transform=transform, learning_rate=0.01),
        evaluation=Evaluation(num_test_tasks=8, tasks_per_batch=8),
        checkpoint=Checkpointing(every=4),
        tasks_per_step=4,
        steps=60,
        log_every=2,
        max_skips=3,
    )
'''
PROGRAM = "import sys; from jaxmeta.cli import main; main(sys.argv[1:])"


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    # XLA's own log lines about its compilation cache are none of ours.
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    (tmp_path / "config.py").write_text(CONFIG)
    return tmp_path


def jaxmeta(*argv, **variables):
    """Runs a command to its end."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *argv],
        capture_output=True,
        text=True,
        env=os.environ | variables,
        timeout=300,
        check=False,
    )


def rows(directory):
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def steps(directory):
    return [row["step"] for row in rows(directory)]


@pytest.mark.parametrize("argv", [["--help"], ["list"]])
def test_answers_without_jax(argv):
    program = (
        "import sys; from jaxmeta.cli import main\n"
        f"main({argv})\n"
        "sys.stderr.write(' '.join({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "jaxmeta" in done.stdout or "msr-fc" in done.stdout
    loaded = set(done.stderr.split())
    assert "jaxmeta" in loaded
    assert not loaded & {"jax", "flax", "optax", "numpy", "matplotlib", "tensorflow"}


def test_console_script_is_installed():
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="jaxmeta")
    assert script.value == "jaxmeta.cli:main"


@pytest.mark.parametrize("argv", [["--help"], ["list"], ["list", "--help"]])
def test_closed_pipe_is_silent(argv):
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *argv],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write_end)
    assert done.returncode == 141
    assert done.stderr == ""


def test_full_disk_keeps_the_last_checkpoint(workspace):
    full = {"FULL_AFTER": "24", "FULL_AT": "6000"}
    done = jaxmeta("train", "config.py", "--run-dir", "run", **full)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    found = re.search(r"cannot write the checkpoint of step (\d+) to ", last)
    assert found
    intact = int(found.group(1)) - 4
    assert f"step {intact} is intact. Free some space" in last
    assert "Traceback" not in done.stderr

    # Another run finds the disk full at once.
    done = jaxmeta(
        "train", "config.py", "--run-dir", "run", FULL_AFTER="4", FULL_AT="9"
    )
    assert done.returncode == 2
    assert "File too large" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr

    done = jaxmeta("train", "config.py", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    assert f"going on from step {intact}\n" in done.stderr
    assert steps(workspace / "run") == list(range(2, 61, 2))


def test_loss_that_is_not_finite_exits_with_3(workspace):
    done = jaxmeta("train", "config.py", "--run-dir", "run", BLOW_UP_AT="13")
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert "not finite in 4 steps in a row" in last
    assert "step 14 in " in last  # of 18, without the last 4
    last = rows(workspace / "run")[-1]
    assert last["train/skipped"] == 1
    assert "train/loss" not in last
    assert "NaN" not in (workspace / "run" / "metrics.jsonl").read_text()
    kept = workspace / "run" / "checkpoints" / "latest"
    assert sorted(p.name for p in kept.iterdir() if p.name.isdigit()) == ["12", "14"]


def test_interrupted_run_goes_on(workspace):
    argv = ["train", "config.py", "--run-dir", "run", "--steps", "5000"]
    # A shell's background job is started with the signal ignored.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{heed}; {PROGRAM}", *argv],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("10/5000"):
                process.send_signal(signal.SIGINT)
                break
        last = process.stderr.read().splitlines()[-1]
    assert process.returncode == 130
    assert last == (
        "jaxmeta train: interrupted. The same command goes on from the last checkpoint."
    )
    assert (workspace / "run" / "card.json").is_file()


def test_nobody_watches_a_run(workspace):
    """Training goes on when stderr is closed; the result goes nowhere."""
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "train", "config.py", "--run-dir", "run"],
        stdout=write_end,
        stderr=write_end,
    )
    os.close(write_end)
    while b"2/60" not in os.read(read_end, 1000):
        time.sleep(0.01)
    os.close(read_end)
    assert process.wait() == 141
    assert (workspace / "run" / "result.json").is_file()


TABLE = '''"""Two cells of a second each; one blows up when told to."""

import dataclasses
import os

from jaxmeta.core.table import Cell, Table
from jaxmeta.core.testing import smoke_learner, smoke_source
from jaxmeta import Experiment, Optimizer
from jaxmeta.core.experiment import Evaluation


def cell(row, rate):
    experiment = Experiment(
        learner=smoke_learner(),
        source=smoke_source(),
        optimizer=Optimizer(learning_rate=rate),
        evaluation=Evaluation(num_test_tasks=8, tasks_per_batch=8),
        tasks_per_step=8,
        steps=20,
        log_every=10,
    )
    seeded = lambda seed: dataclasses.replace(experiment, seed=seed)
    return Cell(row=row, column="x", experiment=seeded, protocol="20 steps")


def get_table(quick):
    rate = float(os.environ.get("RATE", "0.02"))
    return Table(
        title="Two",
        source="nobody",
        metric="loss",
        cells=(cell("a", 0.01), cell("b", rate)),
        seeds=2,
    )
'''


def reproduce(workspace, jobs, **environ):
    (workspace / "table.py").write_text(TABLE)
    options = (f"--run-dir=by{jobs}", f"--jobs={jobs}")
    return jaxmeta("reproduce", "table.py", *options, **environ)


def test_a_table_in_several_processes_is_the_same(workspace):
    values = []
    for jobs in (1, 2):
        done = reproduce(workspace, jobs)
        assert done.returncode == 0, done.stderr
        records = json.loads((workspace / f"by{jobs}" / "table.json").read_text())
        values.append([record["seed_values"] for record in records])
    assert values[0] == values[1]
    said = [line for line in done.stderr.splitlines() if line.endswith(": done")]
    expected = [f"{row}, x, seed {seed}: done" for row in "ab" for seed in (0, 1)]
    assert sorted(said) == expected


def test_a_process_of_a_table_that_fails_ends_it(workspace):
    done = reproduce(workspace, 2, RATE="1e38")
    assert done.returncode == 3, done.stderr
    assert "not finite" in done.stderr
    assert not (workspace / "by2" / "table.json").exists()


def test_jobs_below_one(workspace):
    done = reproduce(workspace, 0)
    assert done.returncode == 2
    assert "--jobs must be >= 1, got 0" in done.stderr
