"""Dynamic weight average: more weight to tasks whose loss falls slowly.

Liu, Johns, Davison, End-to-End Multi-Task Learning with Attention, CVPR 2019 (arXiv
1803.10704), equation 7.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core.types import Array, PRNGKey, TaskWeights
from jaxmeta.surgery.checks import check_num_tasks
from jaxmeta.surgery.gram import safe_divide
from jaxmeta.surgery.weighting import Tasks, Weighting


class DWAState(NamedTuple):
    """State of `DWA`.

    Attributes:
      step: `[]` steps done in this epoch.
      total: `[num_tasks]` sum of the losses of this epoch.
      count: `[num_tasks]` how many there were.
      means: `[2, num_tasks]` mean losses of the epoch before last and of the last; 0
        for a task that an epoch did not see.
    """

    step: Array
    total: Array
    count: Array
    means: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class DWA(Weighting):
    """`w = T softmax(r / temperature)`, `r_t = L_t(e - 1) / L_t(e - 2)`.

    `L_t(e)` is the mean loss of task t in epoch e. All weights are 1 in the first two
    epochs, and for a task that an epoch did not see `r_t = 1`.

    Cost: O(T); one backward pass. State: the means of two epochs and a running sum.

    Raises:
      ValueError: for a number below 1 or a temperature that is not positive.

    Example:
      The loss of the second task stopped falling:

      >>> rule, state = DWA(num_tasks=2, steps_per_epoch=1), DWA(num_tasks=2).init()
      >>> for losses in ([2.0, 2.0], [1.0, 2.0], [1.0, 2.0]):
      ...     tasks = Tasks(jnp.eye(2), jnp.array(losses), jnp.arange(2))
      ...     w, state = rule.weigh(tasks, state, jax.random.key(0))
      >>> print(w.round(2))
      [0.88 1.12]
    """

    needs_gram: ClassVar[bool] = False
    needs_losses: ClassVar[bool] = True

    num_tasks: int
    """How many different tasks there are, >= 1; ids are below it."""

    steps_per_epoch: int = 1
    """Steps over which losses are averaged, >= 1."""

    temperature: float = 2.0
    """Large: all tasks alike."""

    def __post_init__(self):
        check_num_tasks(self.num_tasks)
        if self.steps_per_epoch < 1:
            raise ValueError(
                f"steps_per_epoch must be >= 1, got {self.steps_per_epoch}."
            )
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}.")

    def init(self) -> Any:
        """Nothing seen."""
        zeros = lambda *shape: jnp.zeros((*shape, self.num_tasks))
        return DWAState(jnp.zeros((), jnp.int32), zeros(), zeros(), zeros(2))

    def weigh(self, tasks: Tasks, state: Any, key: PRNGKey) -> tuple[TaskWeights, Any]:
        """The weights of this step, and the running means after it."""
        del key
        before, last = state.means
        ratio = jnp.where(before * last == 0, 1.0, safe_divide(last, before))
        share = jax.nn.softmax(ratio[tasks.ids] / self.temperature)
        total = state.total.at[tasks.ids].add(tasks.losses)
        count = state.count.at[tasks.ids].add(1.0)
        means = jnp.stack([last, safe_divide(total, count)])
        done = state.step + 1 == self.steps_per_epoch
        epoch = DWAState(
            step=jnp.where(done, 0, state.step + 1),
            total=jnp.where(done, 0.0, total),
            count=jnp.where(done, 0.0, count),
            means=jnp.where(done, means, state.means),
        )
        return len(tasks.ids) * share, epoch
