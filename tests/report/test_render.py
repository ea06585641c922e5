import json

import pytest

from jaxmeta import Experiment, Optimizer
from jaxmeta.core.experiment import Evaluation
from jaxmeta.core.fit import complete
from jaxmeta.core.progress import Progress
from jaxmeta.core.run import Run
from jaxmeta.core.testing import smoke_learner, smoke_source
from jaxmeta.core.writers import JsonlWriter
from jaxmeta.report.render import render


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    experiment = Experiment(
        learner=smoke_learner(),
        source=smoke_source(),
        optimizer=Optimizer(learning_rate=0.05),
        evaluation=Evaluation(
            every=4, num_validation_tasks=8, num_test_tasks=16, tasks_per_batch=8
        ),
        tasks_per_step=8,
        steps=8,
        log_every=2,
    )
    run = Run.open(tmp_path_factory.mktemp("runs") / "smoke", experiment)
    writer = JsonlWriter(run.metrics_path)
    complete(run, writer, Progress(8, quiet=True))
    writer.close()
    return run.directory


def test_run(directory):
    text = render(directory)
    assert text == (directory / "report.md").read_text()
    result = json.loads((directory / "result.json").read_text())
    assert f"{result['loss']['mean']:.3f}".lstrip("0") in text
    assert "SmokeLearner on SmokeSource" in text
    assert (directory / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_render(tmp_path):
    with pytest.raises(ValueError, match=r"no card\.json: it is no run directory"):
        render(tmp_path)
    with pytest.raises(ValueError, match="no run directory"):
        render(tmp_path / "nowhere")


def test_unreadable_metrics_are_named(directory, tmp_path):
    (tmp_path / "card.json").write_bytes((directory / "card.json").read_bytes())
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        render(tmp_path)
