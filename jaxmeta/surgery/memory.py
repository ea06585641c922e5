"""Gradient surgery without ever holding the tasks' gradients.

Column j of the Gram matrix is `J g_j`, the derivative of the vector of losses along
the gradient of task j: one backward and one forward derivative a task, of which only
`[task]` numbers are kept. Then one backward pass of the weighted losses.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core.aggregate import accumulator
from jaxmeta.core.types import Array, Params, PRNGKey, TaskLosses
from jaxmeta.surgery.aggregate import (
    AggregateState,
    Mask,
    find_weights,
    first_state,
    losses_and_ids,
    raw_key,
    shared_leaves,
    weights_only,
)
from jaxmeta.surgery.weighting import FeedbackWeighting, Tasks, Weighting


class LowMemory(NamedTuple):
    """What `low_memory` returns.

    Attributes:
      init: `params -> state`.
      update: `(params, state, *args, task_ids=None)` to `(updates, state, losses)`.
    """

    init: Callable[[Params], Any]
    update: Callable[..., tuple[Params, Any, TaskLosses]]


def low_memory(
    loss_vector_fn: Callable[..., TaskLosses],
    weighting: Weighting,
    key: PRNGKey | Array | int = 0,
    *,
    mask: Mask = None,
) -> LowMemory:
    """Surgery in the memory of one gradient: `[task, *p]` never exists.

    The numbers are those of `aggregate_tasks` with the same weighting and key, up to
    rounding, which solvers amplify a little. A weighting that needs no gradients takes
    one backward pass in either form. It takes as many backward and forward derivatives
    of the whole vector of losses as there are tasks: less memory for more time.
    Randomness inside the losses (dropout) must come from keys in `args`, so that all
    passes see the same. Gradients are scaled to length 1 before they are used as
    directions, so that their products do not vanish in half precision.

    Args:
      loss_vector_fn: `(params, *args) -> [task]` losses; `map_tasks` makes one.
      weighting: the rule, such as `PCGrad()`.
      key: as in `aggregate_tasks`.
      mask: as in `aggregate_tasks`.

    Returns:
      `(init, update)`; `updates` go into an optax chain that has no aggregator.

    Raises:
      ValueError: for a weighting that learns from the losses after the step (FAMO): it
        has nothing to save, use `aggregate_tasks`; (when called) if `loss_vector_fn`
        does not return a vector.

    Example:
      >>> from jaxmeta.surgery import PCGrad
      >>> losses = lambda x: jnp.stack([jnp.sum(x**2), jnp.sum((x - 1.0) ** 2)])
      >>> surgery = low_memory(losses, PCGrad())
      >>> params = jnp.array([0.5, 0.0])
      >>> updates, state, now = surgery.update(params, surgery.init(params))
      >>> print(updates.round(3), now)
      [ 0.8 -2.4] [0.25 1.25]
    """
    if isinstance(weighting, FeedbackWeighting):
        raise ValueError(
            f"{type(weighting).__name__} learns from the losses after the step, which "
            "low_memory does not see. It never holds all gradients anyway: use "
            "aggregate_tasks."
        )
    key_data, impl = raw_key(key)
    loss_level = None
    if not weighting.needs_gram:
        loss_level = weights_only(weighting, key_data, impl, "global", mask)

    def init(params):
        if loss_level is not None:
            return loss_level.init(params)
        return first_state(weighting, key_data, 1)

    def update(params, state, *args, task_ids=None):
        losses_of = lambda params: loss_vector_fn(params, *args)
        losses, pull_back = jax.vjp(losses_of, params)
        if losses.ndim != 1:
            raise ValueError(
                "loss_vector_fn must return one loss a task, [task], got shape "
                f"{losses.shape}."
            )
        given = {"task_losses": losses, "task_ids": task_ids}
        losses, ids = losses_and_ids(weighting, len(losses), given)
        if loss_level is not None:
            weights, state = loss_level.weights(state, losses, ids)
            return pull_back(weights.astype(losses.dtype))[0], state, losses
        is_shared = shared_leaves(params, mask)
        keep = lambda x, shared: x if shared else jnp.zeros_like(x)

        def column(one):
            (grad,) = pull_back(one)
            grad = jax.tree.map(keep, grad, is_shared)
            length = _length(grad)
            unit = jax.tree.map(lambda x: (x / _nonzero(length)).astype(x.dtype), grad)
            along = jax.jvp(losses_of, (params,), (unit,))[1]
            return along.astype(length.dtype) * length

        ones = jnp.eye(len(losses), dtype=losses.dtype)
        gram = jax.lax.map(column, ones)
        gram = 0.5 * (gram + gram.T)
        key, now = jax.random.split(jax.random.wrap_key_data(state.key, impl=impl))
        (now,) = jax.random.split(now, 1)
        one_group = jax.tree.map(lambda x: x[0], state.groups)
        weights, group = find_weights(
            weighting, Tasks(gram, losses, ids), one_group, now
        )
        (updates,) = pull_back(weights.astype(losses.dtype))
        if not all(jax.tree.leaves(is_shared)):
            (summed,) = pull_back(jnp.ones_like(losses))
            choose = lambda surgery, plain, shared: surgery if shared else plain
            updates = jax.tree.map(choose, updates, summed, is_shared)
        groups = jax.tree.map(lambda x: x[None], group)
        return updates, AggregateState(jax.random.key_data(key), groups), losses

    return LowMemory(init, update)


def _length(tree: Params) -> Array:
    squares = [
        jnp.sum(jnp.square(x.astype(accumulator(x.dtype))))
        for x in jax.tree.leaves(tree)
    ]
    return jnp.sqrt(sum(squares))


def _nonzero(x: Any) -> Array:
    return jnp.where(x > 0, x, 1.0)
