"""LAME: near points get near answers; the network is left alone.

Boudiaf, Mueller, Ben Ayed, Bertinetto, Parameter-free Online Test-time Adaptation, CVPR
2022 (arXiv 2201.05718), section 4 and algorithm 1, with the affinity of the k nearest
neighbours.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxmeta.core.types import Array, Bool, Float
from jaxmeta.networks.norm import STORED
from jaxmeta.shift.adaptation.adapter import Adapter, Model, only_points
from jaxmeta.shift.adaptation.batch_norm import BatchStatistics

_SETTLED = 1e-6
"""The iteration ends when no probability changes by more."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lame(Adapter):
    """`z_i <- p_i exp(weight sum_j w_ij z_j) / sum`, until z is settled.

    p are the network's probabilities, and `w_ij` is 1 if j is among the `neighbours`
    nearest of i by the direction of the features. Each iteration lowers a bound on

      `sum_i KL(z_i || p_i) - weight/2 sum_ij w_ij z_i' z_j`

    Good where the labels of a batch are correlated, harmful where they are not. Nothing
    is remembered from batch to batch.

    Raises:
      ValueError: for a number outside its range.

    Example:
      >>> adapter = Lame(neighbours=3)
    """

    neighbours: int = 5
    """k, >= 1. A batch with fewer other points takes them all."""

    weight: float = 1.0
    """Of the neighbours' answers, >= 0."""

    max_iterations: int = 100
    """The iteration ends here if it has not settled, >= 1."""

    statistics: BatchStatistics | None = None
    """Whose statistics batch normalisation uses; None: the stored ones, as in the
    paper."""

    def __post_init__(self):
        for name in ("neighbours", "max_iterations"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be >= 1, got {value}.")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight must be >= 0 and finite, got {self.weight}.")

    def init(self, learner, params, model_state, key):
        del learner, key
        return Model(params, model_state)

    def adapt(self, learner, state, inputs, mask):
        inputs = only_points(inputs, mask)
        statistics = STORED if self.statistics is None else self.statistics.share(mask)
        outputs, _ = learner.forward(
            state.params, state.model_state, inputs, mask, statistics
        )
        near = self.weight * nearest(outputs.features, mask, self.neighbours)
        return state, settle(outputs.logits, near, self.max_iterations)


def nearest(
    features: Float[Array, "n f"], mask: Bool[Array, " n"], neighbours: int
) -> Float[Array, "n n"]:
    """`[n, n]`: 1 where the column is one of the row's nearest other points.

    Args:
      features: `[n, f]`; their lengths do not matter.
      mask: `[n]`; padding is nobody's neighbour, and has none.
      neighbours: how many each point has, if there are that many others.

    Example:
      >>> features = jnp.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
      >>> nearest(features, jnp.ones(3, bool), 1).tolist()
      [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    count = len(features)
    lengths = jnp.linalg.norm(features, axis=-1, keepdims=True)
    units = features / jnp.maximum(lengths, 1e-12)
    others = mask[:, None] & mask[None, :] & ~jnp.eye(count, dtype=bool)
    # Minus the squared distance, but for what all in a row have in common.
    closeness = 2.0 * units @ units.T - jnp.square(units).sum(-1)[None, :]
    closeness = jnp.where(others, closeness, -jnp.inf)
    values, columns = jax.lax.top_k(closeness, min(neighbours, count - 1))
    rows = jnp.arange(count)[:, None]
    there = (values > -jnp.inf).astype(features.dtype)
    return jnp.zeros((count, count), features.dtype).at[rows, columns].set(there)


def settle(
    logits: Float[Array, "n classes"],
    near: Float[Array, "n n"],
    max_iterations: int,
) -> Float[Array, "n classes"]:
    """Log probabilities where the iteration `z <- softmax(logits + near z)` ends.

    Example:
      One neighbour that is sure persuades one that is not:

      >>> logits, near = jnp.array([[9.0, 0.0], [0.0, 0.1]]), 1.0 - jnp.eye(2)
      >>> settle(logits, near, 100).argmax(-1).tolist()
      [0, 0]
    """

    def goes_on(carry):
        count, _, change = carry
        return (count < max_iterations) & (change > _SETTLED)

    def iterate(carry):
        count, logs, _ = carry
        probs = jnp.exp(logs)
        new = jax.nn.log_softmax(logits + near @ probs)
        return count + 1, new, jnp.abs(jnp.exp(new) - probs).max()

    first = (jnp.array(0), jax.nn.log_softmax(logits), jnp.array(jnp.inf))
    return jax.lax.while_loop(goes_on, iterate, first)[1]
