import dataclasses
import json
import math
import re
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jaxmeta.cli import main
from jaxmeta.core.run import Run
from jaxmeta.options import UserError, parse
from jaxmeta.surgery import step_diagnostics
from jaxmeta.symmetry.augment import Augment

TINY = '''"""A run of a second."""

from jaxmeta import Experiment, Optimizer
from jaxmeta.core.experiment import Checkpointing, Evaluation
from jaxmeta.core.testing import smoke_learner, smoke_source

PAPER = "none"
COST = "1 s"


def get_config():
    return Experiment(
        learner=smoke_learner(),
        source=smoke_source(),
        optimizer=Optimizer(learning_rate=0.05),
        evaluation=Evaluation(
            every=4, num_validation_tasks=8, num_test_tasks=16, tasks_per_batch=8
        ),
        checkpoint=Checkpointing(every=2),
        tasks_per_step=8,
        steps=8,
        log_every=2,
    )
'''
CONFIGS = {
    "tiny.py": TINY,
    "syntax.py": "def get_config(:\n",
    "raises.py": "def get_config():\n    return 1 / 0\n",
    "at_import.py": "import no_such_module\ndef get_config():\n    pass\n",
    "neither.py": "x = 1\n",
    "other_type.py": "def get_config():\n    return {'lr': 1}\n",
    "needs_more.py": "def get_config(lr):\n    pass\n",
    "table_type.py": "def get_table(quick):\n    return [1]\n",
    "wrong.py": TINY.replace("smoke_source(),", "smoke_source(), sed=1,"),
}


def run(*argv):
    """The exit code of a command."""
    try:
        main(argv)
    except SystemExit as stop:
        return stop.code
    return 0


def contents(directory):
    return {p: p.is_file() and p.read_bytes() for p in sorted(directory.rglob("*"))}


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("JAXMETA_DATA_DIR", "JAXMETA_DOWNLOAD"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("COLUMNS", "80")
    for name, text in CONFIGS.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "a_file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "nonsense").mkdir()
    (tmp_path / "nonsense" / "card.json").write_text("[]")
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of `tiny.py`, to be copied."""
    directory = tmp_path_factory.mktemp("trained")
    (directory / "tiny.py").write_text(TINY)
    assert (
        run("train", str(directory / "tiny.py"), "--run-dir", f"{directory}/run") == 0
    )
    return directory / "run"


@pytest.fixture
def finished(trained, workspace):
    return shutil.copytree(trained, workspace / "run")


@pytest.fixture
def unfinished(finished):
    (finished / "result.json").unlink()
    (finished / "test_tasks.npz").unlink()
    return finished


def refused(capsys, argv, *named):
    """Asserts exit code 2 and at most two lines with these words, on stderr alone."""
    assert run(*argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert 1 <= err.count("\n") <= 2
    assert err.startswith("jaxmeta ")
    for word in named:
        assert word in err
    return err


TINY_CASES = {
    "misspelt field": ("--stepps 3", "--stepps", "--steps?"),
    "misspelt group": ("--optimiser.learning-rate 1", "--optimizer.learning-rate?"),
    "no such field": ("--foo 3", "--foo", "--help"),
    "stray word": ("foo", "foo", "--help"),
    "word for a number": ("--steps abc", "--steps", "'abc'"),
    "fraction for a whole number": ("--steps 1.5", "--steps", "'1.5'"),
    "no value": ("--steps", "'--steps'", "--help"),
    "unknown choice": ("--parallel.backend tpu", "'tpu'", "shard_map"),
    "learning rate nan": ("--optimizer.learning-rate nan", "nan", "positive"),
    "learning rate negative": ("--optimizer.learning-rate -1", "-1", "positive"),
    "learning rate infinite": ("--optimizer.learning-rate inf", "inf", "finite"),
    "clip norm zero": ("--optimizer.clip-norm 0", "clip_norm", "positive"),
    "no such function": ("--optimizer.transform optax:adamm", "optax:adamm"),
    "too many steps": ("--steps 3000000000", "steps", "2147483647"),
    "not an optimiser": ("--optimizer.transform optax:constant_schedule", "optax"),
    "no tasks": ("--tasks-per-step 0", "got 0", ">= 1"),
    "no steps": ("--steps 0", "got 0", ">= 1"),
    "no test tasks": ("--evaluation.num-test-tasks 0", "got 0", ">= 1"),
    "tasks that do not divide": ("--tasks-per-step 6", "got 6", "4 devices"),
    "test batch that does not": (
        "--evaluation.tasks-per-batch 6",
        "got 6",
        "4 devices",
    ),
    "too many devices": ("--parallel.num-devices 99", "got 99", "between 1 and 4"),
    "odd checkpoint interval": ("--checkpoint.every 3", "got 3", "multiple of"),
    "one checkpoint": ("--checkpoint.keep 1", "got 1", ">= 2"),
    "negative seed": ("--seed -1", "got -1", ">= 0"),
    "huge seed": ("--seed 99999999999999999999", "9999999999", "2**63"),
    "unknown metric": ("--evaluation.metric acuracy", "'acuracy'", "loss"),
    "run directory is a file": ("--run-dir a_file", "a_file", "another --run-dir"),
    "run directory below a file": ("--run-dir a_file/x", "a_file/x", "another"),
    "run directory in /proc": ("--run-dir /proc/x", "/proc/x", "another --run-dir"),
    "no data directory": ("--data-dir nowhere", "nowhere", "--data-dir"),
}


@pytest.mark.parametrize("name", TINY_CASES)
def test_bad_option(name, capsys, workspace):
    options, *named = TINY_CASES[name]
    before = contents(workspace)
    refused(capsys, ["train", "tiny.py", *options.split()], *named)
    assert contents(workspace) == before


def test_not_an_aggregator(capsys, workspace, untyped):
    argv = ["train", "tiny.py", "--optimizer.aggregator", "os:getcwd"]
    refused(capsys, argv, "optimizer.aggregator", "got getcwd", "mean_over_tasks")


CASES = {
    "unknown command": ("trian tiny.py", "'trian'", "'train'"),
    "no config": ("train", "which CONFIG", "jaxmeta list"),
    "flags before the config": ("train --steps 3 tiny.py", "comes first"),
    "unknown config": ("train msr-fcc", "'msr-fcc'", "'msr-fc'"),
    "unknown config, nothing near": ("train zzz", "'zzz'", "maml-omniglot"),
    "no such file": ("train nowhere.py", "nowhere.py", "jaxmeta list"),
    "table to train": ("train msr-translation", "jaxmeta reproduce msr-translation"),
    "experiment to reproduce": ("reproduce msr-fc", "jaxmeta train msr-fc"),
    "syntax error": ("train syntax.py", "syntax.py", "line 1", "correct"),
    "config that raises": ("train raises.py", "line 2", "ZeroDivisionError"),
    "config that imports nothing": ("train at_import.py", "line 1", "no_such_module"),
    "config without function": ("train neither.py", "neither.py", "get_config()"),
    "config of another type": ("train other_type.py", "{'lr': 1}", "Experiment"),
    "config that wants arguments": ("train needs_more.py", "needs_more.py", "'lr'"),
    "config with a wrong field": ("train wrong.py", "wrong.py", "line 12", "'sed'"),
    "table of another type": ("reproduce table_type.py", "[1]", "Table"),
    "unknown table": ("reproduce msr-translatoin", "'msr-translation'"),
    "unknown row": ("reproduce msr-rotation --rows Foo", "'Foo'", "MAML-Conv"),
    "no seeds": ("reproduce msr-rotation --seeds 0", "got 0", ">= 1"),
    "misspelt table flag": ("reproduce msr-rotation --quik", "--quik", "--quick?"),
    "table into a file": (
        "reproduce msr-rotation --run-dir a_file",
        "a_file",
        "another --run-dir",
    ),
    "one way": ("train maml-omniglot --source.ways 1", "got 1", ">= 2"),
    "too many ways": ("train maml-omniglot --source.ways 50", "got 50", "<= "),
    "more ways than outputs": (
        "train maml-omniglot --source.ways 8",
        "got 8",
        "learner.network",
    ),
    "too many shots": ("train maml-omniglot --source.shots 300", "300", "<= 174"),
    "missing data": (
        "train maml-omniglot --source.origin npz --data-dir empty",
        "empty/omniglot.npz",
        "--data-dir",
    ),
    "missing TFDS data": (
        "train maml-omniglot --source.origin tfds",
        "tfds",
        "--download",
    ),
    "image too small": ("train maml-omniglot --learner.network.num-blocks 6", "64"),
    "the flag's nearest": (
        "train msr-fc --learner.inner-step 3",
        "--learner.inner-step",
        "Did you mean --learner.inner-steps?",
    ),
    "outputs that broadcast": ("train msr-fc --learner.network.features 1", "68"),
    "data set seed": ("train msr-fc --source.seed -1", "seed", "got -1"),
    "data directory without the file": (
        "train maml-omniglot --data-dir empty",
        "omniglot.npz",
        "empty",
        "--source.origin digits",
    ),
    "table into nonsense": (
        "reproduce msr-rotation --run-dir nonsense",
        "nonsense",
        "another",
    ),
    "shapes that do not fit": ("train msr-fc --learner.network.features 60", "60"),
    "evaluate nothing": ("evaluate nowhere", "nowhere", "jaxmeta train"),
    "evaluate no run": ("evaluate empty", "empty", "config.json"),
    "evaluate without run": ("evaluate", "PATH", "--help"),
    "evaluate no tasks": ("evaluate empty --num-tasks 0", "got 0", "from 1"),
    "evaluate too many tasks": (
        "evaluate empty --num-tasks 10000000000",
        "got 10000000000",
        "2147483647",
    ),
    "report nothing": ("report", "which RUN"),
    "report no run": ("report empty", "empty", "card.json"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_command(name, capsys, workspace):
    command, *named = CASES[name]
    before = contents(workspace)
    refused(capsys, command.split(), *named)
    assert contents(workspace) == before


def corrupt(path):
    path.write_bytes(b"PK\x03\x04 but no archive")


def truncated(path):
    np.savez(path, images=np.zeros((9, 4, 28, 28), np.uint8), char_id=np.arange(1, 10))
    path.write_bytes(path.read_bytes()[:2000])


def pickled(path):
    np.savez(path, images=np.array([{}], object), char_id=np.arange(1, 10))


@pytest.mark.parametrize("damage", [corrupt, truncated, pickled])
def test_damaged_data_file(damage, capsys, workspace):
    damage(workspace / "empty" / "omniglot.npz")
    before = contents(workspace)
    refused(
        capsys, ["train", "maml-omniglot", "--data-dir", "empty"], "empty/omniglot.npz"
    )
    assert contents(workspace) == before


def test_shots_beyond_the_class(capsys, workspace):
    ids = np.r_[1:7, 27:33, 1300:1306].astype(np.uint16)
    images = np.zeros((18, 20, 28, 28), np.uint8)
    np.savez(workspace / "empty" / "omniglot.npz", images=images, char_id=ids)
    argv = "train maml-omniglot --data-dir empty --source.shots 30"
    refused(capsys, argv.split(), "got 30 + 5", "<= 20")
    assert not (workspace / "runs").exists()


def test_ranges_out_of_order(capsys, workspace):
    argv = "train msr-omniglot --source.augment.area 1.0 0.5"
    refused(capsys, argv.split(), "source.augment", "in order", "got 1.0 and 0.5")


def test_a_function_is_given_by_its_name_or_its_fields():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Settings:
        augment: Callable[..., Any] | None = None

    def given(flags, augment):
        return parse(Settings, flags.split(), "test", default=Settings(augment=augment))

    address = "jaxmeta.symmetry.augment:Augment"
    assert given(f"--augment {address}", None).augment == Augment()
    assert given("--augment math:sqrt", None).augment is math.sqrt
    fields = given("--augment.area 0.5 0.9 --augment.mirror 0", Augment(upend=0.1))
    assert fields.augment == Augment(area=(0.5, 0.9), mirror=0.0, upend=0.1)
    with pytest.raises(UserError, match=r"'jaxmeta\.meta\.maml:Maml'"):
        given("--augment jaxmeta.meta.maml:Maml", None)


@pytest.mark.parametrize("devices", ["0", "four"])
def test_bad_number_of_devices(devices, capsys, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", devices)
    refused(capsys, ["train", "tiny.py"], "JAX_NUM_CPU_DEVICES", repr(devices), ">= 1")


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_missing_writer(name, capsys, workspace, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    refused(capsys, ["train", "tiny.py", f"--{name}"], f"jaxmeta[{name}]")
    assert not (workspace / "runs").exists()


def test_lambda_in_a_config_is_refused(capsys, workspace):
    text = TINY.replace("Optimizer(", "Optimizer(transform=lambda rate: None, ")
    (workspace / "tiny.py").write_text(text)
    refused(capsys, ["train", "tiny.py"], "lambda", "module-level functions")
    assert not (workspace / "runs").exists()


def test_run_of_another_config(capsys, finished, workspace):
    before = contents(workspace)
    argv = ["train", "tiny.py", "--run-dir", "run", "--optimizer.learning-rate", "0.1"]
    refused(capsys, argv, "learning_rate", "0.1", "another --run-dir")
    assert contents(workspace) == before


def test_train_into_a_table(capsys, workspace):
    (workspace / "empty" / "table.json").write_text("[]")
    refused(capsys, ["train", "tiny.py", "--run-dir", "empty"], "another --run-dir")


def test_table_into_a_run(capsys, finished, workspace):
    before = contents(workspace)
    argv = ["reproduce", "msr-rotation", "--quick", "--run-dir", "run"]
    refused(capsys, argv, "jaxmeta train", "another --run-dir")
    assert contents(workspace) == before


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"class": 5}', '{"class": "os:x"}'])
@pytest.mark.parametrize("command", ["evaluate run", "train tiny.py --run-dir run"])
def test_damaged_config(text, command, capsys, finished):
    (finished / "config.json").write_text(text)
    refused(capsys, command.split(), "run")


@pytest.mark.parametrize("text", ["{", "[]", '{"seed": 0}'])
def test_report_of_a_damaged_card(text, capsys, finished):
    (finished / "card.json").write_text(text)
    refused(capsys, ["report", "run"], "run", "damaged")


def test_evaluate_without_checkpoint(capsys, unfinished):
    shutil.rmtree(unfinished / "checkpoints")
    refused(capsys, ["evaluate", "run"], "no latest checkpoint", "train it to its end")


def test_evaluate_runs_nothing_that_a_run_names(capsys, finished, workspace):
    config = json.loads((finished / "config.json").read_text())
    config["optimizer"]["aggregator"] = {
        "partial": "subprocess:check_output",
        "args": ["touch", "owned"],
    }
    (finished / "config.json").write_text(json.dumps(config))
    refused(capsys, ["evaluate", "run"], "subprocess:check_output", "--trust")
    assert not (workspace / "owned").exists()


def flip_bit(directory):
    """Changes one bit of the largest file below a directory."""
    path = max(directory.rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def rows(directory):
    """The lines of a run's metrics, without what differs between runs."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in row.items() if not name.startswith("time/")}
        for row in map(json.loads, lines)
    ]


def test_flipped_bit_falls_back_one_step(capsys, unfinished, trained):
    flip_bit(unfinished / "checkpoints" / "latest" / "8")
    assert run("train", "tiny.py", "--run-dir", "run") == 0
    err = capsys.readouterr().err
    (warning,) = (line for line in err.splitlines() if "damaged" in line)
    assert warning.startswith("jaxmeta: warning: damaged checkpoint in ")
    assert "step 8" in warning
    assert "going on from step 6" in warning
    assert rows(unfinished) == rows(trained)


def test_damaged_checkpoints_are_named(capsys, unfinished, workspace):
    for step in (6, 8):
        flip_bit(unfinished / "checkpoints" / "latest" / str(step))
    (unfinished / "card.json").unlink()  # counts starts, this one too
    before = contents(workspace)
    argv = ["train", "tiny.py", "--run-dir", "run"]
    refused(capsys, argv, "checkpoints/latest", "delete the directory")
    (unfinished / "card.json").unlink()
    assert contents(workspace) == before
    refused(capsys, ["evaluate", "run"], "checkpoints/latest")


def test_finished_run_says_so_and_is_left_alone(capsys, finished):
    shutil.rmtree(finished / "checkpoints")
    before = contents(finished)
    assert run("train", "tiny.py", "--run-dir", "run", "--tensorboard") == 0
    out = capsys.readouterr().out
    assert "run is finished (8 steps)" in out
    assert "loss" in out
    assert contents(finished) == before


def test_damaged_result_is_named(capsys, finished):
    (finished / "result.json").write_text("[1]")
    assert run("train", "tiny.py", "--run-dir", "run") == 2
    assert "result.json is damaged; delete it" in capsys.readouterr().err


def test_unfinished_run_goes_on(capsys, unfinished, trained):
    assert run("train", "tiny.py", "--run-dir", "run") == 0
    assert "going on from step 8" in capsys.readouterr().err
    assert rows(unfinished) == rows(trained)


def test_evaluate_repeats_the_result(capsys, finished):
    assert run("evaluate", "run", "--num-tasks", "16") == 0
    mean = json.loads((finished / "result.json").read_text())["loss"]["mean"]
    assert f"{mean:.4g}" in capsys.readouterr().out


def test_report_prints_and_writes(capsys, finished):
    assert run("report", "run") == 0
    assert capsys.readouterr().out.strip() in (finished / "report.md").read_text()
    assert (finished / "curves.png").stat().st_size > 1000


def test_overrides_and_tensorboard_in_a_path_with_spaces(capsys, workspace):
    argv = ["train", "tiny.py", "--run-dir", "my runs/ü 1", "--tensorboard"]
    options = "--steps 2 --learner.inner-rate 0.2 --evaluation.every 0"
    assert run(*argv, *options.split()) == 0
    directory = workspace / "my runs" / "ü 1"
    config = json.loads((directory / "config.json").read_text())
    assert config["steps"] == 2
    assert config["learner"]["inner_rate"] == 0.2
    assert any((directory / "tensorboard").iterdir())
    assert "2/2 train/loss=" in capsys.readouterr().err


PICTURES = ("triad.png", "conflict.png")


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory):
    """A finished run of `tiny.py --diagnostics`."""
    directory = tmp_path_factory.mktemp("diagnosed")
    (directory / "tiny.py").write_text(TINY)
    argv = ["train", f"{directory}/tiny.py", "--run-dir", f"{directory}/run"]
    assert run(*argv, "--diagnostics") == 0
    return directory / "run"


def diagnoses(directory):
    """What a run wrote under `diagnostics/`, row by row."""
    is_one = lambda name: name.startswith("diagnostics/")
    return [{k: v for k, v in row.items() if is_one(k)} for row in rows(directory)]


def test_diagnostics_are_written_at_every_log_step(diagnosed):
    found = diagnoses(diagnosed)
    assert len(found) == 4
    for row in found:
        assert np.shape(row["diagnostics/cosines"]) == (8, 8)
        assert np.shape(row["diagnostics/norms"]) == (8,)
        assert 0 <= row["diagnostics/conflicting"] <= 1
        assert row["diagnostics/theorem_2"] <= row["diagnostics/theorem_2a"]
    assert Run.load(diagnosed).experiment.step_metrics is step_diagnostics


def test_diagnostics_are_drawn_and_named_in_the_report(diagnosed):
    text = (diagnosed / "report.md").read_text()
    for name in ("curves.png", *PICTURES):
        assert f"![{name}]({name})" in text
        assert (diagnosed / name).read_bytes().startswith(b"\x89PNG")


def test_without_diagnostics_there_are_none(trained):
    assert diagnoses(trained) == [{}] * 4
    for name in (*PICTURES, "report.md"):
        assert not (trained / name).exists()


def test_diagnosing_leaves_the_training_as_it_is(diagnosed, trained):
    for found, plain in zip(rows(diagnosed), rows(trained), strict=True):
        for name, value in plain.items():
            # Every task its own gradient instead of one of the mean: other sums.
            assert found[name] == pytest.approx(value, rel=1e-5), name


def test_step_metrics_of_surgery_are_the_diagnostics(capsys, diagnosed, workspace):
    argv = ["train", "tiny.py", "--run-dir", "other", "--step-metrics"]
    assert run(*argv, "jaxmeta.surgery:step_diagnostics") == 0
    assert "written to other: report.md" in capsys.readouterr().out
    other = workspace / "other"
    assert rows(other) == rows(diagnosed)
    for name in ("config.json", "report.md", *PICTURES):
        assert (other / name).is_file()
    configs = [(path / "config.json").read_text() for path in (other, diagnosed)]
    assert configs[0] == configs[1]


def test_a_finished_run_with_diagnostics_is_found_again(capsys, diagnosed, workspace):
    shutil.copytree(diagnosed, workspace / "run")
    before = contents(workspace)
    assert run("train", "tiny.py", "--run-dir", "run", "--diagnostics") == 0
    assert "run is finished (8 steps)" in capsys.readouterr().out
    assert contents(workspace) == before


@pytest.mark.parametrize("flag", [True, False])
def test_diagnostics_are_part_of_the_configuration(
    flag, capsys, trained, diagnosed, workspace
):
    shutil.copytree(trained if flag else diagnosed, workspace / "run")
    before = contents(workspace)
    argv = ["train", "tiny.py", "--run-dir", "run", *["--diagnostics"] * flag]
    refused(capsys, argv, "belongs to another configuration", "step_metrics")
    assert contents(workspace) == before


def test_step_metrics_that_do_not_exist_are_refused(capsys, workspace):
    before = contents(workspace)
    argv = ["train", "tiny.py", "--step-metrics", "jaxmeta.surgery:step_diagnostic"]
    refused(capsys, argv, "jaxmeta.surgery:step_diagnostic")
    assert contents(workspace) == before


def test_single_test_task_has_no_interval(capsys):
    argv = "train tiny.py --steps 2 --evaluation.num-test-tasks 1"
    assert run(*argv.split()) == 0
    assert "nan" in capsys.readouterr().out


def test_dry_run_writes_nothing(capsys, workspace):
    before = contents(workspace)
    assert run("train", "tiny.py", "--dry-run", "--steps", "4") == 0
    out = capsys.readouterr().out
    assert json.loads(out[: out.index("\n}") + 2])["steps"] == 4
    for word in ("parameters: 4", "memory", "compile"):
        assert word in out
    assert contents(workspace) == before


def test_list_fits_the_terminal(capsys):
    assert run("list") == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    for name in ("maml-omniglot", "msr-fc", "msr-rotation", "msr-translation"):
        assert re.search(rf"^{name}  \((experiment|table); ", out, re.MULTILINE)


@pytest.mark.parametrize("columns", ["60", "80"])
def test_train_help_lists_every_field(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert run("train", "maml-omniglot", "--help") == 0
    out = capsys.readouterr().out
    for flag in ("--run-dir", "--steps", "--learner.inner-steps", "--source.ways"):
        assert flag in out
    assert "(default: 2500)" in out
    assert "Outer learning rate." in out
    assert "mean_over_tasks" in out
    assert "object at 0x" not in out
    assert "function " not in out.replace("functional", "")


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"]])
def test_usage(argv, capsys):
    assert run(*argv) == 0
    out = capsys.readouterr().out
    for name in ("list", "train", "evaluate", "reproduce", "report", "bench"):
        assert f"  {name} " in out


def test_version(capsys):
    assert run("--version") == 0
    assert re.fullmatch(r"jaxmeta \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)
