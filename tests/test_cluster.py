"""Several processes are one program: the same numbers, and none outlives the others."""

import dataclasses
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxmeta.cli import main
from jaxmeta.cluster import join
from jaxmeta.core.lock import LOCK, locked
from jaxmeta.core.testing import timeless_rows
from jaxmeta.core.watchdog import HUNG, Watchdog
from jaxmeta.launch_job import PREEMPTED, Job
from jaxmeta.launcher import Local
from jaxmeta.options import ClusterOptions, UserError
from jaxmeta.supervise import free_port, run_together

CONFIG = '''"""Steps that take their time."""

import os
import time

import jax

from jaxmeta import Experiment, Optimizer, Parallel
from jaxmeta.core.experiment import Checkpointing, Evaluation
from jaxmeta.core.testing import SmokeHostSource, smoke_learner


DRAWN = []


class Slow(SmokeHostSource):
    def sample(self, key, slots, *, split):
        DRAWN.append(split)
        mine = os.environ.get("BOOM") == str(jax.process_index())
        if mine and DRAWN.count("train") == 20:
            raise KeyError("boom")
        time.sleep(float(os.environ.get("STEP_SECONDS", "0")))
        return super().sample(key, slots, split=split)


def get_config():
    return Experiment(
        learner=smoke_learner(),
        source=Slow(),
        optimizer=Optimizer(learning_rate=0.05),
        parallel=Parallel(deterministic=True),
        evaluation=Evaluation(
            every=10,
            num_validation_tasks=8,
            num_test_tasks=16,
            tasks_per_batch=8,
            checkpoint="best",
        ),
        checkpoint=Checkpointing(every=6),
        tasks_per_step=8,
        steps=30,
        log_every=2,
    )
'''
RESIDENT = """class Slow(SmokeHostSource):
    def read(self):
        return float(os.environ.get("DATA", "1"))


"""
PROGRAM = "import sys; from jaxmeta.cli import main; main(sys.argv[1:])"


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    (tmp_path / "config.py").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Pair:
    """Two processes that train together."""

    def __init__(
        self,
        workspace,
        *options,
        by_slurm=False,
        seconds="0.05",
        devices=2,
        program=PROGRAM,
        directories=(".", "."),
        **more,
    ):
        job = Job(config="config.py", run_dir="pair", overrides=options)
        port = free_port(range(61440, 65535) if by_slurm else (0,))
        processes = Local(port=port, devices=devices).processes(job)
        self.log = workspace / "log.txt"
        self.metrics = workspace / "pair" / "metrics.jsonl"
        self.processes = []
        for i, (environ, words) in enumerate(processes):
            if by_slurm:
                words = [w for w in words if not w.startswith(("--coord", "--proc"))]
                words = [w for w in words if not w.startswith("--num-processes")]
                environ |= {
                    "SLURM_JOB_ID": str(port - 61440),
                    "SLURM_STEP_NODELIST": "localhost",
                    "SLURM_NTASKS": "2",
                    "SLURM_PROCID": str(i),
                    "SLURM_LOCALID": str(i),
                }
            with self.log.open("a") as log:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-c", program, *words[1:]],
                        cwd=workspace / directories[i],
                        env=os.environ | environ | more | {"STEP_SECONDS": seconds},
                        stdout=log,
                        stderr=log,
                    )
                )

    def wait_for(self, lines):
        """Until so many lines of metrics are written."""
        count = lambda: (
            self.metrics.read_bytes().count(b"\n") if self.metrics.exists() else 0
        )
        while count() < lines:
            assert self.processes[0].poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.01)

    def ends(self, within=120.0):
        """The exit codes, within so many seconds of a machine that has time."""
        share = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        until = time.monotonic() + within * share
        try:
            return [p.wait(until - time.monotonic()) for p in self.processes]
        except subprocess.TimeoutExpired:
            raise AssertionError(self.log.read_text()[-3000:]) from None
        finally:
            for process in self.processes:
                process.kill()
                process.wait()


def test_two_processes_asked_to_end_killed_and_resumed_give_what_one_gives(workspace):
    main(["train", "config.py", "--run-dir", "alone"])
    expected = timeless_rows(workspace / "alone")

    pair = Pair(workspace)
    pair.wait_for(4)
    pair.processes[1].send_signal(signal.SIGTERM)
    assert pair.ends(within=5.0) == [PREEMPTED, PREEMPTED]
    assert "asked to end at step" in pair.log.read_text()
    stopped = timeless_rows(workspace / "pair")
    assert 4 <= len(stopped) < len(expected)

    pair = Pair(workspace)
    pair.wait_for(len(stopped) + 3)
    assert f"going on from step {stopped[-1]['step']}" in pair.log.read_text()
    pair.processes[1].kill()
    first, second = pair.ends(within=15.0)
    assert second == -signal.SIGKILL
    assert first != 0

    # One process reads what two have written.
    shutil.copytree(workspace / "pair", workspace / "alone again")
    main(["train", "config.py", "--run-dir", "alone again"])
    assert timeless_rows(workspace / "alone again") == expected

    # Where Slurm has put them they meet by themselves.
    assert Pair(workspace, by_slurm=True, seconds="0").ends() == [0, 0]
    # Bit for bit, on every step.
    assert timeless_rows(workspace / "pair") == expected
    ours, theirs = (
        np.load(workspace / name / "test_tasks.npz") for name in ("pair", "alone")
    )
    np.testing.assert_array_equal(ours["loss"], theirs["loss"])


@pytest.mark.parametrize(
    ("what", "option", "environ"),
    [
        ("experiment", ["--seed", "7"], {}),
        pytest.param("data", [], {"DATA": "7"}, marks=pytest.mark.slow),
    ],
)
def test_processes_that_differ_say_so(what, option, environ, workspace):
    if what == "data":
        text = re.sub(r"class Slow.*?\n\n\n", RESIDENT, CONFIG, flags=re.DOTALL)
        (workspace / "config.py").write_text(text.replace("SmokeHost", "Smoke"))
    pair = Pair(workspace)
    other = pair.processes[1]
    other.kill()
    other.wait()
    environ = environ | {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    with pair.log.open("a") as log:
        pair.processes[1] = subprocess.Popen(
            [*other.args, *option], env=os.environ | environ, stdout=log, stderr=log
        )
    assert 2 in pair.ends()
    assert f"the {what} of process 1 differs from that of process 0" in (
        pair.log.read_text()
    )
    assert not pair.metrics.exists()


def test_what_the_first_alone_finds_wrong_ends_all(workspace):
    """It holds the lock of the run directory; the other knows nothing of it."""
    (workspace / "pair").mkdir()
    with locked(workspace / "pair"):
        first, second = Pair(workspace).ends(within=60.0)
    assert first == 2
    assert second != 0
    assert f"in use by process {os.getpid()} on" in (workspace / "log.txt").read_text()


@pytest.mark.parametrize("victim", ["0", "1"])
def test_a_defect_in_one_ends_both(victim, workspace):
    """By itself JAX would have it wait for the other, and the other for it."""
    pair = Pair(workspace, BOOM=victim)
    codes = pair.ends(within=60.0)
    assert codes[int(victim)] == 1
    assert codes[1 - int(victim)] != 0
    assert "KeyError: 'boom'" in pair.log.read_text()


def test_code_beside_the_library_counts(workspace):
    (workspace / "elsewhere").mkdir()
    text = (workspace / "config.py").read_text()
    (workspace / "elsewhere" / "config.py").write_text(f"{text}\n\n# Later.\n")
    pair = Pair(workspace, directories=(".", "elsewhere"))
    assert 2 in pair.ends(within=60.0)
    assert "the code of process 1 differs" in pair.log.read_text()


def test_a_run_directory_that_only_one_sees_ends_both(workspace):
    (workspace / "elsewhere").mkdir()
    shutil.copy(workspace / "config.py", workspace / "elsewhere")
    sooner = "import jaxmeta.core.lock as lock; lock.SECONDS = 1.0; "
    pair = Pair(workspace, program=sooner + PROGRAM, directories=(".", "elsewhere"))
    assert pair.ends(within=60.0) == [2, 2]
    said = pair.log.read_text()
    assert "another process does not see what process 0 writes to pair" in said
    assert "this process does not see what process 0 writes to pair" in said
    assert not pair.metrics.exists()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_either_may_be_killed_five_times(workspace, victim):
    main(["train", "config.py", "--run-dir", "alone"])
    for time_ in range(5):
        pair = Pair(workspace)
        pair.wait_for(3 + 2 * time_)
        pair.processes[victim].kill()
        codes = pair.ends(within=15.0)
        assert codes[victim] == -signal.SIGKILL
        assert codes[1 - victim] not in (0, -signal.SIGKILL)
    assert Pair(workspace, seconds="0").ends() == [0, 0]
    assert timeless_rows(workspace / "pair") == timeless_rows(workspace / "alone")


@pytest.mark.slow
def test_parameters_in_shares_of_two_processes_are_killed_and_go_on(workspace):
    config = workspace / "config.py"
    config.write_text(config.read_text().replace("deterministic=True", ""))
    main(["train", "config.py", "--run-dir", "alone"])
    shares = ("--parallel.params-shards", "4")
    pair = Pair(workspace, *shares)
    pair.wait_for(8)
    pair.processes[1].kill()
    assert 0 not in pair.ends(within=15.0)
    assert Pair(workspace, *shares, seconds="0").ends() == [0, 0]
    assert "going on from step" in pair.log.read_text()
    found, expected = (timeless_rows(workspace / name) for name in ("pair", "alone"))
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.slow
def test_one_process_of_eight_devices_goes_on_where_two_of_four_were_killed(workspace):
    eight = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}

    def alone(name):
        words = ["train", "config.py", "--run-dir", name]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words],
            env=eight,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout + done.stderr

    alone("alone")
    pair = Pair(workspace, devices=4)
    pair.wait_for(8)
    pair.processes[0].kill()
    pair.ends(within=15.0)
    assert "going on from step" in alone("pair")
    assert timeless_rows(workspace / "pair") == timeless_rows(workspace / "alone")


@pytest.mark.slow
def test_a_process_that_is_stopped_ends_the_other(workspace):
    pair = Pair(workspace, "--watchdog", "5")
    pair.wait_for(3)
    pair.processes[1].send_signal(signal.SIGSTOP)
    assert pair.processes[0].wait(60) == HUNG
    pair.processes[1].kill()
    pair.processes[1].wait()
    assert "no step finished for 5 s" in pair.log.read_text()


def test_a_run_that_is_asked_to_end_goes_on_as_if_it_had_not_been(workspace):
    text = CONFIG.replace(
        'time.sleep(float(os.environ.get("STEP_SECONDS", "0")))',
        "if len(DRAWN) == END_AT:\n            os.kill(os.getpid(), 15)",
    ).replace("DRAWN = []", "DRAWN, END_AT = [], None")
    (workspace / "config.py").write_text(text)
    main(["train", "config.py", "--run-dir", "whole"])
    (workspace / "config.py").write_text(
        text.replace("END_AT = [], None", "END_AT = [], 9")
    )
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        main(["train", "config.py", "--run-dir", "ended"])
    assert stop.value.code == PREEMPTED
    assert signal.getsignal(signal.SIGTERM) is before
    assert (
        2
        < len(timeless_rows(workspace / "ended"))
        < len(timeless_rows(workspace / "whole"))
    )
    (workspace / "config.py").write_text(text)
    main(["train", "config.py", "--run-dir", "ended"])
    assert timeless_rows(workspace / "ended") == timeless_rows(workspace / "whole")


# What needs no second process.


def test_a_run_directory_is_of_one_job(workspace, capsys):
    (workspace / "taken").mkdir()
    with locked(workspace / "taken"), pytest.raises(SystemExit) as stop:
        main(["train", "config.py", "--run-dir", "taken"])
    assert stop.value.code == 2
    assert f"in use by process {os.getpid()} on" in capsys.readouterr().err
    (workspace / "table").mkdir()
    with locked(workspace / "table"), pytest.raises(SystemExit) as stop:
        main(["reproduce", "msr-rotation", "--quick", "--run-dir", "table"])
    assert stop.value.code == 2
    assert f"in use by process {os.getpid()} on" in capsys.readouterr().err
    # Nothing is left behind that would have to be removed.
    assert (workspace / "taken" / LOCK).exists()
    with locked(workspace / "taken"):
        pass


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coordinator": "a:1"}, "go together"),
        ({"num_processes": 2, "process_id": 0}, "go together"),
        (("nowhere", 2, 0), "must be HOST:PORT, such as .*'nowhere'"),
        (("a:99999", 2, 0), "must be HOST:PORT"),
        (("a:1", 2, 2), "--process-id must be from 0 to 1.*got 2 of 2"),
        (("a:1", 0, 0), "--num-processes must be >= 1, got 0"),
    ],
)
def test_where_they_meet_must_make_sense(given, message):
    if isinstance(given, tuple):
        names = (field.name for field in dataclasses.fields(ClusterOptions))
        given = dict(zip(names, given, strict=False))
    with pytest.raises(UserError, match=message):
        join(ClusterOptions(**given))


def test_a_port_that_is_taken_is_named():
    """JAX would crash."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        where = {"num_processes": 2, "process_id": 0}
        options = ClusterOptions(coordinator=f"127.0.0.1:{port}", **where)
        with pytest.raises(UserError, match=rf"cannot have port {port} .*in use"):
            join(options)


def test_alone_there_is_nobody_to_meet(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    join(ClusterOptions())


def test_the_watchdog_ends_what_hangs_and_nothing_else(monkeypatch, capsys):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    dog = Watchdog(0.2, last=3)
    dog.resume(0)
    dog.write(1, {})
    dog.write(3, {})  # the last step, after which anything may take its time
    time.sleep(0.5)
    assert ended == []
    dog = Watchdog(0.2, last=3)
    dog.write(1, {})
    dog._thread.join(5.0)
    assert ended == [HUNG]
    assert "no step finished for 0.2 s after step 1" in capsys.readouterr().err


def test_the_first_failure_is_the_exit_code(monkeypatch):
    monkeypatch.setattr("jaxmeta.supervise.GRACE_SECONDS", 0.2)
    sleeps = ({}, [sys.executable, "-c", "import time; time.sleep(60)"])
    dies = ({}, [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    started = time.monotonic()
    assert run_together([sleeps, dies]) == 128 + 9
    assert time.monotonic() - started < 30


def test_processes_are_started_without_proxies(monkeypatch, capfd):
    monkeypatch.setenv("HTTPS_PROXY", "http://nowhere")
    shows = "import os; print(os.environ.get('HTTPS_PROXY'), os.environ['MINE'])"
    words = [sys.executable, "-c", f"print('1 of the connected peer ranks'); {shows}"]
    assert run_together([({"MINE": "yes"}, words)]) == 0
    assert capfd.readouterr().out == "None yes\n"
