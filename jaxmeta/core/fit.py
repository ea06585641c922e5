"""`fit`: the outer loop with logging, validation, checkpoints and resumption."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import hosts
from jaxmeta.core.checkpoint import CheckpointError, Checkpoints
from jaxmeta.core.evaluate import TaskValues
from jaxmeta.core.experiment import Experiment
from jaxmeta.core.loops import loops_well
from jaxmeta.core.metrics import (
    Interval,
    Metrics,
    Values,
    merge,
    sum_first_axis,
    to_values,
)
from jaxmeta.core.preemption import PreemptedError, Preemption
from jaxmeta.core.procedure import Procedure
from jaxmeta.core.progress import Progress
from jaxmeta.core.run import Run, read_json, reading, write_json
from jaxmeta.core.task import DeviceSource, Task, draw_on_shards
from jaxmeta.core.train import (
    DRAW,
    EVALUATE,
    INIT,
    LEARN,
    TrainState,
    init_state,
    make_train_step,
    step_key,
)
from jaxmeta.core.validation import Validation, evaluator_of, spreads
from jaxmeta.core.writers import Writer

Advance = Callable[[TrainState, int], tuple[TrainState, Metrics]]


class NonFiniteError(Exception):
    """Too many steps in a row had a non-finite loss or update."""


def initial_state(experiment: Experiment) -> TrainState:
    """The state of an experiment before its first step, on its devices."""
    state = _first_state(experiment, experiment.source.example)
    return jax.device_put(state, experiment.parallel.placement(state))


def shapes_of_state(experiment: Experiment) -> TrainState:
    """Shape, dtype and placement of every leaf of its states; nothing is computed."""
    source = experiment.source
    example = source.shapes if isinstance(source, DeviceSource) else source.example
    shapes = jax.eval_shape(functools.partial(_first_state, experiment), example)
    placed = lambda leaf, sharding: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=sharding
    )
    return jax.tree.map(placed, shapes, experiment.parallel.placement(shapes))


def _first_state(experiment: Experiment, example: Task) -> TrainState:
    aggregator, tx = experiment.optimizer.make()
    root = jax.random.key(experiment.seed)
    return init_state(
        experiment.learner,
        tx,
        aggregator,
        key=step_key(root, INIT, 0),
        example=example,
    )


def make_advance(experiment: Experiment) -> Advance:
    """`advance(state, n) -> (state, metrics)`: n outer steps.

    From a device source they are one `lax.scan` and one dispatch, unless this machine
    is slow at that (`core.loops`). Otherwise, and from a host source, they go step by
    step, and the tasks of the next step are drawn while this one runs.
    """
    aggregator, tx = experiment.optimizer.make()
    parallel, source = experiment.parallel, experiment.source
    step = make_train_step(
        experiment.learner,
        tx,
        aggregator,
        parallel=parallel,
        precision=experiment.precision,
        max_skips=experiment.max_skips,
        step_metrics=experiment.step_metrics,
    )
    root = jax.random.key(experiment.seed)
    slots = jnp.arange(experiment.tasks_per_step)
    like = shapes_of_state(experiment)

    if isinstance(source, DeviceSource):
        slots = parallel.split_rows(slots)
        draw = draw_on_shards(source, parallel, "train")
        data = parallel.replicate(source.load())

        def scan(state, data, slots, root, *, num_steps):
            def tasks_of(state):
                return draw(data, step_key(root, DRAW, state.step), slots)

            # Tasks go round the loop, one step ahead, so that they are arrays. Drawn in
            # the step that uses them they are fused into it, and XLA computes a random
            # number again for every product it occurs in: three times the CPU time.
            def one(carry, _):
                state, tasks = carry
                state, metrics = step(state, tasks, step_key(root, LEARN, state.step))
                return (state, tasks_of(state)), metrics

            carry = (state, tasks_of(state))
            (state, _), metrics = jax.lax.scan(one, carry, length=num_steps)
            return state, sum_first_axis(metrics)

        if loops_well(step, like, *_shapes_of_a_step(experiment)):
            compiled = parallel.jit_step(scan, like, static_argnames="num_steps")
            return lambda state, n: compiled(state, data, slots, root, num_steps=n)
        compiled_draw = jax.jit(draw)
        draw_step = lambda i: compiled_draw(data, step_key(root, DRAW, i), slots)
    else:

        def draw_step(i):
            draw = functools.partial(
                source.sample, step_key(root, DRAW, i), split="train"
            )
            return parallel.draw_rows(draw, slots)

    compiled_step = parallel.jit_step(step, like)

    def walk(state, num_steps):
        first = int(state.step)
        metrics = []
        with ThreadPoolExecutor(max_workers=1) as drawer:
            ahead = drawer.submit(draw_step, first)
            for i in range(first, first + num_steps):
                tasks = ahead.result()
                if i + 1 < first + num_steps:
                    ahead = drawer.submit(draw_step, i + 1)
                state, now = compiled_step(state, tasks, step_key(root, LEARN, i))
                metrics.append(now)
                # Never far ahead of the devices: their queues are finite.
                jax.block_until_ready(metrics[-2:][0])
        return state, functools.reduce(merge, metrics)

    return walk


def _shapes_of_a_step(experiment: Experiment) -> tuple[Any, Any]:
    """The shapes of tasks and key of a step; nothing is put on a device."""
    source, key = experiment.source, jax.random.key(0)
    assert isinstance(source, DeviceSource)
    many = lambda s: jax.ShapeDtypeStruct(
        (experiment.tasks_per_step, *s.shape), s.dtype
    )
    return jax.tree.map(many, source.shapes), key


def fit(run: Run[Experiment], writer: Writer, progress: Progress) -> TrainState:
    """Trains until `experiment.steps`, from the newest checkpoint if there is one.

    The order below matters: the metrics of a step are on disk before its checkpoint
    is, so a run killed at any moment resumes to the same numbers, bit for bit.

    Args:
      run: where it is kept, and what is trained.
      writer: takes the metrics; told first from which step the run goes on.
      progress: shows them.

    Returns:
      The state after the last step.

    Raises:
      NonFiniteError: after more than `max_skips` non-finite steps in a row.
      CheckpointError: if a checkpoint cannot be written or none can be read, or the
        metrics of the run so far are damaged.
      PreemptedError: after SIGTERM, at the end of the steps that were being taken.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> from jaxmeta.core.testing import smoke_learner, smoke_source
      >>> from jaxmeta.core.writers import JsonlWriter
      >>> experiment = Experiment(
      ...     learner=smoke_learner(), source=smoke_source(), steps=4, log_every=2
      ... )
      >>> run = Run.open(Path(tempfile.mkdtemp()), experiment)
      >>> writer = JsonlWriter(run.metrics_path)
      >>> state = fit(run, writer, Progress(experiment.steps, quiet=True))
      >>> writer.close()
      >>> int(state.step), run.latest.steps()
      (4, [4])
    """
    experiment, latest = run.experiment, run.latest
    like = shapes_of_state(experiment)
    found = latest.restore(like)
    state = initial_state(experiment) if found is None else found[0]
    advance, validation = make_advance(experiment), Validation(run, like)
    done = int(state.step)
    with reading(run.directory):
        writer.resume(done)
    progress.resume(done)
    with closing(latest), closing(validation), Preemption() as preemption:
        while done < experiment.steps:
            until_log = experiment.log_every - done % experiment.log_every
            num_steps = min(until_log, experiment.steps - done)
            started = time.perf_counter()
            state, metrics = advance(state, num_steps)
            values = to_values(metrics, "train/")
            seconds = time.perf_counter() - started
            done += num_steps
            # Before any checkpoint, of which orbax tells JAX, too.
            asked = preemption.reached(done, num_steps) and done < experiment.steps
            stuck = (skipped := int(state.skipped)) > experiment.max_skips
            if validation.due(done) and not stuck:
                # Two that are written at once get in each other's way.
                latest.finish()
                values |= validation(state, done)
            rate = num_steps * experiment.tasks_per_step / seconds
            # An average of nothing is left out, so that every line is valid JSON.
            shown = {name: value for name, value in values.items() if _is_json(value)}
            writer.write(done, {**shown, "time/tasks_per_second": rate})
            progress.update(done, values, rate)
            if skipped and (stuck or asked):
                _save_last_good(latest, state, done - skipped)
            if stuck:
                raise NonFiniteError(_why_it_ended(latest, done, skipped))
            every = experiment.checkpoint.every
            # After a skipped step there is nothing new to keep, and what was kept
            # before may be the last that is good.
            due = asked or (every and done % every == 0)
            if done == experiment.steps or (due and not skipped):
                latest.save(done, state)
            if asked:
                raise PreemptedError(_how_it_goes_on(latest, done, skipped))
    return state


def _is_json(value: Values) -> bool:
    return isinstance(value, list) or math.isfinite(value)


def _save_last_good(latest: Checkpoints, state: TrainState, step: int) -> None:
    """Saves a state as of its last step that was not skipped, if there is one.

    Nothing but the counters has moved since.
    """
    if hosts.as_first(step > max(latest.steps(), default=0)):
        good = dataclasses.replace(
            state,
            step=jnp.full_like(state.step, step),
            skipped=jnp.zeros_like(state.skipped),
        )
        latest.save(step, good)


def _how_it_goes_on(latest: Checkpoints, step: int, skipped: int) -> str:
    kept = step - skipped
    then = f"goes on from step {kept}, whose checkpoint is in {latest.directory}"
    if not kept:
        then = "begins anew, as every step so far was skipped"
    return f"asked to end at step {step}. The same command {then}."


def _why_it_ended(latest: Checkpoints, step: int, skipped: int) -> str:
    said = ""
    try:
        latest.finish()
    except CheckpointError as error:
        said = f" Also: {error}"
    steps = latest.steps()
    last = f"step {steps[-1]} in {latest.directory}" if steps else "none was written"
    return (
        f"the loss or update was not finite in {skipped} steps in a row (before step "
        f"{step}). Last good checkpoint: {last}. Lower the learning rates or clip."
        f"{said}"
    )


def restored_state(run: Run[Experiment]) -> TrainState:
    """The state that is tested: the last, or the best validated one.

    Raises:
      CheckpointError: if there is no checkpoint of it.
    """
    which = run.experiment.evaluation.checkpoint
    checkpoints = run.best if which == "best" else run.latest
    found = checkpoints.restore(shapes_of_state(run.experiment))
    checkpoints.close()
    if found is None:
        raise CheckpointError(
            f"{run.directory} has no {which} checkpoint: train it to its end, or if "
            "its files were deleted, delete it and train it again."
        )
    return found[0]


def measure(run: Run[Experiment], *, num_tasks: int | None = None) -> TaskValues:
    """Test metrics of a trained run, one value per held-out task.

    Uses the last state or the best validated one, as the experiment says.

    Args:
      run: a run with a checkpoint.
      num_tasks: how many tasks; as many as the experiment says when None.

    Raises:
      CheckpointError: if there is no checkpoint to measure.
    """
    settings, state = run.experiment.evaluation, restored_state(run)
    key = step_key(jax.random.key(run.experiment.seed), EVALUATE, 1)
    evaluator = evaluator_of(run.experiment, "test")
    num_tasks = num_tasks or settings.num_test_tasks
    return evaluator(state.params, state.model_state, key, num_tasks)


def complete(run: Run, writer: Writer, progress: Progress) -> dict[str, Interval]:
    """Trains a run to its end, measures it on test tasks and writes its result.

    A `Procedure` does both in its own way. A run that is already finished is not
    touched.

    Args:
      run: where it is kept, and what is trained or measured.
      writer: takes the metrics.
      progress: shows them.

    Returns:
      Mean, interval over tasks and extremes of every test metric.
    """
    if not hosts.as_first(run.finished):
        first = hosts.is_first()
        write_card = run.keep_card() if first else lambda: None
        if first:
            # It is there without rows, too, so that one that is missing was lost.
            run.metrics_path.touch()
        try:
            if isinstance(run.experiment, Procedure):
                values = run.experiment.perform(run.directory, writer, progress)
            else:
                fit(run, writer, progress)
                values = measure(run)
        except BaseException:
            # What ended it must be told, not that the card could not be written.
            with suppress(OSError):
                write_card()
            raise
        if not first:
            return spreads(values)
        np.savez(run.directory / "test_tasks.npz", **values)  # pyright: ignore[reportArgumentType]
        write_card()
        summary = {name: spread._asdict() for name, spread in spreads(values).items()}
        write_json(run.result_path, summary)
    return result(run)


def result(run: Run) -> dict[str, Interval]:
    """What a finished run measured on its test tasks.

    Raises:
      ValueError: if it is not finished, or its result cannot be read.
    """
    try:
        spreads = read_json(run.result_path)
        return {name: _interval_of(spread) for name, spread in spreads.items()}
    except (AttributeError, TypeError) as error:
        raise ValueError(
            f"{run.result_path} is damaged; delete it to measure the run again."
        ) from error


def _interval_of(spread: dict[str, Any]) -> Interval:
    known: dict[str, Any] = {k: math.nan if x is None else x for k, x in spread.items()}
    return Interval(**known)
