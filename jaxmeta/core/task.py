"""What a task is, and where tasks come from."""

import abc
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core.parallel import Parallel
from jaxmeta.core.types import Array, Int, PRNGKey, PyTree, Split


class Task(NamedTuple):
    """ONE task. A batch of tasks is the same pytree with a leading `[task]` axis.

    Attributes:
      support: what `Learner.adapt` sees, any pytree.
      query: what the outer loss is measured on, any pytree.
      task_id: `[]` which task, group or user this is. Position in a batch is not
        identity: aggregators with a memory index it by this.

    Example:
      >>> support = Examples(jnp.zeros((1, 3)), jnp.zeros((1,)))
      >>> query = Examples(jnp.ones((4, 3)), jnp.ones((4,)))
      >>> Task(support, query, jnp.array(7)).query.inputs.shape
      (4, 3)
    """

    support: PyTree
    query: PyTree
    task_id: Int[Array, "*task"]


class Examples(NamedTuple):
    """Supervised examples, the usual content of a support or query set.

    Attributes:
      inputs: `[n, ...]`.
      targets: `[n, ...]` real targets, or `[n]` integer classes.

    Example:
      >>> Examples(inputs=jnp.zeros((2, 8)), targets=jnp.array([0, 1])).targets.shape
      (2,)
    """

    inputs: Array
    targets: Array


class TaskSource(abc.ABC):
    """A distribution over tasks, deterministic in its key.

    Subclasses are frozen keyword-only dataclasses whose fields are the settings.
    Because `sample` depends on nothing but its arguments, a run that resumes at step
    s draws what it would have drawn: there is no iterator to save.

    Derive from `DeviceSource` when a task can be drawn inside `jit` (the harness then
    runs many steps in one `lax.scan`), from this class when it needs the host (the
    harness then prefetches one step ahead).

    Attributes:
      parts_of_groups: whether validation and test tasks with one `task_id` are parts of
        one larger task. Their sums and counts are then added up before they are
        divided, and there is one figure for each id.
    """

    parts_of_groups: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def example(self) -> Task:
        """One task of the right shapes and dtypes; its values do not matter."""

    @abc.abstractmethod
    def sample(self, key: PRNGKey, slots: Int[Array, " task"], *, split: Split) -> Task:
        """Draws the tasks in the given global slots.

        Args:
          key: the key of this step; slot i uses `fold_in(key, i)` and nothing else.
          slots: `[task]` global indices of the tasks to draw, so that a process of
            many draws only its own.
          split: which part of the distribution.

        Returns:
          A batch: the leaves of `example` with a leading `[task]` axis.
        """


class DeviceSource(TaskSource):
    """A source that draws one task from a key inside `jit`.

    Example:
      Lines through the origin, a slope a task:

      >>> import dataclasses
      >>> @dataclasses.dataclass(frozen=True, kw_only=True)
      ... class Lines(DeviceSource):
      ...     def read(self):
      ...         return ()
      ...     def sample_task(self, data, key, slot, *, split):
      ...         x = jnp.linspace(-1.0, 1.0, 5)
      ...         y = x * jax.random.normal(key)
      ...         return Task(Examples(x, y), Examples(x, y), jnp.array(0))
      >>> Lines().sample(jax.random.key(0), jnp.arange(8), split="train").task_id.shape
      (8,)
    """

    @abc.abstractmethod
    def read(self) -> Any:
        """The arrays that tasks are drawn from, `()` if none.

        Files are read into NumPy arrays; what is computed may be JAX code, which is
        traced where only its shapes are asked for.
        """

    def load(self) -> Any:
        """What `read` returns, on the device; read once, then cached."""
        return self._resident

    @functools.cached_property
    def _resident(self) -> Any:
        # The first use may be inside a trace; what is cached must outlive it.
        with jax.ensure_compile_time_eval():
            return jax.tree.map(jnp.asarray, self.read())

    @abc.abstractmethod
    def sample_task(
        self, data: Any, key: PRNGKey, slot: Int[Array, ""], *, split: Split
    ) -> Task:
        """Draws one task; pure and jittable.

        Args:
          data: what `load` returned, passed as an argument so that it is never baked
            into a compiled program as a constant.
          key: this task's own key.
          slot: `[]` its global place in the batch. A source with a fixed list of tasks
            gives slot i the task `i % num_tasks`; others have no use for it.
          split: which part of the distribution.
        """

    @property
    def shapes(self) -> Task:
        """One task as shapes and dtypes; nothing is put on a device."""

        def draw():
            data, key = jax.tree.map(jnp.asarray, self.read()), jax.random.key(0)
            return self.sample_task(data, key, jnp.array(0), split="train")

        return jax.eval_shape(draw)

    @property
    def example(self) -> Task:
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), self.shapes)

    def sample(self, key: PRNGKey, slots: Int[Array, " task"], *, split: Split) -> Task:
        return self.sample_from(self.load(), key, slots, split=split)

    def sample_from(
        self, data: Any, key: PRNGKey, slots: Int[Array, " task"], *, split: Split
    ) -> Task:
        """`sample` with the resident arrays as an explicit argument."""
        draw = lambda slot: self.sample_task(
            data, jax.random.fold_in(key, slot), slot, split=split
        )
        return jax.vmap(draw)(slots)


def draw_on_shards(
    source: DeviceSource, parallel: Parallel, split: Split
) -> Callable[[Any, PRNGKey, Int[Array, " task"]], Task]:
    """`sample_from` as `(data, key, slots) -> Task`, every device drawing its own.

    Left to itself XLA gathers what it cannot split, such as the sort behind a draw
    without replacement.
    """

    def body(shard, shared, slots):
        del shard
        data, key = shared
        return (), source.sample_from(data, key, slots, split=split)

    on_shards = parallel.on_shards(body)
    return lambda data, key, slots: on_shards((data, key), slots)[1]
