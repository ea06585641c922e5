"""PCGrad: projecting conflicting gradients.

Yu, Kumar, Gupta, Levine, Hausman, Finn, Gradient Surgery for Multi-Task Learning,
NeurIPS 2020 (arXiv 2001.06782), algorithm 1. Every task meets the others in a random
order of its own; projections are onto the original gradients, and sums are the default,
as in the paper and not in most implementations.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxmeta.core.aggregate import TaskAggregator
from jaxmeta.core.types import Array, Int, PRNGKey, TaskWeights
from jaxmeta.surgery.aggregate import Granularity, Mask, aggregate_tasks
from jaxmeta.surgery.gram import Gram, safe_divide
from jaxmeta.surgery.reduction import Reduction, check_reduction, reduced
from jaxmeta.surgery.weighting import Tasks, Weighting


@dataclasses.dataclass(frozen=True, kw_only=True)
class PCGrad(Weighting):
    """Weights that equal Algorithm 1: all weights are at least 1 (for "sum").

    Write `g_i^PC = sum_k C_ik g_k`, `C = I` at first. When task i meets task j, with
    `s = <g_i^PC, g_j> = (C G)_ij < 0`, only `C_ij` changes, by `-s / G_jj`. The merged
    gradient is `sum_k w_k g_k` with `w = 1' C`: with two tasks `1 - cos / R` and
    `1 - cos R`, R = |g_1| / |g_2| (equation 7). With three tasks or more the result
    may still conflict with a task; `UPGrad` never does.

    Cost: O(T^3) on the Gram matrix, T sequential steps. State: none but the key.

    Raises:
      ValueError: for an unknown reduction.

    Example:
      >>> gram = jnp.array([[1.0, -0.5], [-0.5, 1.0]])
      >>> tasks = Tasks(gram, jnp.zeros(2), jnp.arange(2))
      >>> PCGrad().weigh(tasks, (), jax.random.key(0))[0].tolist()
      [1.5, 1.5]
    """

    reduction: Reduction = "sum"
    """"sum" of the projected gradients, or "mean" over the tasks that are there."""

    def __post_init__(self):
        check_reduction(self.reduction)

    def init(self) -> Any:
        """No state."""
        return ()

    def weigh(self, tasks: Tasks, state: Any, key: PRNGKey) -> tuple[TaskWeights, Any]:
        """The weights of this step."""
        weights = project(tasks.gram, random_orders(key, len(tasks.gram)))
        return reduced(weights, tasks.gram, self.reduction), state


def random_orders(key: PRNGKey, num_tasks: int) -> Int[Array, "task task"]:
    """`[task, task]`, every row an independent permutation of the tasks.

    Example:
      >>> sorted(random_orders(jax.random.key(0), 3)[1].tolist())
      [0, 1, 2]
    """
    # Random bits with the task in the lowest: sorting one array is four times faster
    # than sorting two side by side. Equal bits, one pair in 2^24 for 200 tasks, go by
    # number.
    bits = max(1, (num_tasks - 1).bit_length())
    draws = jax.random.bits(key, (num_tasks, num_tasks), jnp.uint32)
    draws = (draws >> bits << bits) | jnp.arange(num_tasks, dtype=jnp.uint32)[None]
    return (jnp.sort(draws, axis=1) & ((1 << bits) - 1)).astype(jnp.int32)


def project(gram: Gram, orders: Int[Array, "task task"]) -> TaskWeights:
    """The weights of the summed projections when task i meets `orders[i]` in turn.

    Args:
      gram: `[task, task]`.
      orders: `[task, task]` a permutation a row; where it names the row's own task,
        nothing happens.

    Returns:
      `[task]`, >= 1.

    Example:
      >>> gram = jnp.array([[1.0, 0.5], [0.5, 1.0]])
      >>> project(gram, jnp.array([[0, 1], [0, 1]])).tolist()
      [1.0, 1.0]
    """
    own = jnp.arange(len(gram))
    squares = jnp.diagonal(gram)
    inverse = safe_divide(jnp.ones_like(squares), squares)

    def meet(carry, other):
        products, weights = carry  # <g_i^PC, g_j>; column sums of C
        s = products[own, other]
        conflict = (s < 0) & (other != own)
        step = jnp.where(conflict, -s * inverse[other], 0.0)
        products = products + step[:, None] * gram[other]
        return (products, weights.at[other].add(step)), None

    start = (gram, jnp.ones_like(squares))
    (_, weights), _ = jax.lax.scan(meet, start, orders.T)
    return weights


def pcgrad(
    key: PRNGKey | Array | int = 0,
    *,
    reduction: Literal["sum", "mean"] = "sum",
    granularity: Granularity = "global",
    mask: Mask = None,
    accumulator_dtype: Any = None,
) -> TaskAggregator:
    """PCGrad as the first link of an optax chain.

    Args:
      key: a key, typed or raw, or a seed: in which order tasks meet.
      reduction: "sum" of the projected gradients (the paper), or "mean" over the tasks
        whose gradient is not zero.
      granularity: as in `aggregate_tasks`.
      mask: as in `aggregate_tasks`; True for the shared parameters, to which alone the
        paper applies surgery.
      accumulator_dtype: as in `aggregate_tasks`.

    Returns:
      A transformation of `[task, *p]` gradients to `[*p]` updates.

    Raises:
      ValueError: as `aggregate_tasks`, and for an unknown reduction.

    Example:
      >>> import optax
      >>> from jaxmeta import surgery
      >>> tx = optax.chain(
      ...     surgery.pcgrad(jax.random.key(0)),
      ...     optax.clip_by_global_norm(1.0),
      ...     optax.adam(1e-3),
      ... )
      >>> params = jnp.zeros(2)
      >>> task_grads = jnp.array([[1.0, 0.0], [-1.0, 1.0]])     # [task, *p]
      >>> updates, state = tx.update(task_grads, tx.init(params), params)
      >>> updates.shape
      (2,)
    """
    return aggregate_tasks(
        PCGrad(reduction=reduction),
        key,
        granularity=granularity,
        mask=mask,
        accumulator_dtype=accumulator_dtype,
    )
