"""FAMO: all losses fall at the same relative rate, without the tasks' gradients.

Liu, Feng, Stone, Liu, FAMO: Fast Adaptive Multitask Optimization, NeurIPS 2023 (arXiv
2306.03792), algorithm 1, with Adam on the logits as in the authors' code.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core.types import Array, PRNGKey, TaskIds, TaskLosses, TaskWeights
from jaxmeta.surgery.checks import check_learning_rate, check_num_tasks
from jaxmeta.surgery.weighting import FeedbackWeighting, Tasks

TINY = 1e-8


class FAMOState(NamedTuple):
    """State of `FAMO`.

    Attributes:
      logits: `[num_tasks]`, whose softmax is the attention a task gets.
      before: `[num_tasks]` losses at the last step, before the parameters moved; nan
        for a task that was never there.
      optimizer: state of the logits' Adam.
    """

    logits: Array
    before: Array
    optimizer: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class FAMO(FeedbackWeighting):
    """`w_t` proportional to `z_t / (L_t - least)`, `z = softmax(logits)`, sum 1.

    The softmax is over the tasks of the batch, all of them in the paper.

    After the parameters moved, the logits descend along
    `(d z / d logits)' (log L_before - log L_after)`: tasks that improved more than the
    others get less attention. Losses must stay above `least`.

    Cost: O(T), one backward pass and one more forward pass for the losses after the
    step. State: logits, last losses and Adam's moments by task id.

    Raises:
      ValueError: for fewer than one task or a learning rate that is not positive.

    Example:
      The loss of the first task fell by more:

      >>> rule, losses = FAMO(num_tasks=2), jnp.array([1.0, 1.0])
      >>> tasks = Tasks(jnp.eye(2), losses, jnp.arange(2))
      >>> w, state = rule.weigh(tasks, rule.init(), jax.random.key(0))
      >>> state = rule.observe(state, jnp.array([0.2, 0.9]), jnp.arange(2))
      >>> w.tolist(), bool(state.logits[0] < 0 < state.logits[1])
      ([0.5, 0.5], True)
    """

    needs_gram: ClassVar[bool] = False
    needs_losses: ClassVar[bool] = True

    num_tasks: int
    """How many different tasks there are, >= 1; ids are below it."""

    learning_rate: float = 0.025
    """Of the logits."""

    decay: float = 1e-3
    """Weight decay of the logits, gamma in the paper."""

    least: float = 0.0
    """A lower bound of the losses."""

    def __post_init__(self):
        check_num_tasks(self.num_tasks)
        check_learning_rate(self.learning_rate)

    def init(self) -> Any:
        """Equal attention."""
        zeros = jnp.zeros((self.num_tasks,))
        return FAMOState(zeros, zeros + jnp.nan, self._optimizer().init(zeros))

    def weigh(self, tasks: Tasks, state: Any, key: PRNGKey) -> tuple[TaskWeights, Any]:
        """The weights of this step; the losses are remembered for `observe`."""
        del key
        attention = jax.nn.softmax(state.logits[tasks.ids])
        weights = attention / (tasks.losses - self.least + TINY)
        before = state.before.at[tasks.ids].set(tasks.losses)
        return weights / weights.sum(), state._replace(before=before)

    def observe(self, state: Any, losses_after: TaskLosses, ids: TaskIds) -> Any:
        """One step of the logits."""
        log = lambda losses: jnp.log(losses - self.least + TINY)
        gained = log(state.before[ids]) - log(losses_after)
        gained = jnp.where(jnp.isnan(state.before[ids]), 0.0, gained)
        attention = lambda logits: jax.nn.softmax(logits[ids])
        _, pull_back = jax.vjp(attention, state.logits)
        (slope,) = pull_back(gained)
        step, optimizer = self._optimizer().update(slope, state.optimizer, state.logits)
        return state._replace(logits=state.logits + step, optimizer=optimizer)

    def _optimizer(self) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(self.decay), optax.adam(self.learning_rate)
        )
