"""Group DRO: the worst group, approached by exponentiated gradient ascent.

Sagawa, Koh, Hashimoto, Liang, Distributionally Robust Neural Networks for Group
Shifts, ICLR 2020 (arXiv 1911.08731), algorithm 1, without generalisation adjustment.
"""

import dataclasses
import math
from typing import Any, ClassVar

import jax.numpy as jnp

from jaxmeta.core.types import PRNGKey, TaskWeights
from jaxmeta.surgery.checks import check_num_tasks
from jaxmeta.surgery.weighting import Tasks, Weighting


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupDRO(Weighting):
    """`q_g <- q_g exp(step_size L_g) / sum`, and the loss is `sum_g q_g L_g`.

    The updated q is used. q belongs to task ids: a group that is not in the batch
    keeps its share, and has a loss of 0, as in the authors' code. A group that is in
    the batch more than once has the mean of its losses.

    Cost: O(T); one backward pass. State: `[num_tasks]` q.

    Raises:
      ValueError: for fewer than one group or a step size that is not >= 0 and finite.

    Example:
      >>> import jax
      >>> rule = GroupDRO(num_tasks=2, step_size=1.0)
      >>> tasks = Tasks(jnp.eye(2), jnp.array([0.0, 1.0]), jnp.arange(2))
      >>> w, _ = rule.weigh(tasks, rule.init(), jax.random.key(0))
      >>> bool(jnp.allclose(w, jnp.array([0.2689, 0.7311]), atol=1e-4))
      True
    """

    needs_gram: ClassVar[bool] = False
    needs_losses: ClassVar[bool] = True

    num_tasks: int
    """How many groups there are, >= 1; ids are below it."""

    step_size: float = 0.01
    """Of the exponentiated gradient; 0 keeps q uniform."""

    def __post_init__(self):
        check_num_tasks(self.num_tasks)
        if not (math.isfinite(self.step_size) and self.step_size >= 0):
            raise ValueError(
                f"step_size must be >= 0 and finite, got {self.step_size}."
            )

    def init(self) -> Any:
        """`[num_tasks]` uniform q."""
        return jnp.full((self.num_tasks,), 1.0 / self.num_tasks, jnp.float32)

    def weigh(self, tasks: Tasks, state: Any, key: PRNGKey) -> tuple[TaskWeights, Any]:
        """The weights of this step, and q."""
        del key
        zeros = jnp.zeros_like(state)
        times = zeros.at[tasks.ids].add(1.0)
        share = 1.0 / times[tasks.ids]
        losses = zeros.at[tasks.ids].add(share * tasks.losses)
        # The largest loss is taken off, which the normalisation undoes.
        q = state * jnp.exp(self.step_size * (losses - losses.max()))
        q = q / q.sum()
        return q[tasks.ids] * share, q
