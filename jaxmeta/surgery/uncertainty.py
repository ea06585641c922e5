"""Uncertainty weights: tasks weighed by a learned noise level.

Kendall, Gal, Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
Geometry and Semantics, CVPR 2018 (arXiv 1705.07115), section 3.
"""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp

from jaxmeta.core.types import PRNGKey, TaskWeights
from jaxmeta.surgery.checks import check_learning_rate, check_num_tasks
from jaxmeta.surgery.weighting import Tasks, Weighting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uncertainty(Weighting):
    """`w_t = exp(-s_t) / 2`: descends `sum_t L_t exp(-s_t) / 2 + s_t / 2` in s, too.

    The log variances `s` belong to task ids and take a gradient step of their own,
    `s_t -= learning_rate (1 - L_t exp(-s_t)) / 2`; only tasks in the batch move.

    Cost: O(T); one backward pass. State: `[num_tasks]` log variances.

    Raises:
      ValueError: for fewer than one task or a learning rate that is not positive.

    Example:
      >>> import jax
      >>> rule = Uncertainty(num_tasks=2, start=0.0)
      >>> tasks = Tasks(jnp.eye(2), jnp.array([1.0, 3.0]), jnp.arange(2))
      >>> w, s = rule.weigh(tasks, rule.init(), jax.random.key(0))
      >>> print(w, s.round(4))
      [0.5 0.5] [0.    0.001]
    """

    needs_gram: ClassVar[bool] = False
    needs_losses: ClassVar[bool] = True

    num_tasks: int
    """How many different tasks there are, >= 1; ids are below it."""

    learning_rate: float = 1e-3
    """Of the log variances."""

    start: float = -0.5
    """Their first value."""

    def __post_init__(self):
        check_num_tasks(self.num_tasks)
        check_learning_rate(self.learning_rate)

    def init(self) -> Any:
        """`[num_tasks]` log variances."""
        return jnp.full((self.num_tasks,), self.start)

    def weigh(self, tasks: Tasks, state: Any, key: PRNGKey) -> tuple[TaskWeights, Any]:
        """The weights of this step, and the log variances after it."""
        del key
        precision = jnp.exp(-state[tasks.ids])
        slope = 0.5 * (1.0 - tasks.losses * precision)
        return 0.5 * precision, state.at[tasks.ids].add(-self.learning_rate * slope)
