"""Small things to test with: a smoke learner and source, and the agreement test."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.learner import Learner
from jaxmeta.core.metrics import Mean
from jaxmeta.core.parallel import BACKENDS, Parallel, map_tasks_with
from jaxmeta.core.task import DeviceSource, Examples, Task, TaskSource
from jaxmeta.core.types import Array, Params
from jaxmeta.core.writers import read_jsonl


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmokeLearner(Learner):
    """Least squares whose support moves the bias by one gradient step."""

    inner_rate: float = 0.1

    def init(self, key, example):
        shape = example.support.inputs.shape[-1:]
        return {"w": 0.01 * jax.random.normal(key, shape), "b": jnp.zeros(())}, ()

    def adapt(self, params, model_state, support, key):
        del model_state, key
        error = jnp.mean(support.inputs @ params["w"] + params["b"] - support.targets)
        return {**params, "b": params["b"] - self.inner_rate * error}

    def loss(self, params, model_state, task, key):
        adapted = self.adapt(params, model_state, task.support, key)
        outputs = task.query.inputs @ adapted["w"] + adapted["b"]
        errors = (outputs - task.query.targets) ** 2
        return errors.mean(), ({"loss": Mean.of(errors)}, model_state)

    def evaluate(self, params, model_state, task, key):
        return self.loss(params, model_state, task, key)[1][0]


def _smoke_task(key, num_support: int, num_query: int) -> Task:
    inputs_key, offset_key = jax.random.split(key)
    x = jax.random.normal(inputs_key, (num_support + num_query, 3))
    y = x.sum(-1) + 0.1 * jax.random.normal(offset_key, ())
    examples = Examples(x, y)
    return Task(
        support=jax.tree.map(lambda leaf: leaf[:num_support], examples),
        query=jax.tree.map(lambda leaf: leaf[num_support:], examples),
        task_id=jax.random.randint(offset_key, (), 0, 100),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmokeSource(DeviceSource):
    """`y = x_1 + x_2 + x_3 + offset`, with an offset per task."""

    num_support: int = 2
    num_query: int = 4

    def read(self):
        return ()

    def sample_task(self, data, key, slot, *, split):
        del data, slot
        offset = ("train", "validation", "test").index(split)
        return _smoke_task(
            jax.random.fold_in(key, offset), self.num_support, self.num_query
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmokeHostSource(TaskSource):
    """The same distribution, drawn by NumPy on the host."""

    @property
    def example(self) -> Task:
        row = self.sample(jax.random.key(0), jnp.arange(1), split="train")
        return jax.tree.map(lambda leaf: leaf[0], row)

    def sample(self, key, slots, *, split):
        rows = []
        for slot in np.asarray(slots):
            entropy = np.asarray(jax.random.key_data(jax.random.fold_in(key, slot)))
            rng = np.random.default_rng([*entropy.tolist(), len(split)])
            x = rng.normal(size=(6, 3)).astype(np.float32)
            y = (x.sum(-1) + 0.1 * rng.normal()).astype(np.float32)
            rows.append((x, y, np.int32(rng.integers(100))))
        x, y, task_ids = (
            jnp.asarray(np.stack(rows)) for rows in zip(*rows, strict=True)
        )
        support, query = Examples(x[:, :2], y[:, :2]), Examples(x[:, 2:], y[:, 2:])
        return Task(support, query, task_ids)


def smoke_learner() -> SmokeLearner:
    """A learner that compiles in no time."""
    return SmokeLearner()


def smoke_source() -> SmokeSource:
    """A source to go with it, drawn on the device."""
    return SmokeSource()


def assert_trees_close(actual, expected, *, rtol: float = 1e-6, atol: float = 1e-7):
    """Asserts equal structure and leaves equal to `rtol` and `atol`.

    Raises:
      AssertionError: naming the first leaf that differs.
    """
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(actual),
        jax.tree.leaves(expected),
        strict=True,
    ):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=name)


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """The programs that XLA compiles inside, or loads from its cache, by name.

    `jit` has a count of its own, but only for as long as the one cache that all
    functions of a process share is not full.

    Example:
      >>> step = jax.jit(lambda x: x + 1)
      >>> with compilations() as compiled:
      ...     _ = step(1.0), step(2.0), step(3)
      >>> len(compiled)
      2
    """
    names = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        del duration_secs
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(kwargs["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def task_gradients(
    learner: Learner, params: Params, model_state, tasks: Task, parallel: Parallel
) -> tuple[Array, Params]:
    """Loss and meta-gradient of every task: `([task], [task, *p])`."""

    def gradient(shared, task, key):
        loss = lambda params: learner.loss(params, shared[1], task, key)
        (value, _), grads = jax.value_and_grad(loss, has_aux=True)(shared[0])
        return value, grads

    if parallel.backend == "loop":
        gradient = jax.jit(gradient)  # traced once, not once for every task
    (num_tasks,) = tasks.task_id.shape
    keys = jax.random.split(jax.random.key(7), num_tasks)
    return jax.jit(map_tasks_with(parallel, gradient))(
        (params, model_state), tasks, keys
    )


def assert_backends_agree(
    learner: Learner, source: TaskSource, *, rtol: float = 2e-5, atol: float = 1e-6
) -> None:
    """Asserts that loss and meta-gradient do not depend on how tasks are mapped.

    Compares loop, vmap, pmap, shard_map and vmap in blocks of tasks, two tasks per
    device. A learner that communicates inside its inner loop fails here.

    Args:
      learner: any learner.
      source: a source whose tasks suit it.
      rtol: relative tolerance; the order of summation is not the same everywhere.
      atol: absolute tolerance.

    Example:
      >>> assert_backends_agree(smoke_learner(), smoke_source())
    """
    num_tasks = jax.device_count() * 2
    tasks = source.sample(jax.random.key(3), jnp.arange(num_tasks), split="train")
    params, model_state = learner.init(jax.random.key(4), source.example)
    settings = [Parallel(backend=backend) for backend in BACKENDS]
    settings.append(Parallel(backend="vmap", task_batch_size=3))
    first, *others = (
        jax.device_get(task_gradients(learner, params, model_state, tasks, parallel))
        for parallel in settings
    )
    for other in others:
        assert_trees_close(other, first, rtol=rtol, atol=atol)


def timeless_rows(directory: Path) -> list[dict]:
    """The metrics of a run, without how long they took, which may differ.

    Args:
      directory: of the run.
    """
    return [
        {name: value for name, value in row.items() if not name.startswith("time/")}
        for row in read_jsonl(directory / "metrics.jsonl")
    ]
