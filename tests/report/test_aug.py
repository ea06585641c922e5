"""The Aug tables: what is said of their runs, and their pictures."""

import dataclasses

import numpy as np
import pytest
from matplotlib import pyplot as plt

from jaxmeta.core.experiment import Checkpointing, Evaluation
from jaxmeta.core.run import Run
from jaxmeta.core.table import Cell
from jaxmeta.data.digits import Digits
from jaxmeta.report.aug import aug_table, draw_errors, draw_orbits, findings, noticed
from jaxmeta.report.reproduce import run_cell
from jaxmeta.report.symmetry import error_curves, orbit_grid
from jaxmeta.symmetry.benchmark import ROWS, Protocol
from jaxmeta.symmetry.motions import GENERATORS

PROTOCOL = Protocol(
    source=Digits(image_size=16), features=2, steps=10, tasks_per_step=4
)
TABLE = aug_table(
    "Aug-Digits",
    PROTOCOL,
    [(2, 1), (2, 5)],
    seeds=1,
    published={"MSR": ("95 ± 1", "97 ± 1")},
    notes=("A note.",),
    gain=3.0,
)
COLUMN = "2-way 1-shot"


def test_rows_and_columns():
    assert TABLE.rows() == list(ROWS)
    assert [cell.column for cell in TABLE.cells[:2]] == [COLUMN, "2-way 5-shot"]
    cells = {(cell.row, cell.column): cell for cell in TABLE.cells}
    assert cells["MSR", "2-way 5-shot"].published == "97 ± 1"
    assert cells["MAML", COLUMN].published is None
    assert "norm_stats query (transductive)" in cells["ProtoNets", COLUMN].protocol
    experiment = cells["MAML", "2-way 5-shot"].experiment(4)
    assert (experiment.source.shots, experiment.seed) == (5, 4)


def short_run(root, row):
    """One step long."""
    experiment = PROTOCOL.experiment(row, ways=2, shots=1, seed=0)
    short = dataclasses.replace(
        experiment,
        evaluation=Evaluation(num_test_tasks=4, tasks_per_batch=4),
        checkpoint=Checkpointing(every=1),
        steps=1,
        log_every=1,
    )
    cell = Cell(row=row, column=COLUMN, experiment=lambda _: short, protocol="short")
    return run_cell(root, cell, 0, quiet=True).directory


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A run of MSR."""
    return short_run(tmp_path_factory.mktemp("aug"), "MSR")


@pytest.mark.slow
@pytest.mark.parametrize(("accuracy", "verdict"), [(0.79, "holds"), (0.77, "misses")])
def test_what_is_said_of_msr(directory, tmp_path, accuracy, verdict):
    runs = {}
    for row, value in {"MAML": 0.75, "MSR, U = identity": 0.7, "MSR": accuracy}.items():
        place = tmp_path / row
        place.mkdir()
        for file in ("config.json",):
            (place / file).write_bytes((directory / file).read_bytes())
        np.savez(
            place / "test_tasks.npz", accuracy=np.array([value - 0.1, value + 0.1])
        )
        runs[row, COLUMN] = [place]
    points = round(100 * (accuracy - 0.75))
    assert findings(runs, COLUMN, 3.0) == [
        "Data: scikit-learn digits.",
        f"{COLUMN}: MSR is +{points}.0 points from MAML. Asked were +3.0: {verdict}.",
        f"{COLUMN}: MSR is +{points + 5}.0 points from MSR, U = identity.",
    ]


@pytest.mark.slow
def test_pictures_of_a_run(directory, tmp_path):
    runs = {("MSR", COLUMN): [directory]}
    assert Run.load(directory).finished
    for name, draw in (("orbits.png", draw_orbits), ("errors.png", draw_errors)):
        draw(tmp_path / name, runs, COLUMN)
        assert np.ptp(plt.imread(tmp_path / name)[..., :3]) > 0.5
        nothing = tmp_path / f"no-{name}"
        draw(nothing, {}, COLUMN)
        assert not nothing.exists()


@pytest.mark.slow
def test_what_msr_notices(directory):
    header, line = noticed({("MSR", COLUMN): [directory]}, COLUMN)
    assert header == ["LieGG score", *GENERATORS]
    assert line[0] == "MSR"
    assert np.mean([float(score) for score in line[1:]]) == pytest.approx(1, abs=0.01)
    assert noticed({}, COLUMN) == []


@pytest.mark.slow
@pytest.mark.parametrize("row", ["MAML", "ANIL"])
def test_what_is_noticed_through_the_convolutions_of_a_loop(tmp_path, row):
    run = {(row, COLUMN): [short_run(tmp_path, row)]}
    _, (name, *scores) = noticed(run, COLUMN)
    assert name == row
    assert np.mean([float(score) for score in scores]) == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_augerino_tells_its_ranges(tmp_path):
    run = {("Augerino", COLUMN): [short_run(tmp_path, "Augerino")]}
    _, _, (name, *ranges) = noticed(run, COLUMN)
    assert name == "learned ranges of Augerino"
    assert ranges == ["0.10"] * 6  # where they start; a step is one thousandth


def test_orbits_show_columns(tmp_path, monkeypatch):
    kept, close = [], plt.close
    monkeypatch.setattr(plt, "close", kept.append)
    orbit_grid(
        tmp_path / "a.png", {"first": 2.0 * np.eye(9), "second": np.ones((9, 9))}
    )
    (figure,) = kept
    close(figure)
    shown = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    assert len(shown) == 18
    np.testing.assert_array_equal(np.ravel(shown[4]), np.eye(9)[4])
    np.testing.assert_array_equal(np.ravel(shown[9]), np.ones(9))


def test_curves_of_every_motion(tmp_path, monkeypatch):
    kept, close = [], plt.close
    monkeypatch.setattr(plt, "close", kept.append)
    errors = {"flip": [0.1, 0.2], "turn": [0.3, 0.4]}
    error_curves(
        tmp_path / "a.png", {("MSR", "before"): errors, ("MSR", "after"): errors}
    )
    (figure,) = kept
    close(figure)
    flip, turn = figure.axes
    assert (flip.get_title(), turn.get_title()) == ("flip", "turn")
    assert [line.get_ydata()[1] for line in turn.lines] == [0.4, 0.4]
