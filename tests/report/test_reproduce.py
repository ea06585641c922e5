import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats

from jaxmeta import Experiment, Optimizer
from jaxmeta.core.checkpoint import CheckpointError
from jaxmeta.core.experiment import Evaluation
from jaxmeta.core.metrics import interval
from jaxmeta.core.procedure import Procedure
from jaxmeta.core.run import read_json
from jaxmeta.core.table import Cell, Table
from jaxmeta.core.testing import SmokeLearner, smoke_source
from jaxmeta.report.render import render
from jaxmeta.report.reproduce import cell_directory, check, reproduce

KEYS = [
    "row",
    "column",
    "value",
    "low",
    "high",
    "seeds",
    "published",
    "floor",
    "protocol",
    "seconds",
]


def experiment(inner_rate, seed):
    return Experiment(
        learner=SmokeLearner(inner_rate=inner_rate),
        source=smoke_source(),
        optimizer=Optimizer(learning_rate=0.05),
        evaluation=Evaluation(num_test_tasks=16, tasks_per_batch=8),
        tasks_per_step=8,
        steps=20,
        log_every=10,
        seed=seed,
    )


def cell(row, inner_rate=0.1, **claims):
    return Cell(
        row=row,
        column="smoke",
        experiment=lambda seed: experiment(inner_rate, seed),
        protocol="20 outer steps",
        **claims,
    )


def draw(path, runs):
    path.write_text(" ".join(sorted(row for row, column in runs)))


TABLE = Table(
    title="Smoke",
    source="nobody",
    metric="loss",
    cells=(
        cell("a", published="0 ± 1", floor=lambda source: 0.25),
        cell("b", 0.2, accept=lambda source: (0.0, 100.0), claim="below 100"),
        cell("c", 0.3, accept=lambda source: (-2.0, -1.0), claim="negative"),
    ),
    seeds=2,
    notes=("A note.",),
    figures={"figure.txt": draw, "none.txt": lambda path, runs: None},
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "smoke"
    root.mkdir()
    records = reproduce(TABLE, root, seeds=2, command="jaxmeta reproduce", quiet=True)
    return root, records


def test_table_json_has_an_object_for_each_cell(done):
    root, records = done
    assert json.loads((root / "table.json").read_text()) == records
    assert [r["row"] for r in records] == ["a", "b", "c"]
    for record in records:
        assert set(KEYS) <= record.keys()
        assert record["seeds"] == [0, 1]
        assert record["seconds"] > 0
        assert record["low"] < record["value"] < record["high"]


def test_files_are_written(done):
    root, _ = done
    assert (root / "figure.txt").read_text() == "a b c"
    card = json.loads((root / "card.json").read_text())
    assert card["figures"] == ["figure.txt", "curves.png"]
    assert card["command"] == "jaxmeta reproduce"
    rows = [
        json.loads(line)
        for line in (root / "metrics.jsonl").read_text().split("\n")[:-1]
    ]
    assert [(r["row"], r["seed"], r["step"]) for r in rows[:4]] == [
        ("a", 0, 10),
        ("a", 0, 20),
        ("a", 1, 10),
        ("a", 1, 20),
    ]
    report = (root / "report.md").read_text()
    for words in ("# Smoke", "A note.", "below 100", "mean over 2 seeds"):
        assert words in report


def test_intervals_over_tasks_and_over_seeds_are_not_mixed(done):
    root, records = done
    values = [
        np.load(cell_directory(root, TABLE.cells[0], seed) / "test_tasks.npz")["loss"]
        for seed in (0, 1)
    ]
    # The seeds as they are: only the spread of each run's own tasks counts.
    half = (interval(values[0]).high - values[0].mean()) ** 2
    half = np.sqrt(half + (interval(values[1]).high - values[1].mean()) ** 2) / 2
    half *= stats.t.ppf(0.975, 30) / stats.t.ppf(0.975, 15)
    seeds = interval([values[0].mean(), values[1].mean()])
    record = records[0]
    assert record["value"] == pytest.approx(seeds.mean)
    assert record["high"] - record["value"] == pytest.approx(half)
    assert record["value"] - record["low"] == pytest.approx(half)
    assert record["seed_low"] == pytest.approx(seeds.low)
    assert record["seed_high"] == pytest.approx(seeds.high)
    assert seeds.high - seeds.mean != pytest.approx(half)


def test_verdicts(done):
    _, records = done
    assert [r["verdict"] for r in records] == [None, "holds", "misses"]
    assert [r["floor"] for r in records] == [0.25, None, None]
    assert records[0]["published"] == "0 ± 1"


def test_rerun_does_nothing_again(done):
    root, records = done
    runs = sorted((root / "cells").rglob("*.json*"))
    before = [path.stat().st_mtime_ns for path in runs]
    assert len(before) > 6
    seen = []
    again = reproduce(TABLE, root, seeds=2, command="", on_cell=seen.append)
    assert again == seen == records
    assert [path.stat().st_mtime_ns for path in runs] == before


def test_chosen_rows_run_alone_and_keep_what_is_there(done, tmp_path):
    records = reproduce(TABLE, tmp_path, seeds=1, command="", rows=["b"], quiet=True)
    assert [record["row"] for record in records] == ["b"]
    records = reproduce(TABLE, tmp_path, seeds=1, command="", rows=["a"], quiet=True)
    assert [record["row"] for record in records] == ["a", "b"]


def test_the_table_has_a_card(done):
    root, records = done
    card = json.loads((root / "card.json").read_text())
    assert card["seeds"] == [0, 1]
    assert card["config"]["cells"] == [h for r in records for h in r["config_hashes"]]
    for name in ("config_hash", "versions", "hardware", "wall_seconds", "cpu_seconds"):
        assert card[name]
    assert card["run_wall_seconds"] == sum(r["seconds"] for r in records)


def test_one_seed_has_no_interval_over_seeds(done):
    root, _ = done
    record, *_ = reproduce(TABLE, root, seeds=1, command="", quiet=True)
    assert record["seed_low"] is record["seed_high"] is None
    assert math.isfinite(record["low"])
    reproduce(TABLE, root, seeds=2, command="jaxmeta reproduce", quiet=True)


def test_render_repeats_the_report(done):
    root, _ = done
    text = (root / "report.md").read_text()
    assert render(root) == text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Silent(Procedure):
    """Measures something, and has no metrics on the way."""

    seed: int = 0
    steps = 1

    def check(self):
        pass

    def perform(self, directory, writer, progress):
        return {"loss": np.array([1.0, 3.0])}


def test_a_procedure_may_have_no_metrics(tmp_path):
    silent = Cell(
        row="silent",
        column="smoke",
        experiment=lambda seed: Silent(seed=seed),
        protocol="none",
    )
    table = dataclasses.replace(TABLE, cells=(silent,), figures={})
    for _ in range(2):  # the second finds it done
        (record,) = reproduce(table, tmp_path, seeds=1, command="", quiet=True)
        assert record["value"] == 2.0
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    assert "Silent" in render(cell_directory(tmp_path, silent, 0))


def test_metrics_that_were_lost_are_damage(tmp_path):
    reproduce(TABLE, tmp_path, seeds=1, command="", rows=["a"], quiet=True)
    directory = cell_directory(tmp_path, TABLE.cells[0], 0)
    (directory / "metrics.jsonl").unlink()
    with pytest.raises(CheckpointError, match=r"seed0 is damaged .*metrics\.jsonl"):
        reproduce(TABLE, tmp_path, seeds=1, command="", quiet=True, rows=["a"])


def test_no_seeds(tmp_path):
    with pytest.raises(ValueError, match=r"seeds must be >= 1, got 0\."):
        reproduce(TABLE, tmp_path, seeds=0, command="")


def test_unknown_row():
    with pytest.raises(ValueError, match="no row 'd'; the rows are 'a', 'b', 'c'"):
        TABLE.check_rows(["d"])


def test_directory_of_another_table_is_refused(done):
    root, _ = done
    check(TABLE, root, 2)
    with pytest.raises(ValueError, match=r"another table .*--run-dir"):
        check(dataclasses.replace(TABLE, title="Other"), root, 2)


def test_cell_of_another_configuration_is_refused(done):
    root, _ = done
    other = dataclasses.replace(TABLE, cells=(cell("a", 0.7),))
    with pytest.raises(ValueError, match=r"inner_rate: 0\.7 here, 0\.1 there"):
        check(other, root, 1)


def test_directory_of_a_run_is_refused(done):
    root, _ = done
    with pytest.raises(ValueError, match=r"jaxmeta train.*--run-dir"):
        check(TABLE, cell_directory(root, TABLE.cells[0], 0), 1)


def test_cells_may_show_figures_of_the_same_runs(tmp_path):
    largest = lambda values, work: float(values["loss"].max()) + work.seed
    cells = (
        dataclasses.replace(cell("a"), run="shared", column="mean"),
        dataclasses.replace(
            cell("a"), run="shared", column="largest", statistic=largest
        ),
    )
    table = dataclasses.replace(TABLE, cells=cells, figures={})
    root = tmp_path / "shared"
    root.mkdir()
    mean, top = reproduce(table, root, seeds=2, command="", quiet=True)
    names = sorted(path.name for path in (root / "cells").iterdir())
    assert names == ["shared-seed0", "shared-seed1"]
    rows = [np.load(root / "cells" / name / "test_tasks.npz")["loss"] for name in names]
    assert mean["value"] == pytest.approx(np.mean(rows))
    figures = [rows[0].max(), rows[1].max() + 1]
    assert top["seed_values"] == pytest.approx(figures)
    assert top["low"] is None
    assert top["standard_error"] == pytest.approx(np.std(figures, ddof=1) / 2**0.5)
    # Two runs, however many figures they are shown in.
    lines = (root / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 4
    card = read_json(root / "card.json")
    assert card["run_wall_seconds"] == pytest.approx(mean["seconds"])
