"""`jaxmeta bench meta-gradient`, on a small network."""

import json
import math

import pytest

from jaxmeta.cli import main
from jaxmeta.meta import bench


def test_what_is_measured(monkeypatch):
    few = dict(list(bench.CHOICES.items())[:3])
    monkeypatch.setattr(bench, "CHOICES", few)
    found = bench.measure([20, 20], shots=(1,), features=2)
    rows = {(row["inner_steps"], row["choice"]): row for row in found["rows"]}
    assert len(rows) == len(found["rows"]) == len(bench.CHOICES)
    first = "unrolled(remat=False)"
    for (steps, _), row in rows.items():
        assert math.isfinite(row["seconds"])
        assert row["memory_ratio"] == row["bytes"] / rows[steps, first]["bytes"]
    # Activations of 20 steps against those of one.
    assert rows[20, "mixflow"]["memory_ratio"] < 0.35
    assert rows[20, "unrolled"]["memory_ratio"] < 0.35
    header, *lines = bench.lines(found)
    assert {len(line) for line in lines} == {len(header)}
    assert lines[0][:3] == ("1", "20", first)


@pytest.mark.slow
def test_the_memory_of_twenty_steps_of_the_whole_network(monkeypatch):
    few = dict(list(bench.CHOICES.items())[:3])
    monkeypatch.setattr(bench, "CHOICES", few)
    found = bench.measure([20], shots=(1,))
    size = {row["choice"]: row["bytes"] for row in found["rows"]}
    assert size["mixflow"] <= 0.35 * size["unrolled(remat=False)"]
    assert size["mixflow"] < size["unrolled"]


def test_the_command(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "CHOICES", {"first_order": bench.FirstOrder()})
    monkeypatch.setattr(bench, "SHOTS", (1,))
    out = tmp_path / "bench.json"
    main(["bench", "meta-gradient", "--inner-steps", "1", "--out", str(out)])
    assert "Meta-gradient of one 5-way task on cpu" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert [row["inner_steps"] for row in found["rows"]] == [1]
    assert found["command"].startswith("jaxmeta bench meta-gradient")
