"""The sum of the losses: unitary scalarization, the baseline of every comparison.

Kurin, De Palma, Kostrikov, Whiteson, Kumar, In Defense of the Unitary Scalarization for
Deep Multi-Task Learning, NeurIPS 2022 (arXiv 2201.04122), equation 2. Tuned, it is as
good as most that came after it.
"""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp

from jaxmeta.core.types import PRNGKey, TaskWeights
from jaxmeta.surgery.weighting import Tasks, Weighting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sum(Weighting):
    """`w_t = 1`: the gradient of `sum_t L_t`; as a link also `jaxmeta.sum_over_tasks`.

    Cost: nothing; one backward pass. State: none but a key that is not used.

    Example:
      >>> import jax
      >>> tasks = Tasks(jnp.eye(3), jnp.zeros(3), jnp.arange(3))
      >>> Sum().weigh(tasks, (), jax.random.key(0))[0].tolist()
      [1.0, 1.0, 1.0]
    """

    needs_gram: ClassVar[bool] = False

    def init(self) -> Any:
        """No state."""
        return ()

    def weigh(self, tasks: Tasks, state: Any, key: PRNGKey) -> tuple[TaskWeights, Any]:
        """Ones."""
        del key
        return jnp.ones(tasks.losses.shape), state
