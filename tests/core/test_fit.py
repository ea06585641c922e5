"""Training from end to end: what is logged, kept, resumed and refused."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import (
    Mean,
    Optimizer,
    Parallel,
    TaskSource,
    init_state,
    make_train_step,
)
from jaxmeta.core.checkpoint import CheckpointError
from jaxmeta.core.experiment import Checkpointing, Evaluation
from jaxmeta.core.fit import (
    NonFiniteError,
    complete,
    fit,
    initial_state,
    make_advance,
    measure,
)
from jaxmeta.core.preemption import PreemptedError, Preemption
from jaxmeta.core.run import Run
from jaxmeta.core.testing import (
    SmokeHostSource,
    SmokeLearner,
    assert_trees_close,
    smoke_source,
)
from jaxmeta.core.train import DRAW, INIT, LEARN, step_key
from jaxmeta.core.writers import JsonlWriter, Writer, read_jsonl


class Killed(Exception):
    """What the tests end a run with."""


class KillingWriter(Writer):
    """Writes as JsonlWriter does, and dies at a step."""

    def __init__(self, path, at, *, before: bool):
        self._inner = JsonlWriter(path)
        self._at, self._before = at, before

    def resume(self, step):
        self._inner.resume(step)

    def write(self, step, values):
        if step == self._at and self._before:
            raise Killed
        self._inner.write(step, values)
        if step == self._at:
            raise Killed

    def close(self):
        self._inner.close()


def _resume(run, progress):
    """What the command line does: drop later rows, then go on."""
    writer = JsonlWriter(run.metrics_path)
    state = fit(run, writer, progress)
    writer.close()
    return state


def _untimed(path):
    return [
        {name: value for name, value in row.items() if not name.startswith("time/")}
        for row in read_jsonl(path)
    ]


@pytest.fixture(scope="module")
def sharded(small_experiment):
    """Eight steps on four devices, drawn on the device."""
    return small_experiment(parallel=Parallel())


@pytest.fixture(scope="module")
def whole(tmp_path_factory, sharded):
    """That run from start to end, uninterrupted: `(run, last state)`."""
    from jaxmeta.core.progress import Progress

    run = Run.open(tmp_path_factory.mktemp("whole"), sharded)
    return run, _resume(run, Progress(1, quiet=True))


def test_every_interval_is_logged_and_validations_beside_it(whole):
    run, _ = whole
    rows = _untimed(run.metrics_path)
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    for row in rows:
        assert row["train/skipped"] == 0
        assert np.isfinite(row["train/loss"])
        validated = {name for name in row if name.startswith("validation/")}
        expected = {"loss", "loss_low", "loss_high"} if row["step"] % 4 == 0 else set()
        assert validated == {f"validation/{name}" for name in expected}
    assert all("time/tasks_per_second" in row for row in read_jsonl(run.metrics_path))


def test_training_learns(whole):
    run, state = whole
    rows = _untimed(run.metrics_path)
    assert rows[-1]["validation/loss"] < 0.9 * rows[1]["validation/loss"]
    assert int(state.step) == 8


@pytest.mark.parametrize("before", [True, False], ids=["before-row", "after-row"])
@pytest.mark.parametrize("at", [2, 4, 6, 8])
def test_a_killed_run_resumes_to_the_same_bits(
    at, before, whole, sharded, tmp_path, quiet
):
    reference, last = whole
    run = Run.open(tmp_path, sharded)
    writer = KillingWriter(run.metrics_path, at, before=before)
    with pytest.raises(Killed):
        fit(run, writer, quiet)
    writer.close()
    with run.metrics_path.open("a") as file:
        file.write('{"step": 9, "trai')  # torn by the kill
    state = _resume(run, quiet)
    assert_trees_close(state, last, rtol=0.0, atol=0.0)
    assert _untimed(run.metrics_path) == _untimed(reference.metrics_path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noisy(SmokeLearner):
    """The smoke learner with a gradient that depends on its key."""

    def loss(self, params, model_state, task, key):
        loss, rest = super().loss(params, model_state, task, key)
        return loss + params["b"] * jax.random.normal(key), rest


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnHost(TaskSource):
    """The smoke source again, but the harness cannot know that it is jittable."""

    @property
    def example(self):
        return smoke_source().example

    def sample(self, key, slots, *, split):
        return smoke_source().sample(key, slots, split=split)


@pytest.mark.parametrize("source", [smoke_source(), OnHost()], ids=repr)
def test_advance_is_a_loop_of_ones_own(small_experiment, source):
    """The same keys and the same tasks, by the public functions."""
    experiment = small_experiment(learner=Noisy(), source=source)
    advanced, metrics = make_advance(experiment)(initial_state(experiment), 2)
    (aggregator, tx), learner = experiment.optimizer.make(), experiment.learner
    root = jax.random.key(experiment.seed)
    step = make_train_step(learner, tx, aggregator, parallel=experiment.parallel)
    step, draw = jax.jit(step), jax.jit(lambda key: _four_tasks(source, key))
    state = init_state(
        learner, tx, aggregator, key=step_key(root, INIT, 0), example=source.example
    )
    total = Mean(jnp.zeros(()), jnp.zeros(()))
    for i in range(2):
        tasks = draw(step_key(root, DRAW, i))
        state, now = step(state, tasks, step_key(root, LEARN, i))
        total = jax.tree.map(jnp.add, total, now["loss"])
    # One program or several, the sums round differently; Adam divides by them.
    assert_trees_close(advanced.params, state.params, rtol=1e-4, atol=1e-5)
    assert_trees_close(metrics["loss"], total, rtol=1e-4, atol=1e-5)


def _four_tasks(source, key):
    return source.sample(key, jnp.arange(4), split="train")


@pytest.mark.parametrize("backend", ["vmap", "shard_map"])
def test_a_host_source_trains_as_a_device_source_does(small_experiment, backend):
    ends = []
    for source in (smoke_source(), OnHost()):
        experiment = small_experiment(source=source, parallel=Parallel(backend=backend))
        advance = make_advance(experiment)
        state, first = advance(initial_state(experiment), 2)
        state, second = advance(state, 3)
        assert int(state.step) == 5
        ends.append((state.params, state.opt_state, first, second))
    # One program or two, the sums round differently; Adam divides by them.
    assert_trees_close(*ends, rtol=1e-4, atol=1e-5)


def test_a_run_from_the_host_resumes_to_the_same_bits(
    small_experiment, tmp_path, quiet
):
    experiment = small_experiment(source=SmokeHostSource())
    whole = Run.open(tmp_path / "whole", experiment)
    last = _resume(whole, quiet)
    run = Run.open(tmp_path / "killed", experiment)
    writer = KillingWriter(run.metrics_path, 6, before=False)
    with pytest.raises(Killed):
        fit(run, writer, quiet)
    writer.close()
    assert_trees_close(_resume(run, quiet), last, rtol=0.0, atol=0.0)
    assert _untimed(run.metrics_path) == _untimed(whole.metrics_path)


def test_steps_that_are_no_multiple_of_log_every_are_all_done(
    small_experiment, tmp_path, quiet
):
    experiment = small_experiment(
        steps=7,
        log_every=3,
        evaluation=Evaluation(every=6, num_validation_tasks=4, tasks_per_batch=4),
        checkpoint=Checkpointing(every=3),
    )
    run = Run.open(tmp_path, experiment)
    state = _resume(run, quiet)
    rows = _untimed(run.metrics_path)
    assert [row["step"] for row in rows] == [3, 6, 7]
    assert int(state.step) == 7
    assert run.latest.steps() == [6, 7]
    # The last step is validated whatever its number.
    assert ["validation/loss" in row for row in rows] == [False, True, True]


def test_a_damaged_newest_checkpoint_changes_nothing_but_a_warning(
    whole, sharded, tmp_path, quiet
):
    reference, last = whole
    shutil.copytree(reference.directory, tmp_path, dirs_exist_ok=True)
    run = Run.open(tmp_path, sharded)
    newest = run.directory / "checkpoints" / "latest" / "8" / "state"
    for path in newest.rglob("manifest.ocdbt"):
        path.write_bytes(path.read_bytes()[:-1])
    writer = JsonlWriter(run.metrics_path)
    with pytest.warns(UserWarning, match="going on from step 4") as caught:
        state = fit(run, writer, quiet)
    writer.close()
    assert len(caught) == 1
    assert_trees_close(state, last, rtol=0.0, atol=0.0)
    assert _untimed(run.metrics_path) == _untimed(reference.metrics_path)


# What is not finite.


def _overflowing(start: float) -> Optimizer:
    """Sgd whose rate is far too large."""
    return Optimizer(transform=optax.sgd, learning_rate=start)


def test_non_finite_training_stops_and_names_the_last_good_checkpoint(
    small_experiment, tmp_path, quiet
):
    experiment = small_experiment(
        optimizer=_overflowing(1e4),
        steps=100,
        max_skips=1,
        checkpoint=Checkpointing(every=2),
        evaluation=Evaluation(num_test_tasks=4, tasks_per_batch=4),
    )
    run = Run.open(tmp_path, experiment)
    writer = JsonlWriter(run.metrics_path)
    with pytest.raises(NonFiniteError, match="was not finite in") as caught:
        fit(run, writer, quiet)
    writer.close()
    steps = run.latest.steps()
    assert steps
    assert f"step {steps[-1]} in {run.latest.directory}" in str(caught.value)
    assert "\n" not in str(caught.value)
    state = run.latest.restore(initial_state(experiment))[0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    # Every line is JSON that any program reads, which nan is not.
    for line in run.metrics_path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in a row"))


def test_non_finite_training_keeps_the_last_good_state(
    small_experiment, tmp_path, quiet
):
    experiment = small_experiment(
        optimizer=_overflowing(1e15),
        steps=40,
        log_every=20,
        max_skips=0,
        checkpoint=Checkpointing(),
        evaluation=Evaluation(),
    )
    run = Run.open(tmp_path, experiment)
    writer = JsonlWriter(run.metrics_path)
    with pytest.raises(NonFiniteError, match="Last good checkpoint: step") as error:
        fit(run, writer, quiet)
    writer.close()
    (good,) = run.latest.steps()
    assert f"step {good} in" in str(error.value)
    state = run.latest.restore(initial_state(experiment))[0]
    assert (int(state.step), int(state.skipped)) == (good, 0)
    advance = make_advance(dataclasses.replace(experiment, max_skips=100))
    expected, _ = advance(initial_state(experiment), good)
    assert_trees_close(state.params, expected.params, rtol=0.0, atol=0.0)
    assert int(advance(expected, 1)[0].skipped) == 1


def test_a_run_that_is_asked_to_end_while_it_skips_keeps_its_last_good_state(
    small_experiment, tmp_path, quiet, monkeypatch
):
    experiment = small_experiment(
        optimizer=_overflowing(1e15),
        steps=40,
        log_every=20,
        max_skips=40,
        checkpoint=Checkpointing(),
        evaluation=Evaluation(),
    )
    monkeypatch.setattr(Preemption, "reached", lambda self, step, num_steps: True)
    run = Run.open(tmp_path, experiment)
    writer = JsonlWriter(run.metrics_path)
    with pytest.raises(PreemptedError, match="asked to end at step 20") as error:
        fit(run, writer, quiet)
    writer.close()
    (good,) = run.latest.steps()
    assert 0 < good < 20
    assert f"goes on from step {good}, whose" in str(error.value)
    state, _ = run.latest.restore(initial_state(experiment))
    assert (int(state.step), int(state.skipped)) == (good, 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_a_run_that_is_asked_to_end_with_nothing_to_keep_says_that_it_begins_anew(
    small_experiment, tmp_path, quiet, monkeypatch
):
    experiment = small_experiment(
        optimizer=_overflowing(3e38), steps=4, log_every=2, max_skips=4
    )
    monkeypatch.setattr(Preemption, "reached", lambda self, step, num_steps: True)
    run = Run.open(tmp_path, experiment)
    writer = JsonlWriter(run.metrics_path)
    with pytest.raises(PreemptedError, match="begins anew, as every step so far was"):
        fit(run, writer, quiet)
    writer.close()
    assert run.latest.steps() == []


# The best checkpoint.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wave(SmokeLearner):
    """Its weights count the steps, and `score` of the count is what it validates to."""

    scores: tuple[float, ...]

    def loss(self, params, model_state, task, key):
        errors = -params["b"]
        return errors, ({"loss": Mean.of(errors)}, model_state)

    def evaluate(self, params, model_state, task, key):
        step = jnp.round(params["b"]).astype(jnp.int32)
        return {"score": Mean.of(jnp.array(self.scores)[step // 2 - 1])}


def _wave_run(small_experiment, tmp_path, quiet, mode, scores):
    experiment = small_experiment(
        learner=Wave(scores=scores),
        optimizer=Optimizer(transform=optax.sgd, learning_rate=1.0),
        evaluation=Evaluation(
            every=2,
            num_validation_tasks=4,
            num_test_tasks=4,
            tasks_per_batch=4,
            checkpoint="best",
            metric="score",
            mode=mode,
        ),
    )
    run = Run.open(tmp_path, experiment)
    _resume(run, quiet)
    return run


class Spread(Wave):
    """Its worst task is worse by as much as the weights, but its mean is not."""

    def evaluate(self, params, model_state, task, key):
        mean = super().evaluate(params, model_state, task, key)["score"].total
        step = jnp.round(params["b"])
        sign = jnp.where(task.query.inputs.sum() > 0, 1.0, -1.0)
        return {"score": Mean.of(mean + step * sign)}


@pytest.mark.parametrize(("over_tasks", "best"), [("mean", 8), ("worst", 2)])
def test_the_best_may_be_that_of_the_worst_task(
    small_experiment, tmp_path, quiet, over_tasks, best
):
    scores = (0.0, 0.25, 0.5, 10.0) if over_tasks == "mean" else (0.0, 0.1, 0.2, 0.3)
    experiment = small_experiment(
        learner=Spread(scores=scores),
        optimizer=Optimizer(transform=optax.sgd, learning_rate=1.0),
        evaluation=Evaluation(
            every=2,
            num_validation_tasks=16,
            num_test_tasks=4,
            tasks_per_batch=4,
            checkpoint="best",
            metric="score",
            mode="max",
            over_tasks=over_tasks,
        ),
    )
    run = Run.open(tmp_path, experiment)
    _resume(run, quiet)
    state, extra = run.best.restore(initial_state(run.experiment))
    assert int(state.step) == best
    rows = [row for row in read_jsonl(run.metrics_path) if row["step"] == best]
    name = "worst_score" if over_tasks == "worst" else "score"
    assert extra["value"] == pytest.approx(rows[0][f"validation/{name}"])


@pytest.mark.parametrize(
    ("mode", "scores", "best"),
    [
        ("min", (3.0, 1.0, 2.0, 1.5), 4),
        ("max", (3.0, 1.0, 4.0, 1.5), 6),
        ("min", (1.0, 1.0, 1.0, 1.0), 2),  # the first of equals
        ("max", (0.5, 0.625, 0.75, 0.875), 8),
        ("min", (float("nan"), 3.0, 2.0, 5.0), 6),
        ("max", (float("nan"), 3.0, float("nan"), 2.0), 4),
        ("max", (1.0, float("nan"), float("inf"), 2.0), 6),
    ],
)
def test_the_best_checkpoint_is_kept(
    small_experiment, tmp_path, quiet, mode, scores, best
):
    run = _wave_run(small_experiment, tmp_path, quiet, mode, scores)
    state, extra = run.best.restore(initial_state(run.experiment))
    assert int(state.step) == best
    assert extra["value"] == scores[best // 2 - 1]
    assert run.latest.steps()[-1] == 8
    assert measure(run)["score"].tolist() == [scores[best // 2 - 1]] * 4


def test_a_resumed_run_remembers_its_best(small_experiment, tmp_path, quiet):
    scores = (1.0, 2.0, 5.0, 4.0)
    run = _wave_run(small_experiment, tmp_path, quiet, "min", scores)
    for step in run.latest.steps():
        if step > 4:
            shutil.rmtree(run.latest.directory / str(step))
    _resume(run, quiet)
    assert int(run.best.restore(initial_state(run.experiment))[0].step) == 2


# Measuring and finishing.


@pytest.fixture(scope="module")
def finished(whole):
    """The whole run, measured: `(run, result)`."""
    from jaxmeta.core.progress import Progress

    run, _ = whole
    writer = JsonlWriter(run.metrics_path)
    result = complete(run, writer, Progress(1, quiet=True))
    writer.close()
    return run, result


def test_a_finished_run_has_its_result(finished):
    run, result = finished
    assert run.finished
    assert set(result) == {"loss"}
    assert result["loss"].count == 10
    with np.load(run.directory / "test_tasks.npz") as tasks:
        np.testing.assert_allclose(tasks["loss"].mean(), result["loss"].mean)


def test_a_finished_run_is_not_touched(finished, quiet):
    run, result = finished
    files = [p for p in run.directory.rglob("*") if p.is_file()]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    class Forbidden(Writer):
        def resume(self, step):
            pytest.fail("a finished run was opened")

        def write(self, step, values):
            pytest.fail("a finished run was trained")

        def close(self): ...

    assert complete(run, Forbidden(), quiet) == result
    files = [p for p in run.directory.rglob("*") if p.is_file()]
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
    assert after == before


def test_measuring_again_gives_the_same_and_fewer_are_the_first(finished):
    run, _ = finished
    with np.load(run.directory / "test_tasks.npz") as tasks:
        stored = tasks["loss"]
    np.testing.assert_array_equal(measure(run)["loss"], stored)
    # Another number of batches is another program.
    np.testing.assert_allclose(measure(run, num_tasks=3)["loss"], stored[:3], rtol=1e-6)


def test_a_run_without_a_checkpoint_cannot_be_measured(small_experiment, tmp_path):
    run = Run.open(tmp_path, small_experiment())
    with pytest.raises(CheckpointError, match="no latest checkpoint: train it to its"):
        measure(run)


def test_a_checkpoint_that_cannot_be_written_is_named(
    small_experiment, tmp_path, quiet
):
    run = Run.open(tmp_path, small_experiment())
    (tmp_path / "checkpoints").write_text("in the way")
    writer = JsonlWriter(run.metrics_path)
    with pytest.raises(CheckpointError, match="cannot write the checkpoint") as caught:
        fit(run, writer, quiet)
    writer.close()
    assert "\n" not in str(caught.value)


def test_a_damaged_best_does_not_stop_a_run_that_tests_its_last_state(
    small_experiment, tmp_path, quiet
):
    run = Run.open(tmp_path, small_experiment(steps=4))
    _resume(run, quiet)
    for meta in run.best.directory.rglob("meta"):
        shutil.rmtree(meta)
    longer = Run(tmp_path, small_experiment(steps=8))
    with pytest.warns(UserWarning, match="looking for the best anew|best anew"):
        state = _resume(longer, quiet)
    assert int(state.step) == 8
