"""The contract of the between-task family: what tasks look like in, weights out."""

import abc
from typing import Any, ClassVar, NamedTuple

from jaxmeta.core.types import PRNGKey, TaskIds, TaskLosses, TaskWeights
from jaxmeta.surgery.gram import Gram


class Tasks(NamedTuple):
    """What a weighting may look at.

    Attributes:
      gram: `[task, task]` inner products of the gradients of the shared parameters.
      losses: `[task]` losses of this step; nan when nobody gave them.
      ids: `[task]` which task each row is.

    Example:
      >>> import jax.numpy as jnp
      >>> Tasks(jnp.eye(2), jnp.ones(2), jnp.arange(2)).losses.shape
      (2,)
    """

    gram: Gram
    losses: TaskLosses
    ids: TaskIds


class Weighting(abc.ABC):
    """A rule that turns what the tasks look like into one weight a task.

    Subclasses are frozen keyword-only dataclasses: their fields are the settings. One
    object serves as an optax transformation (`aggregate_tasks`), with any granularity
    and any mask if it needs gradients, and in the form that never holds all of them
    (`low_memory`).

    Attributes:
      needs_gram: whether it looks at gradients. One that does not takes a single
        backward pass in the harness.
      needs_losses: whether it looks at `task_losses=`.
      num_tasks: how many different tasks it remembers something of, None if of none;
        a field where there is one. Ids are below it.

    Example:
      Only the longest gradient counts:

      >>> import dataclasses
      >>> import jax.numpy as jnp
      >>> from jaxmeta.surgery import aggregate_tasks
      >>> @dataclasses.dataclass(frozen=True, kw_only=True)
      ... class Longest(GramWeighting):
      ...     def of_gram(self, gram):
      ...         norms = jnp.diagonal(gram)
      ...         return (norms == norms.max()).astype(gram.dtype)
      >>> tx = aggregate_tasks(Longest())
      >>> grads = jnp.array([[1.0, 1.0], [0.0, 3.0]])
      >>> tx.update(grads, tx.init(jnp.zeros(2)))[0].tolist()
      [0.0, 3.0]
    """

    needs_gram: ClassVar[bool] = True
    needs_losses: ClassVar[bool] = False
    num_tasks = None

    @abc.abstractmethod
    def init(self) -> Any:
        """The state before the first step, `()` if there is none."""

    @abc.abstractmethod
    def weigh(self, tasks: Tasks, state: Any, key: PRNGKey) -> tuple[TaskWeights, Any]:
        """The weights of this step, `[task]`, and the next state; pure and jittable."""


class GramWeighting(Weighting):
    """A weighting that is a function of the Gram matrix and nothing else."""

    def init(self) -> Any:
        """No state."""
        return ()

    def weigh(self, tasks: Tasks, state: Any, key: PRNGKey) -> tuple[TaskWeights, Any]:
        """The weights of this step."""
        del key
        return self.of_gram(tasks.gram), state

    @abc.abstractmethod
    def of_gram(self, gram: Gram) -> TaskWeights:
        """`[task, task]` to `[task]`; absent tasks have a row of zeros."""


class FeedbackWeighting(Weighting):
    """A weighting that learns from what the last step did to the losses."""

    @abc.abstractmethod
    def observe(self, state: Any, losses_after: TaskLosses, ids: TaskIds) -> Any:
        """The state, knowing the last batch's losses after the parameters moved.

        Args:
          state: as the last `weigh` left it.
          losses_after: `[task]` losses of the batch of the last `weigh`, now.
          ids: `[task]` its tasks.
        """
