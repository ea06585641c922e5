"""Every shipped config loads, describes itself and runs when it is shrunk."""

import dataclasses
import functools

import numpy as np
import pytest

from jaxmeta.check import settle_and_check
from jaxmeta.core import catalogue
from jaxmeta.core.experiment import Checkpointing, Evaluation, Experiment
from jaxmeta.core.fit import complete
from jaxmeta.core.procedure import Procedure
from jaxmeta.core.progress import Progress
from jaxmeta.core.run import Run
from jaxmeta.core.table import Table
from jaxmeta.core.writers import JsonlWriter, read_jsonl
from jaxmeta.data.groups import GroupSource
from jaxmeta.data.source import DataError
from jaxmeta.meta.maml import Maml
from jaxmeta.networks.conv import Conv4

ENTRIES = catalogue.entries()
EXPERIMENTS = [entry for entry in ENTRIES if entry.kind == "experiment"]
TABLES = [entry for entry in ENTRIES if entry.kind == "table"]
NOT_RANDOM = {"metaworld-parity", "pcgrad-landscape"}
# Their columns have more ways than the digits that stand in have classes.
TOO_MANY_WAYS = {("aug-omniglot", False)}
by_name = lambda entry: entry.name


@pytest.fixture(autouse=True)
def no_data(monkeypatch, tmp_path):
    for name in ("JAXMETA_DATA_DIR", "JAXMETA_DOWNLOAD"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


def shrunk(experiment):
    """The experiment with little of everything."""
    learner = experiment.learner
    if isinstance(learner, Maml) and isinstance(learner.network, Conv4):
        network = dataclasses.replace(learner.network, features=4, num_blocks=1)
        learner = dataclasses.replace(learner, network=network)
        if learner.eval_inner_steps is not None:
            learner = dataclasses.replace(learner, eval_inner_steps=2)
    source, num_tasks = experiment.source, 4
    if experiment.parallel.backend == "loop":
        num_tasks = 1  # every one of them is compiled
    if isinstance(source, GroupSource):
        source = dataclasses.replace(source, points_per_set=3, sets_per_task=2)
        network = dataclasses.replace(learner.network, width=2)
        learner = dataclasses.replace(learner, network=network)
        num_tasks = 1
    settings = experiment.evaluation
    return dataclasses.replace(
        experiment,
        learner=learner,
        source=source,
        evaluation=Evaluation(
            num_test_tasks=2 * num_tasks,
            tasks_per_batch=num_tasks,
            metric=settings.metric,
            mode=settings.mode,
        ),
        checkpoint=Checkpointing(),
        tasks_per_step=num_tasks,
        steps=2,
        log_every=2,
    )


def runs(experiment, directory):
    """Trains two steps and measures; returns the test metrics of each task."""
    run = Run.open(directory, experiment)
    writer = JsonlWriter(run.metrics_path)
    complete(run, writer, Progress(2, quiet=True))
    writer.close()
    (row,) = read_jsonl(run.metrics_path)
    assert row["train/skipped"] == 0
    return np.load(directory / "test_tasks.npz")


@functools.cache
def check(experiment):
    settle_and_check(experiment)


def unhurried(experiment):
    """The experiment as far as it is checked: a quick one is equal to a full one."""
    settings = dataclasses.replace(experiment.evaluation, every=1)
    return dataclasses.replace(
        experiment,
        evaluation=settings,
        checkpoint=Checkpointing(),
        steps=1,
        log_every=1,
    )


def make_cell(cell, seed):
    """The experiment of a cell, if what it needs is here."""
    try:
        return cell.experiment(seed)
    except DataError as error:
        pytest.skip(f"no data: {error}")


def test_there_are_some():
    names = {entry.name for entry in ENTRIES}
    assert names >= {"maml-omniglot", "msr-fc", "msr-rotation", "msr-translation"}
    assert names >= NOT_RANDOM


@pytest.mark.parametrize("entry", ENTRIES, ids=by_name)
def test_says_what_it_is(entry):
    assert entry.what.endswith(".")
    assert entry.paper
    assert "min" in entry.cost or " s " in entry.cost


@pytest.mark.parametrize("entry", EXPERIMENTS, ids=by_name)
def test_experiment_runs(entry, tmp_path):
    experiment = catalogue.make(entry, Experiment | Procedure)
    if isinstance(experiment, Procedure):
        experiment.check()
        assert experiment.estimate()
        pytest.skip("agents are trained by `pytest -m slow tests/rl`")
    try:
        settle_and_check(experiment)
    except DataError as error:
        pytest.skip(f"no data: {error}")
    values = runs(shrunk(experiment), tmp_path / "run")
    assert np.isfinite(values[experiment.evaluation.metric]).all()


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("entry", TABLES, ids=by_name)
def test_cells_build(entry, quick):
    table = catalogue.make(entry, Table, quick)
    assert len({(cell.row, cell.column) for cell in table.cells}) == len(table.cells)
    assert table.seeds == (1 if quick or entry.name in NOT_RANDOM else 3)
    for cell in table.cells:
        first, second = (make_cell(cell, seed) for seed in (0, 1))
        assert (first.seed, second.seed) == (0, 1)
        if isinstance(first, Experiment) and (entry.name, quick) not in TOO_MANY_WAYS:
            check(unhurried(first))
        assert cell.protocol
        assert (cell.accept is None) == (not cell.claim)
        if cell.floor is not None:
            floor = cell.floor(first.source)
            assert 0 < floor < 10
        if cell.accept is not None:
            low, high = cell.accept(first.source)
            assert low < high
            assert low >= 0 or table.metric == "theta_1"


@pytest.mark.parametrize("entry", TABLES, ids=by_name)
def test_one_cell_runs(entry, tmp_path):
    table = catalogue.make(entry, Table, True)
    experiment = make_cell(table.cells[0], 0)
    if not isinstance(experiment, Experiment):
        pytest.skip("it is measured, and needs what it is measured with")
    values = runs(shrunk(experiment), tmp_path / "run")
    assert np.isfinite(values[table.metric]).all()
