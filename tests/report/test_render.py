import json

import pytest

from jaxmeta import Experiment, Optimizer
from jaxmeta.core.experiment import Evaluation
from jaxmeta.core.fit import complete
from jaxmeta.core.progress import Progress
from jaxmeta.core.run import Run, write_json
from jaxmeta.core.testing import smoke_learner, smoke_source
from jaxmeta.core.writers import JsonlWriter
from jaxmeta.manipulation.render import NoOpenGLError
from jaxmeta.manipulation.suites import Suite
from jaxmeta.report.render import render
from jaxmeta.rl.control import Control


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


def test_runs_with_diagnostics_are_drawn_side_by_side(directory, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "jaxmeta.report.render.tragic_triad", lambda path, runs: drawn.append([*runs])
    )
    rows = [
        {
            "step": step,
            "train/loss": 1.0,
            "diagnostics/cosines": [[1.0, -0.5], [-0.5, 1.0]],
        }
        for step in (1, 2)
    ]
    for name in ("plain", "surgery"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "card.json").write_bytes(
            (directory / "card.json").read_bytes()
        )
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / name / "metrics.jsonl").write_text(text)
    both = [tmp_path / "plain", tmp_path / "surgery", directory]
    text = render(tmp_path / "plain", beside=both)
    assert drawn == [["plain", "surgery"]]
    assert "![triad.png](triad.png)" in text
    assert "![conflict.png](conflict.png)" in text


def test_a_film_is_left_out_only_where_nothing_can_draw_it(tmp_path, monkeypatch):
    run = Run.open(tmp_path, Control(suite=Suite(name="MT1", task="reach")))
    run.keep_card()
    write_json(run.result_path, {})
    run.metrics_path.write_text('{"step": 1}\n')

    def filming(error):
        def film(control, directory, path):
            raise error

        monkeypatch.setattr("jaxmeta.rl.film.film", film)

    filming(NoOpenGLError("no OpenGL here"))
    with pytest.warns(UserWarning, match=r"episode\.gif is left out: no OpenGL here"):
        assert "episode.gif" not in render(tmp_path)
    filming(RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        render(tmp_path)
