"""Pictures of diagnostics: drawn, valid, and without a warning for odd rows."""

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from jaxmeta.report.surgery import (
    CONDITIONS,
    PANELS,
    conflict_map,
    has_diagnostics,
    tragic_triad,
)


@pytest.fixture(autouse=True)
def no_figures():
    """What one test leaves open is not counted by the next."""
    yield
    plt.close("all")


def rows_of(num_tasks, num_rows=3, curvature=lambda step: 1.0 / step):
    """What a run with diagnostics writes."""
    rng, rows = np.random.default_rng(0), []
    for step in range(10, 10 * num_rows + 1, 10):
        cosines = rng.uniform(-1, 1, (num_tasks, num_tasks))
        cosines = (cosines + cosines.T) / 2
        np.fill_diagonal(cosines, 1.0)
        shares = {name: float(rng.uniform()) for name in (*PANELS, *CONDITIONS)}
        shares["curvature"] = curvature(step)
        rows.append(
            {
                "step": step,
                "train/loss": 1.0,
                **{f"diagnostics/{name}": share for name, share in shares.items()},
                "diagnostics/norms": [1.0] * num_tasks,
                "diagnostics/cosines": cosines.round(4).tolist(),
            }
        )
    return rows


def without(rows, *names):
    """Rows of which the second lacks some names."""
    kept = {k: v for k, v in rows[1].items() if k.split("/")[-1] not in names}
    return [rows[0], kept, *rows[2:]]


def with_gaps(rows, *steps):
    """Rows in some of which the first two tasks never met."""
    for row in rows:
        if not steps or row["step"] in steps:
            cosines = row["diagnostics/cosines"]
            cosines[0][1] = cosines[1][0] = None
    return rows


def nothing(rows):
    for row in rows:
        row["diagnostics/cosines"] = [[None] * 2] * 2
    return rows


def is_drawn(path):
    """Whether it is a whole PNG with more than one colour, and no figure is left."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.verify()
    pixels = matplotlib.image.imread(path)
    assert plt.get_fignums() == []
    return pixels.shape[0] > 100 and pixels[..., :3].std() > 0.01


TRIADS = {
    "two tasks": {"run": rows_of(2)},
    "eight tasks": {"run": rows_of(8)},
    "one row": {"run": rows_of(2, num_rows=1)},
    "missing names": {"run": without(rows_of(2), *PANELS, "theorem_2a", "cosines")},
    "a row before any diagnostics": {"run": [{"step": 1}, *rows_of(2)]},
    "no finite curvature": {"run": without(rows_of(2)[:2], "curvature")[1:]},
    "curvature of either sign": {"run": rows_of(2, 4, lambda step: 15.0 - step)},
    "no curvature": {"run": rows_of(2, curvature=lambda step: 0.0)},
    "several runs": {
        "pcgrad": rows_of(2),
        "mean of all": rows_of(8, 5),
        "_a name of its own": rows_of(3, 1),
    },
}


@pytest.mark.parametrize("name", TRIADS)
def test_tragic_triad_draws(name, tmp_path):
    tragic_triad(tmp_path / "triad.png", TRIADS[name])
    assert is_drawn(tmp_path / "triad.png")


MAPS = {
    "two tasks": rows_of(2),
    "eight tasks": rows_of(8),
    "more pairs than can be named": rows_of(9),
    "one row": rows_of(2, num_rows=1),
    "a row without cosines": without(rows_of(2), "cosines"),
    "a pair that met once": with_gaps(rows_of(3), 10, 20),
    "a pair that never met": with_gaps(rows_of(3)),
    "no pair that met": nothing(rows_of(2)),
}


@pytest.mark.parametrize("name", MAPS)
def test_conflict_map_draws(name, tmp_path):
    conflict_map(tmp_path / "conflict.png", MAPS[name])
    assert is_drawn(tmp_path / "conflict.png")


def test_conflict_map_of_a_task_alone_draws(tmp_path):
    conflict_map(tmp_path / "conflict.png", rows_of(1))
    assert is_drawn(tmp_path / "conflict.png")


def shown(path, monkeypatch, draw, *arguments):
    """The figure that was drawn, to be looked into."""
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    draw(path, *arguments)
    monkeypatch.undo()
    plt.close(kept[0])
    return kept[0]


def test_triad_has_a_curve_for_every_quantity_and_run(tmp_path, monkeypatch):
    runs = {"a": rows_of(2), "b": rows_of(2, 5)}
    figure = shown(tmp_path / "x.png", monkeypatch, tragic_triad, runs)
    for axis, name in zip(figure.axes, PANELS, strict=False):
        for line, rows in zip(axis.lines, runs.values(), strict=True):
            values = [row[f"diagnostics/{name}"] for row in rows]
            assert line.get_xdata().tolist() == [row["step"] for row in rows]
            assert line.get_ydata().tolist() == values
    assert len(figure.axes[3].lines) == len(CONDITIONS) * len(runs)
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["a", "b", *(words for _, words in CONDITIONS.values())]


def test_map_averages_over_the_steps_at_which_a_pair_met(tmp_path, monkeypatch):
    rows = with_gaps(rows_of(3), 10)
    figure = shown(tmp_path / "x.png", monkeypatch, conflict_map, rows)
    over_time, mean = (axis.images[0].get_array() for axis in figure.axes[:2])
    cosines = [row["diagnostics/cosines"] for row in rows]
    # Two sums of the same three float64 numbers.
    expected = (cosines[1][0][1] + cosines[2][0][1]) / 2
    np.testing.assert_allclose(mean[0, 1], expected, rtol=1e-12)
    expected = np.mean([c[0][2] for c in cosines])
    np.testing.assert_allclose(mean[0, 2], expected, rtol=1e-12)
    # Pairs (0, 1), (0, 2), (1, 2) by step.
    assert over_time.shape == (3, 3)
    assert bool(over_time.mask[0, 0])
    assert over_time[2].tolist() == [c[1][2] for c in cosines]


def test_has_diagnostics_needs_the_cosines_of_any_row():
    assert not has_diagnostics([])
    assert not has_diagnostics([{"step": 1, "train/loss": 0.5}])
    assert not has_diagnostics([{"step": 1, "diagnostics/conflicting": 0.5}])
    assert has_diagnostics([{"step": 1}, *rows_of(2, 1)])
