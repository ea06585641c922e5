"""Meta-test: adapt to held-out tasks and measure, one value per task."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.learner import Learner
from jaxmeta.core.loops import loops_well
from jaxmeta.core.metrics import Interval, Metrics, interval
from jaxmeta.core.parallel import Parallel, map_tasks_with
from jaxmeta.core.task import DeviceSource, TaskSource, draw_on_shards
from jaxmeta.core.types import (
    ModelState,
    Params,
    Precision,
    PRNGKey,
    Split,
)

TaskValues = dict[str, np.ndarray]
"""`{metric: [num_tasks]}`: the mean of a metric over the query set of each task, or of
each group where the source's tasks are parts of groups."""

Evaluator = Callable[[Params, ModelState, PRNGKey, int], TaskValues]


def make_evaluator(
    learner: Learner,
    source: TaskSource,
    *,
    split: Split = "test",
    parallel: Parallel | None = None,
    tasks_per_batch: int = 32,
    precision: Precision = "highest",
) -> Evaluator:
    """A compiled `evaluate(params, model_state, key, num_tasks) -> TaskValues`.

    Task i of an evaluation is always drawn with `fold_in(key, i)`, whatever the batch
    size and the number of devices. From a device source all batches go through one
    compiled loop, unless this machine is slow at that (`core.loops`); a host source is
    drawn batch by batch. Where tasks are parts of groups there is one value a group.

    Args:
      learner: the method.
      source: where the tasks come from.
      split: which part of the source.
      parallel: how tasks are spread over devices; all devices when None.
      tasks_per_batch: tasks evaluated at a time, a multiple of the devices.
      precision: matmul precision.

    Raises:
      ValueError: if the batch does not divide over the devices.
    """
    parallel = Parallel() if parallel is None else parallel
    parallel.check_divisible(tasks_per_batch, "tasks_per_batch")

    def measure(shared, task, key):
        params, model_state = shared
        return learner.evaluate(params, model_state, task, key), task.task_id

    over_tasks = map_tasks_with(parallel, measure)

    def on_batch(params, model_state, tasks, key, slots):
        # Slot i is drawn with `fold_in(key, i)`; no slot reaches this number.
        root = jax.random.fold_in(key, jnp.iinfo(jnp.int32).max)
        keys = jax.vmap(partial(jax.random.fold_in, root))(slots)
        tasks = parallel.split_examples(tasks)
        with jax.default_matmul_precision(precision):
            # Whole on every device, as every process reads them.
            return parallel.gather(over_tasks((params, model_state), tasks, keys))

    def on_device(params, model_state, data, key, slots):
        assert isinstance(source, DeviceSource)
        tasks = draw_on_shards(source, parallel, split)(data, key, slots)
        return on_batch(params, model_state, tasks, key, slots)

    @jax.jit
    def in_one_loop(params, model_state, data, key, slots):
        one = lambda slots: on_device(params, model_state, data, key, slots)
        return jax.lax.map(one, slots)

    compiled_batch, compiled_device = jax.jit(on_batch), jax.jit(on_device)

    def rows_of(params, model_state, key, slots):
        """What every task measured and its id, by batch: `[batch, task]`."""
        if not isinstance(source, DeviceSource):
            draw = partial(source.sample, key, split=split)
            batches = [
                compiled_batch(
                    params, model_state, parallel.draw_rows(draw, row), key, row
                )
                for row in slots
            ]
        else:
            known = (params, model_state, source.load(), key)
            if len(slots) == 1 or loops_well(on_device, *known, slots[0]):
                return jax.device_get(in_one_loop(*known, slots))
            batches = [compiled_device(*known, row) for row in slots]
        return jax.tree.map(lambda *rows: np.stack(rows), *jax.device_get(batches))

    def evaluate(params, model_state, key, num_tasks: int) -> TaskValues:
        num_batches = -(-num_tasks // tasks_per_batch)
        slots = jnp.arange(num_batches * tasks_per_batch)
        slots = slots.reshape(num_batches, tasks_per_batch)
        rows = rows_of(params, model_state, key, slots)
        flat = lambda leaf: np.asarray(leaf).reshape(-1)[:num_tasks]
        metrics, ids = jax.tree.map(flat, rows)
        if source.parts_of_groups:
            metrics = _merge_parts(metrics, ids)
        with np.errstate(invalid="ignore"):  # nothing may have been counted
            return {
                name: np.divide(mean.total, mean.count)
                for name, mean in metrics.items()
            }

    return evaluate


def _merge_parts(metrics: Metrics, ids: np.ndarray) -> Metrics:
    """Sums and counts of all tasks with one id, in ascending order of ids."""
    found, places = np.unique(ids, return_inverse=True)
    add = lambda leaf: np.bincount(places, weights=leaf, minlength=len(found))
    return jax.tree.map(add, metrics)


def evaluate(
    learner: Learner,
    params: Params,
    model_state: ModelState,
    source: TaskSource,
    *,
    key: PRNGKey,
    num_tasks: int,
    split: Split = "test",
    parallel: Parallel | None = None,
) -> dict[str, Interval]:
    """Mean, 95 % interval over tasks and extremes of every metric.

    Args:
      learner: the method.
      params: its meta-parameters.
      model_state: its running statistics.
      source: where the tasks come from.
      key: which tasks; the same key is the same tasks.
      num_tasks: how many, >= 1.
      split: which part of the source.
      parallel: how tasks are spread over devices; all devices when None.

    Raises:
      ValueError: if `num_tasks` < 1.

    Example:
      >>> from jaxmeta.core.testing import smoke_learner, smoke_source
      >>> learner, source = smoke_learner(), smoke_source()
      >>> params, state = learner.init(jax.random.key(0), source.example)
      >>> result = evaluate(
      ...     learner, params, state, source, key=jax.random.key(1), num_tasks=10
      ... )
      >>> result["loss"].count
      10
    """
    if num_tasks < 1:
        raise ValueError(f"num_tasks must be >= 1, got {num_tasks}.")
    parallel = Parallel() if parallel is None else parallel
    evaluator = make_evaluator(
        learner,
        source,
        split=split,
        parallel=parallel,
        tasks_per_batch=parallel.num_shards * max(1, 32 // parallel.num_shards),
    )
    values = evaluator(params, model_state, key, num_tasks)
    return {name: interval(rows) for name, rows in values.items()}
