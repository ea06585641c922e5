"""What is measured and not trained is kept as a training run is."""

import dataclasses

import numpy as np
import pytest

from jaxmeta.core.fit import complete
from jaxmeta.core.procedure import Procedure
from jaxmeta.core.progress import Progress
from jaxmeta.core.run import Run, read_json
from jaxmeta.core.writers import JsonlWriter, read_jsonl

CALLS = []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ruler(Procedure):
    """Measures 0, 1, ..., and fails if there is nothing to measure."""

    length: int = 4
    seed: int = 0
    steps = 3

    def check(self):
        pass

    def perform(self, directory, writer, progress):
        CALLS.append(self)
        progress.update(3, {}, 1.0)
        marks = 6.0 / self.length * np.arange(self.length)
        writer.write(3, {"mark": marks.mean()})
        return {"mark": marks}


def completed(run):
    writer = JsonlWriter(run.metrics_path)
    found = complete(run, writer, Progress(3, quiet=True))
    writer.close()
    return found


def test_it_is_measured_once_and_kept(tmp_path):
    CALLS.clear()
    run = Run.open(tmp_path / "run", Ruler())
    found = completed(run)
    assert completed(Run.open(tmp_path / "run", Ruler())) == found
    assert [Ruler()] == CALLS
    assert (found["mark"].mean, found["mark"].largest) == (2.25, 4.5)
    with np.load(run.directory / "test_tasks.npz") as values:
        assert values["mark"].tolist() == [0, 1.5, 3, 4.5]
    assert read_jsonl(run.metrics_path) == [{"step": 3, "mark": 2.25}]
    assert read_json(run.directory / "card.json")["config"]["length"] == 4


def test_another_configuration_is_refused(tmp_path):
    Run.open(tmp_path, Ruler())
    with pytest.raises(ValueError, match=r"length: 5 here, 4 there"):
        Run.open(tmp_path, Ruler(length=5))


def test_one_that_fails_is_not_finished(tmp_path):
    run = Run.open(tmp_path, Ruler(length=0))
    with pytest.raises(ZeroDivisionError):
        completed(run)
    assert not run.finished
    assert read_json(tmp_path / "card.json")["starts"] == 1
