"""The within-task contract: how one model meets one task."""

import abc

from jaxmeta.core.metrics import Metrics
from jaxmeta.core.task import Task
from jaxmeta.core.types import (
    Adapted,
    ModelState,
    Params,
    PRNGKey,
    PyTree,
    Scalar,
)


class Learner(abc.ABC):
    """A method of adapting to a task, written for ONE task.

    Subclasses are frozen keyword-only dataclasses: their fields are the
    hyper-parameters, and the object itself is the configuration. All four methods are
    pure. The harness batches them over tasks and shards them over devices; a learner
    never sees a task axis and never communicates.

    Example:
      A learner whose single parameter should be the mean of every task:

      >>> import dataclasses, jax.numpy as jnp
      >>> from jaxmeta import Learner, Mean
      >>> @dataclasses.dataclass(frozen=True, kw_only=True)
      ... class Average(Learner):
      ...     def init(self, key, example):
      ...         return jnp.zeros(()), ()
      ...     def adapt(self, params, model_state, support, key):
      ...         return params
      ...     def loss(self, params, model_state, task, key):
      ...         loss = jnp.mean((task.query - params) ** 2)
      ...         return loss, ({"loss": Mean.of(loss)}, model_state)
      ...     def evaluate(self, params, model_state, task, key):
      ...         return self.loss(params, model_state, task, key)[1][0]
    """

    @abc.abstractmethod
    def init(self, key: PRNGKey, example: Task) -> tuple[Params, ModelState]:
        """Meta-parameters and model state, for tasks shaped like `example`."""

    @abc.abstractmethod
    def adapt(
        self, params: Params, model_state: ModelState, support: PyTree, key: PRNGKey
    ) -> Adapted:
        """What the model becomes after seeing `support`."""

    @abc.abstractmethod
    def loss(
        self, params: Params, model_state: ModelState, task: Task, key: PRNGKey
    ) -> tuple[Scalar, tuple[Metrics, ModelState]]:
        """The outer loss of one task, differentiable in `params`.

        Returns:
          `(loss, (metrics, model_state))`: a scalar, sums and counts to log, and the
          model state after this task (the harness averages it over tasks).
        """

    @abc.abstractmethod
    def evaluate(
        self, params: Params, model_state: ModelState, task: Task, key: PRNGKey
    ) -> Metrics:
        """Adapts to `task.support` and measures on `task.query`: sums and counts."""
