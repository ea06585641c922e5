"""Gradient descent inside one task, differentiable from the outside."""

from jaxmeta.core.types import FastParams, PyTree
from jaxmeta.meta.meta_gradient import UNROLLED, Loss, MetaGradient


def descend(
    loss: Loss,
    start: FastParams,
    context: PyTree,
    rates: PyTree,
    *,
    num_steps: int,
    per_step: bool = False,
    meta_gradient: MetaGradient = UNROLLED,
) -> FastParams:
    """`num_steps` steps of gradient descent, `v <- v - rate * grad_v loss(v, context)`.

    Rates are leaves like any other: the outer gradient reaches them, so they can be
    learned. Each rate broadcasts against its parameter.

    Args:
      loss: the support loss, of the fast parameters and the context.
      start: fast parameters before the first step, `*p` each.
      context: all else that the loss depends on: other parameters, which may get outer
        gradients too, and the data. It must close over nothing that JAX traces.
      rates: same tree as `start`; leaves `[]` (per tensor) or `*p` (per parameter),
        with a leading `[num_steps]` axis if `per_step`.
      num_steps: >= 1.
      per_step: whether every step has its own rates.
      meta_gradient: how the outer gradient goes through the steps.

    Returns:
      The fast parameters after the last step, same tree as `start`.

    Raises:
      ValueError: if `num_steps` < 1.

    References:
      Finn, Abbeel, Levine, "Model-Agnostic Meta-Learning" (2017), eq. 1 and sec. 5.2;
      Li et al., "Meta-SGD" (2017), for learned rates.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = lambda v, context: 0.5 * (v - context) ** 2
      >>> end = descend(loss, jnp.array(1.0), 0.0, jnp.array(0.5), num_steps=3)
      >>> float(end)
      0.125
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be >= 1, got {num_steps}.")
    return meta_gradient.descend(
        loss, start, context, rates, num_steps=num_steps, per_step=per_step
    )
