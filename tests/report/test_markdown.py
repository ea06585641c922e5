import pytest

from jaxmeta.report.markdown import (
    cells,
    interval_text,
    markdown_table,
    number,
    run_report,
    table_report,
)


def record(**changes):
    base = {
        "row": "MSR",
        "column": "k = 1",
        "value": 0.0051,
        "standard_error": None,
        "low": 0.005,
        "high": 0.0052,
        "seed_low": None,
        "seed_high": None,
        "seeds": [0],
        "tasks_per_seed": 5000,
        "published": ".004",
        "floor": 0.0049,
        "claim": "at most .006",
        "verdict": "holds",
        "protocol": "1 inner",
        "seconds": 12.4,
    }
    return base | changes


CARD = {
    "title": "A table",
    "measured_on": "fresh held-out tasks",
    "source": "somebody 2021",
    "notes": ["A note."],
    "breakdown": [["task", "MSR"], ["k = 1", "as it is"]],
    "figures": ["weights.png"],
    "command": "jaxmeta reproduce a-table",
    "seeds": [0],
    "git_revisions": ["abc"],
    "run_wall_seconds": 12.0,
    "versions": {"jax": "1.2", "python": "3.4"},
    "hardware": {"devices": 1, "device": "cpu", "cpus": 2},
}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.09, "3.09"),
        (12.345, "12.3"),
        (1234.5, "1234"),
        (0.5, ".500"),
        (-0.25, "-.250"),
        (0.0050917, ".00509"),
        (0.0, "0"),
        (None, "–"),
    ],
)
def test_number_has_three_significant_digits(value, text):
    assert number(value) == text


def test_interval():
    assert interval_text(0.1, 2.0) == "[.100, 2.00]"
    assert interval_text(None, None) == "–"


def test_markdown_table():
    assert markdown_table(["a"], [["1"], ["2"]]) == "| a |\n|---|\n| 1 |\n| 2 |"


def test_intervals_over_tasks_and_seeds_are_two_columns():
    line = cells(record(seed_low=0.0045, seed_high=0.0057))
    assert line[4:6] == ["[.00500, .00520]", "[.00450, .00570]"]
    assert cells(record())[5] == "–"


def test_cell_without_claim_has_no_verdict():
    line = cells(record(verdict=None, claim="", published=None, floor=None))
    assert line[-1] == line[2] == line[6] == "–"


def test_table_report_says_how_it_was_made():
    text = table_report([record(), record(row="MAML", verdict="misses")], CARD)
    assert text.startswith("# A table\n")
    for words in (
        "| MSR | k = 1 | .004 | .00510 | [.00500, .00520] | – | .00490 | 1 inner | 12 "
        "| holds (at most .006) |",
        "misses (at most .006)",
        "somebody 2021",
        "mean over 1 seed, each on 5,000 fresh held-out tasks.",
        "A note.",
        "| task | MSR |\n|---|---|\n| k = 1 | as it is |",
        "![weights.png](weights.png)",
        "`jaxmeta reproduce a-table`, revision abc, 12 s of runs, "
        "1 x cpu (2 cores), jax 1.2",
    ):
        assert words in text


def test_run_report():
    card = {
        "config_hash": "0123456789ab",
        "config": {
            "learner": {"class": "jaxmeta.meta.maml:Maml"},
            "source": {"class": "jaxmeta.data.digits:Digits", "ways": 5},
            "steps": 10,
            "tasks_per_step": 4,
        },
        "seed": 0,
        "wall_seconds": 1.5,
        "git_revision": None,
    }
    spread = {"mean": 0.5, "low": 0.4, "high": 0.6, "smallest": 0.0, "largest": 1.0}
    text = run_report(card, {"accuracy": spread | {"count": 7}}, ["curves.png"])
    assert "| accuracy | .5000 | [.400, .600] | 0 | 1.00 | 7 |" in text
    assert "Maml on Digits (ways 5), 10 steps of 4 tasks, seed 0" in text
    assert "revision unknown" in text
    assert "![curves.png](curves.png)" in text
    text = run_report(card | {"norm_stats": "query"}, {}, [])
    assert "Maml on Digits (ways 5), norm_stats query (transductive), 10 steps" in text


def test_a_measurement_is_called_by_its_name():
    config = {"class": "jaxmeta.manipulation.parity:ScriptedPlay", "physics": None}
    card = {"config_hash": "0", "config": config, "seed": 2, "wall_seconds": 1.5}
    text = run_report(card | {"git_revision": "abc"}, {}, [])
    assert "ScriptedPlay, seed 2, 2 s, revision abc." in text


def test_several_seeds_have_a_standard_error():
    assert cells(record(value=0.5, standard_error=0.0123))[3] == ".500 ± .01"
