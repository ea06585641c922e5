"""q-FFL: losses raised to a power, so that the worst tasks count most.

Li, Sanjabi, Beirami, Smith, Fair Resource Allocation in Federated Learning, ICLR 2020
(arXiv 1905.10497), equation 2.
"""

import dataclasses
import math
from typing import Any, ClassVar

from jaxmeta.core.types import PRNGKey, TaskWeights
from jaxmeta.surgery.weighting import Tasks, Weighting


@dataclasses.dataclass(frozen=True, kw_only=True)
class QFFL(Weighting):
    """`w_t = L_t^q / T`: the gradient of `1/T sum_t L_t^(q+1) / (q+1)`.

    q = 0 is the mean. Losses must not be negative.

    Cost: O(T); one backward pass. State: none.

    Raises:
      ValueError: for a q that is negative or not finite.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> tasks = Tasks(jnp.eye(2), jnp.array([1.0, 3.0]), jnp.arange(2))
      >>> QFFL(q=1.0).weigh(tasks, (), jax.random.key(0))[0].tolist()
      [0.5, 1.5]
    """

    needs_gram: ClassVar[bool] = False
    needs_losses: ClassVar[bool] = True

    q: float = 1.0
    """How much the worst tasks count, >= 0."""

    def __post_init__(self):
        if not (math.isfinite(self.q) and self.q >= 0):
            raise ValueError(f"q must be >= 0 and finite, got {self.q}.")

    def init(self) -> Any:
        """No state."""
        return ()

    def weigh(self, tasks: Tasks, state: Any, key: PRNGKey) -> tuple[TaskWeights, Any]:
        """The weights of this step."""
        del key
        return tasks.losses**self.q / len(tasks.ids), state
