"""The mean of the losses: the sum with a learning rate that the tasks divide.

Kurin, De Palma, Kostrikov, Whiteson, Kumar, In Defense of the Unitary Scalarization for
Deep Multi-Task Learning, NeurIPS 2022 (arXiv 2201.04122), equation 2, over the number
of tasks. Adam does not tell the two apart; SGD, clipping and weight decay do.
"""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp

from jaxmeta.core.types import PRNGKey, TaskWeights
from jaxmeta.surgery.weighting import Tasks, Weighting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean(Weighting):
    """`w_t = 1 / T` for T tasks in the batch; as a link also `jaxmeta.mean_over_tasks`.

    Cost: nothing; one backward pass. State: none but a key that is not used.

    Example:
      >>> import jax
      >>> tasks = Tasks(jnp.eye(2), jnp.zeros(2), jnp.arange(2))
      >>> Mean().weigh(tasks, (), jax.random.key(0))[0].tolist()
      [0.5, 0.5]
    """

    needs_gram: ClassVar[bool] = False

    def init(self) -> Any:
        """No state."""
        return ()

    def weigh(self, tasks: Tasks, state: Any, key: PRNGKey) -> tuple[TaskWeights, Any]:
        """Equal weights that sum to 1."""
        del key
        (num_tasks,) = tasks.losses.shape
        return jnp.full((num_tasks,), 1.0 / num_tasks), state
