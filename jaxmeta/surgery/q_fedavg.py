"""q-FedAvg: the server step of fair federated learning.

Li, Sanjabi, Beirami, Smith, Fair Resource Allocation in Federated Learning, ICLR 2020
(arXiv 1905.10497), algorithm 2.
"""

import math

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core.aggregate import TaskAggregator, count_tasks, weighted_sum

_TINY = 1e-10
"""Added to losses, as the authors do."""


def q_fedavg(q: float, rate: float) -> TaskAggregator:
    """`sum_k F_k^q d_k / sum_k (q F_k^(q-1) |d_k|^2 + F_k^q / rate)`.

    `d_k = (w - w_k) / rate` is what client k sends (`shift.fed_avg.LocalSgd`) and F_k
    its loss before training. Follow it by `optax.sgd(1.0)`. With q = 0 it is FedAvg:
    the mean of the clients' models.

    Args:
      q: how much the worst clients count, >= 0.
      rate: the clients' learning rate, > 0; its inverse bounds the curvature.

    Returns:
      An aggregator that needs `task_losses=`.

    Raises:
      ValueError: for a number out of range; from `update`, without losses.

    Example:
      >>> tx = q_fedavg(q=0.0, rate=0.5)
      >>> grads, losses = jnp.array([[2.0], [4.0]]), jnp.ones(2)
      >>> tx.update(grads, tx.init(None), task_losses=losses)[0].tolist()
      [1.5]
    """
    if not (math.isfinite(q) and q >= 0):
        raise ValueError(f"q must be >= 0 and finite, got {q}.")
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"rate must be positive and finite, got {rate}.")

    def update(updates, state, params=None, *, task_losses=None, **extra):
        del extra
        num_tasks = count_tasks(updates, params)
        if task_losses is None:
            raise ValueError(
                "q_fedavg needs the losses of the clients: call update(task_grads, "
                f"state, params, task_losses=losses), ({num_tasks},)."
            )
        losses = task_losses + _TINY
        square = lambda leaf: jnp.square(leaf.reshape(num_tasks, -1)).sum(1)
        squares = sum(square(leaf) for leaf in jax.tree.leaves(updates))
        bounds = q * losses ** (q - 1.0) * squares + losses**q / rate
        weights = losses**q / bounds.sum()
        return jax.tree.map(lambda leaf: weighted_sum(weights, leaf), updates), state

    return optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(), update
    )
