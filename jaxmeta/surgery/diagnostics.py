"""Why surgery helps: the theory's own quantities, free from the Gram matrix."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxmeta.core.types import Array, Float, Scalar, TaskWeights
from jaxmeta.surgery.gram import Gram, live_tasks, safe_divide
from jaxmeta.surgery.theory import (
    cosines,
    curvature_bounding_measure,
    magnitude_similarity,
)


class Diagnosis(NamedTuple):
    """What `diagnose` finds. Means and shares are over pairs of tasks that are there.

    Attributes:
      cosines: `[task, task]`; two tasks conflict where it is negative.
      conflicting: `[]` share of pairs that conflict, in [0, 1].
      similarity: `[]` mean magnitude similarity Phi, in [0, 1].
      curvature_bound: `[]` mean curvature bounding measure xi, >= 0.
      norms: `[task]` lengths of the gradients.
      alignment: `[]` cosine of the update and the sum of gradients.
      predicted_change: `[task]` first-order change of every loss, `-step_size (G w)_t`;
        a task with a positive one is hurt.
      hurt: `[]` share of tasks that the update still conflicts with, in [0, 1].
    """

    cosines: Float[Array, "task task"]
    conflicting: Scalar
    similarity: Scalar
    curvature_bound: Scalar
    norms: Float[Array, " task"]
    alignment: Scalar
    predicted_change: Float[Array, " task"]
    hurt: Scalar


def diagnose(gram: Gram, weights: TaskWeights, step_size: float | Scalar) -> Diagnosis:
    """Conflict before surgery, and what the weighted update does to every task.

    Args:
      gram: `[task, task]` inner products of the gradients.
      weights: `[task]`; the update is `sum_t w_t g_t`.
      step_size: the learning rate, >= 0.

    Raises:
      ValueError: for shapes that do not fit, or a negative step size.

    Example:
      >>> gram = jnp.array([[1.0, -0.5], [-0.5, 1.0]])
      >>> found = diagnose(gram, jnp.array([1.5, 1.5]), 0.1)
      >>> float(found.conflicting), found.predicted_change.round(3).tolist()[0] < 0
      (1.0, True)
    """
    if gram.shape != (*weights.shape, *weights.shape):
        raise ValueError(
            f"gram must be [task, task] and weights [task], got {gram.shape} and "
            f"{weights.shape}."
        )
    if isinstance(step_size, float | int) and step_size < 0:
        raise ValueError(f"step_size must be >= 0, got {step_size}.")
    live = live_tasks(gram)
    pairs = jnp.triu(live[:, None] * live[None, :], k=1)
    over_pairs = lambda x: safe_divide(
        jnp.sum(jnp.where(pairs > 0, x, 0.0)), pairs.sum()
    )
    cosine, along = cosines(gram), gram @ weights
    length = jnp.sqrt(jnp.maximum(weights @ along, 0.0) * jnp.maximum(gram.sum(), 0.0))
    return Diagnosis(
        cosines=cosine,
        conflicting=over_pairs(cosine < 0),
        similarity=over_pairs(magnitude_similarity(gram)),
        curvature_bound=over_pairs(curvature_bounding_measure(gram)),
        norms=jnp.sqrt(jnp.diagonal(gram)),
        alignment=safe_divide(along.sum(), length),
        predicted_change=-step_size * along,
        hurt=safe_divide(jnp.sum(live * (along < 0)), live.sum()),
    )
