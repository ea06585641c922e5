"""Gradient descent inside one task, differentiable from the outside."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import jax

from jaxmeta.core.types import FastParams, PyTree, Scalar

Order: TypeAlias = Literal["second", "first"]


def descend(
    loss: Callable[[FastParams], Scalar],
    start: FastParams,
    rates: PyTree,
    *,
    num_steps: int,
    order: Order = "second",
    per_step: bool = False,
    remat: bool = True,
) -> FastParams:
    """`num_steps` steps of gradient descent, `v <- v - rate * grad loss(v)`.

    Rates are leaves like any other: the outer gradient reaches them, so they can be
    learned. Each rate broadcasts against its parameter.

    Args:
      loss: the support loss of the fast parameters.
      start: fast parameters before the first step, `*p` each.
      rates: same tree as `start`; leaves `[]` (per tensor) or `*p` (per parameter),
        with a leading `[num_steps]` axis if `per_step`.
      num_steps: >= 1.
      order: "second" differentiates through the inner gradient (MAML); "first" treats
        it as a constant (first-order MAML), which drops all second derivatives, those
        with respect to what the loss closes over included: that still gets its direct
        gradient from the outer loss, and the rates get theirs.
      per_step: whether every step has its own rates.
      remat: recompute each step in the backward pass instead of storing it, so that
        memory does not grow with `num_steps` times the activations.

    Returns:
      The fast parameters after the last step, same tree as `start`.

    Raises:
      ValueError: if `num_steps` < 1.

    References:
      Finn, Abbeel, Levine, "Model-Agnostic Meta-Learning" (2017), eq. 1 and sec. 5.2;
      Li et al., "Meta-SGD" (2017), for learned rates.

    Example:
      >>> import jax.numpy as jnp
      >>> end = descend(
      ...     lambda v: 0.5 * v**2, jnp.array(1.0), jnp.array(0.5), num_steps=3
      ... )
      >>> float(end)
      0.125
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be >= 1, got {num_steps}.")

    def step(fast: FastParams, rates: PyTree) -> FastParams:
        grads = jax.grad(loss)(fast)
        if order == "first":
            grads = jax.lax.stop_gradient(grads)
        return jax.tree.map(lambda v, rate, g: v - rate * g, fast, rates, grads)

    if num_steps == 1:  # nothing to scan over, nothing for remat to save
        return step(start, jax.tree.map(lambda r: r[0], rates) if per_step else rates)
    if remat:
        # Inside a scan XLA cannot undo the recomputation, so the costly fences that
        # prevent it elsewhere are not needed.
        step = jax.checkpoint(step, prevent_cse=False)

    def body(fast, step_rates):
        return step(fast, step_rates if per_step else rates), None

    fast, _ = jax.lax.scan(body, start, rates if per_step else None, length=num_steps)
    return fast
