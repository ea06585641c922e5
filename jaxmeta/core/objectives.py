"""Losses with the metrics that belong to them, for supervised learners."""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp
import optax

from jaxmeta.core.metrics import Mean, Metrics
from jaxmeta.core.types import Array, Float, Int, Scalar

Objective: TypeAlias = Callable[[Array, Array], tuple[Scalar, Metrics]]
"""`(outputs [n, ...], targets [n, ...]) -> (mean loss, metrics)`."""


def squared_error(
    outputs: Float[Array, "n *out"], targets: Float[Array, "n *out"]
) -> tuple[Scalar, Metrics]:
    """Mean squared error over examples *and* output elements.

    Args:
      outputs: `[n, ...]`.
      targets: `[n, ...]`, same shape.

    Returns:
      The loss, and `loss` as a metric.

    Raises:
      ValueError: for shapes that differ, which would broadcast to another loss.

    Example:
      >>> loss, _ = squared_error(jnp.zeros((1, 2)), jnp.array([[1.0, 3.0]]))
      >>> float(loss)
      5.0
    """
    if outputs.shape != targets.shape:
        raise ValueError(
            f"outputs and targets must have the same shape, got {outputs.shape} and "
            f"{targets.shape}; does the network have as many outputs as there are "
            "targets?"
        )
    squares = jnp.square(outputs - targets)
    return squares.mean(), {"loss": Mean.of(squares)}


def cross_entropy(
    outputs: Float[Array, "n ways"], targets: Int[Array, " n"]
) -> tuple[Scalar, Metrics]:
    """Softmax cross entropy in nats with integer classes, and accuracy in [0, 1].

    Args:
      outputs: `[n, ways]` logits.
      targets: `[n]` classes in 0..ways-1.

    Example:
      >>> loss, metrics = cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1]))
      >>> round(float(loss), 4), float(metrics["accuracy"].compute())
      (0.6931, 0.0)
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
    hits = jnp.argmax(outputs, axis=-1) == targets
    return losses.mean(), {"loss": Mean.of(losses), "accuracy": Mean.of(hits)}
