"""GradNorm: weights that make all tasks train at the same rate.

Chen, Badrinarayanan, Lee, Rabinovich, GradNorm: Gradient Normalization for Adaptive
Loss Balancing in Deep Multitask Networks, ICML 2018 (arXiv 1711.02257), algorithm 1.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from jaxmeta.core.types import Array, PRNGKey, TaskWeights
from jaxmeta.surgery.checks import check_learning_rate, check_num_tasks
from jaxmeta.surgery.weighting import Tasks, Weighting


class GradNormState(NamedTuple):
    """State of `GradNorm`.

    Attributes:
      weights: `[num_tasks]`, of mean 1.
      first: `[num_tasks]` the first loss of every task; nan before it was seen.
    """

    weights: Array
    first: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradNorm(Weighting):
    """Descends `sum_t |w_t |g_t| - mean(w |g|) r_t^alpha|` in the weights.

    `r_t` is `L_t / L_t(first)` over its mean in the batch: slow tasks get longer
    gradients. The target is held fixed; after a step weights are made positive and of
    mean 1. The weights used are those before the step.

    Cost: O(T) beyond the norms. State: weights and first losses by task id.

    Raises:
      ValueError: for fewer than one task, a negative alpha or a learning rate that is
        not positive.

    Example:
      The longer gradient gets less:

      >>> import jax
      >>> rule = GradNorm(num_tasks=2)
      >>> tasks = Tasks(jnp.diag(jnp.array([1.0, 9.0])), jnp.ones(2), jnp.arange(2))
      >>> _, state = rule.weigh(tasks, rule.init(), jax.random.key(0))
      >>> bool(state.weights[0] > 1 > state.weights[1])
      True
    """

    needs_losses: ClassVar[bool] = True

    num_tasks: int
    """How many different tasks there are, >= 1; ids are below it."""

    alpha: float = 1.5
    """Strength with which slow tasks are pushed, >= 0."""

    learning_rate: float = 0.025
    """Of the weights."""

    def __post_init__(self):
        check_num_tasks(self.num_tasks)
        if not self.alpha >= 0:
            raise ValueError(f"alpha must be >= 0, got {self.alpha}.")
        check_learning_rate(self.learning_rate)

    def init(self) -> Any:
        """All weights 1, no loss seen."""
        return GradNormState(
            jnp.ones((self.num_tasks,)), jnp.full((self.num_tasks,), jnp.nan)
        )

    def weigh(self, tasks: Tasks, state: Any, key: PRNGKey) -> tuple[TaskWeights, Any]:
        """The weights of this step, and those of the next."""
        del key
        first = state.first[tasks.ids]
        first = jnp.where(jnp.isnan(first), tasks.losses, first)
        weights = state.weights[tasks.ids]
        norms = jnp.sqrt(jnp.diagonal(tasks.gram))
        rate = tasks.losses / first
        target = jnp.mean(weights * norms) * (rate / rate.mean()) ** self.alpha
        slope = norms * jnp.sign(weights * norms - target)
        moved = state.weights.at[tasks.ids].add(-self.learning_rate * slope)
        moved = jnp.maximum(moved, 1e-3)
        return weights, GradNormState(
            moved / moved.mean(), state.first.at[tasks.ids].set(first)
        )
