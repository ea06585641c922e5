"""Up-weighting: every group counts the same, however many examples it has.

Sagawa, Koh, Hashimoto, Liang, Distributionally Robust Neural Networks for Group
Shifts, ICLR 2020 (arXiv 1911.08731), section 3.2.
"""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp

from jaxmeta.core.types import PRNGKey, TaskWeights
from jaxmeta.surgery.weighting import Tasks, Weighting


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpWeighting(Weighting):
    """`w_t = N / (T G n_t)` with n_t the size of group t, N the sum over G groups.

    For batches in which groups appear in proportion to their size; the mean weight is
    then `1/T`, that of the mean.

    Cost: O(T); one backward pass. State: none.

    Raises:
      ValueError: for no group, or a group without examples.

    Example:
      >>> import jax
      >>> tasks = Tasks(jnp.eye(2), jnp.zeros(2), jnp.array([0, 1]))
      >>> rule = UpWeighting(sizes=(100, 300))
      >>> print(rule.weigh(tasks, (), jax.random.key(0))[0].round(3))
      [1.    0.333]
    """

    needs_gram: ClassVar[bool] = False

    sizes: tuple[int, ...]
    """Training examples of every group, by task id."""

    def __post_init__(self):
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(
                f"sizes must be one number >= 1 a group, got {self.sizes}."
            )

    def init(self) -> Any:
        """No state."""
        return ()

    def weigh(self, tasks: Tasks, state: Any, key: PRNGKey) -> tuple[TaskWeights, Any]:
        """The weights of this step."""
        del key
        mean_size = sum(self.sizes) / len(self.sizes)
        rare = mean_size / jnp.asarray(self.sizes, jnp.float32)
        return rare[tasks.ids] / len(tasks.ids), state
