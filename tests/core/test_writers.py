"""The metrics file: what a kill can leave of it, and what is made of that."""

import json
import sys

import pytest

from jaxmeta.core.writers import (
    JsonlWriter,
    TensorboardWriter,
    WandbWriter,
    Writer,
    Writers,
)
from jaxmeta.core.writers import read_jsonl as read

ROWS = [{"step": step, "loss": 1 / step} for step in (10, 20, 30)]


@pytest.fixture
def path(tmp_path):
    """A metrics file with three rows."""
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def _reopen(path, resume_step, *rows):
    writer = JsonlWriter(path)
    writer.resume(resume_step)
    for row in rows:
        writer.write(row["step"], {k: v for k, v in row.items() if k != "step"})
    writer.close()


def test_rows_come_back_as_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    _reopen(path, 0, *ROWS)
    assert read(path) == ROWS


def test_a_row_is_on_disk_before_the_writer_is_closed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = JsonlWriter(path)
    writer.write(1, {"loss": 0.1})
    assert read(path) == [{"step": 1, "loss": 0.1}]
    writer.close()


LISTS = {"loss": 0.5, "a/norms": [0.1, None], "a/cosines": [[1.0, None], [None, 1.0]]}


def test_lists_with_gaps_come_back_as_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    _reopen(path, 0, {"step": 1, **LISTS})
    assert read(path) == [{"step": 1, **LISTS}]
    assert "null" in path.read_text()


def test_resuming_keeps_lists_as_they_were(tmp_path):
    path = tmp_path / "metrics.jsonl"
    _reopen(path, 0, {"step": 1, **LISTS}, {"step": 2, **LISTS})
    whole = path.read_bytes()
    _reopen(path, 1, {"step": 2, **LISTS})
    assert path.read_bytes() == whole


def test_floats_are_written_exactly(tmp_path):
    path = tmp_path / "metrics.jsonl"
    _reopen(path, 0, {"step": 1, "loss": 0.1 + 0.2})
    assert read(path)[0]["loss"] == 0.1 + 0.2


@pytest.mark.parametrize("step", [0, 10, 19, 20, 30])
def test_resuming_drops_later_rows_and_no_other(path, step):
    _reopen(path, step)
    assert read(path) == [row for row in ROWS if row["step"] <= step]


def test_a_resumed_file_equals_an_uninterrupted_one(path):
    whole = path.read_bytes()
    _reopen(path, 10, *ROWS[1:])
    assert path.read_bytes() == whole


@pytest.mark.parametrize("cut", range(1, 25, 4))
def test_a_torn_last_line_is_left_out(path, cut):
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    # Without its newline alone the last row is still whole.
    assert read(path) == (ROWS if cut == 1 else ROWS[:2])
    _reopen(path, 20, ROWS[2])
    assert path.read_bytes() == whole


@pytest.mark.parametrize("torn", ["", "{", '{"step": 4', '{"step": 40, "lo'])
def test_a_torn_line_does_not_swallow_what_follows(path, torn):
    with path.open("a") as file:
        file.write(torn)
    _reopen(path, 30, {"step": 40, "loss": 0.0})
    assert [row["step"] for row in read(path)] == [10, 20, 30, 40]


def test_a_corrupt_middle_line_is_an_error_that_names_it(path):
    lines = path.read_text().split("\n")
    lines[1] = lines[1][:-4] + "#"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2 is not JSON"):
        read(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="line 2"):
        JsonlWriter(path).resume(30)
    assert path.read_bytes() == before


@pytest.mark.parametrize("line", ["5", "[]", '{"loss": 1.0}', '"step"', "null"])
def test_a_line_that_is_no_row_is_an_error_that_names_it(path, line):
    path.write_text(line + "\n" + path.read_text())
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 1"):
        JsonlWriter(path).resume(30)


def test_bytes_that_are_no_text_are_an_error_that_names_the_file(path):
    path.write_bytes(b"\xff" + path.read_bytes())
    with pytest.raises(ValueError, match=r"metrics.jsonl is damaged"):
        read(path)


def test_an_empty_file_has_no_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.touch()
    assert read(path) == []


def test_a_writer_that_wrote_nothing_made_no_file(tmp_path):
    writer = JsonlWriter(tmp_path / "metrics.jsonl")
    writer.resume(0)
    writer.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lost", ["all", "some"])
def test_rows_that_are_lost_are_missed(lost, path):
    """Those of a step are on disk before its checkpoint is."""
    if lost == "all":
        path.unlink()
    last = {"all": 0, "some": 30}[lost]
    with pytest.warns(UserWarning, match=rf"no metrics after step {last}, .* step 50"):
        JsonlWriter(path).resume(50)
    assert path.exists() == (lost == "some")


def test_a_writer_can_be_resumed_while_it_is_open(path):
    writer = JsonlWriter(path)
    writer.write(40, {"loss": 0.0})
    writer.resume(20)
    writer.write(30, {"loss": 1 / 30})
    writer.close()
    assert read(path) == ROWS


class Recorder(Writer):
    def __init__(self):
        self.seen = []

    def resume(self, step):
        self.seen.append(step)

    def write(self, step, values):
        self.seen.append((step, dict(values)))

    def close(self):
        self.seen.append("closed")


def test_several_writers_get_the_same():
    members = Recorder(), Recorder()
    writers = Writers(members)
    writers.resume(2)
    writers.write(3, {"loss": 1.0})
    writers.close()
    for member in members:
        assert member.seen == [2, (3, {"loss": 1.0}), "closed"]


def test_tensorboard_writes_an_event_file(tmp_path):
    pytest.importorskip("tensorboardX")
    writer = TensorboardWriter(tmp_path / "tensorboard")
    writer.write(1, {"train/loss": 0.5})
    writer.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"train/loss" in events.read_bytes()


def test_tensorboard_is_told_the_numbers_and_not_the_lists(tmp_path):
    pytest.importorskip("tensorboardX")
    writer = TensorboardWriter(tmp_path / "tensorboard")
    writer.write(1, LISTS)
    writer.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    written = events.read_bytes()
    assert b"loss" in written
    assert b"a/norms" not in written
    assert b"a/cosines" not in written


def test_wandb_is_told_the_numbers_and_not_the_lists(tmp_path, monkeypatch):
    logged = []

    class Wandb:
        def init(self, **settings):
            return self

        def log(self, values, step):
            logged.append((step, values))

    monkeypatch.setitem(sys.modules, "wandb", Wandb())
    WandbWriter(tmp_path, "a", {}).write(1, LISTS)
    assert logged == [(1, {"loss": 0.5})]
