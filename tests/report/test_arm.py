"""The tables of ARM: what their cells share, and what is said of their runs."""

import json

import numpy as np
import pytest

from jaxmeta.data.digit_groups import RotatedDigits
from jaxmeta.report.arm import ARM, AVERAGE, WEIGHTED, WORST, arm_table, findings
from jaxmeta.shift.benchmark import Protocol

PROTOCOL = Protocol(source=RotatedDigits(points_per_set=10), width=2, steps=60)
TABLE = arm_table(
    "Digits",
    PROTOCOL,
    ("ERM", "ARM-BN", "TENT"),
    seeds=1,
    notes=("A note.",),
    published={"ERM": ("50 ± 1", "60 ± 2")},
)


def test_a_row_has_three_figures_of_one_run():
    assert TABLE.rows() == ["ERM", "ARM-BN", "TENT"]
    cells = [cell for cell in TABLE.cells if cell.row == "ERM"]
    assert [cell.column for cell in cells] == [WORST, AVERAGE, WEIGHTED]
    assert {cell.run for cell in cells} == {"ERM"}
    assert [cell.published for cell in cells] == ["50 ± 1", "60 ± 2", None]


def test_an_adapted_row_shares_the_training():
    erm, tent = (
        next(cell for cell in TABLE.cells if cell.row == row).experiment(3)
        for row in ("ERM", "TENT")
    )
    assert tent.trained == erm
    assert tent.seed == 3


@pytest.fixture
def runs(tmp_path):
    """Made-up runs of two seeds: validation would choose ARM-BN, test ARM-LL."""
    figures = {
        "ERM": (0.5, [0.4, 0.8]),
        "ARM-CML": (0.4, [0.1, 0.2]),
        "ARM-BN": (0.7, [0.5, 0.9]),
        "ARM-LL": (0.6, [0.9, 1.0]),
    }
    found = {}
    for row, (validated, tested) in figures.items():
        found[row, WORST] = []
        for seed in (0, 1):
            directory = tmp_path / f"{row}-{seed}"
            directory.mkdir()
            found[row, WORST].append(directory)
            # The second seed is .1 better in all.
            lines = [
                {"step": 1, "validation/worst_accuracy": validated + 0.1 * seed},
                {"step": 2, "validation/worst_accuracy": 0.0},
            ]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (directory / "metrics.jsonl").write_text(text)
            values = np.array(tested) + 0.1 * seed
            np.savez(directory / "test_tasks.npz", accuracy=values)
    return found


def test_the_arm_row_is_chosen_by_validation(runs):
    (text,) = findings(runs)
    assert text.startswith(f"By validation ARM-BN is chosen among {', '.join(ARM)}")
    assert "(worst group 0.750)" in text
    assert "+10.0 points in the worst test group and +10.0 on average" in text


def test_uniform_sampling_is_compared_with_where_it_ran(runs):
    (text,) = findings({**runs, ("UW", WORST): runs["ARM-CML", WORST]})
    assert text.endswith("as it does, it is +40.0 and +55.0.")


@pytest.mark.parametrize(
    ("aims", "verdict"), [((9.0, 9.0), "holds"), ((9.0, 11.0), "misses")]
)
def test_what_was_asked_for(runs, aims, verdict):
    (text,) = findings(runs, aims)
    assert text.endswith(f"Asked were {aims[0]:+.1f} and {aims[1]:+.1f}: {verdict}.")


def test_without_erm_there_is_nothing_to_say(runs):
    del runs["ERM", WORST]
    assert findings(runs) == []
