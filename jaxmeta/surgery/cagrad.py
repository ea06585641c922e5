"""CAGrad: the best worst-case improvement near the average gradient.

Liu, Liu, Jin, Stone, Liu, Conflict-Averse Gradient Descent for Multi-task Learning,
NeurIPS 2021 (arXiv 2110.14048), algorithm 1.
"""

import dataclasses
import math

import jax.numpy as jnp

from jaxmeta.core.types import TaskWeights
from jaxmeta.surgery.gram import Gram, live_tasks, normalized, safe_divide
from jaxmeta.surgery.solver import on_simplex
from jaxmeta.surgery.weighting import GramWeighting


@dataclasses.dataclass(frozen=True, kw_only=True)
class CAGrad(GramWeighting):
    """The d that maximises `min_t <g_t, d>` with `|d - g_0| <= c |g_0|`.

    `g_0` is the mean gradient. With `w* = argmin g_w . g_0 + c |g_0| |g_w|` over the
    simplex, `g_w = sum_t w_t g_t`, it is `d = g_0 + c |g_0| g_w* / |g_w*|`, divided by
    `1 + c^2` when `rescale`, as the authors' code does. c = 0 is the mean.

    Cost: O(T^3) a Newton step, 30 steps. State: none.

    Raises:
      ValueError: for a c that is negative or not finite.

    Example:
      >>> gram = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> w = CAGrad(c=0.5, rescale=False).of_gram(gram)
      >>> bool(jnp.allclose(w, 0.75, atol=1e-5))
      True
    """

    c: float = 0.5
    """How far from the mean gradient, as a share of its length, >= 0."""

    rescale: bool = True
    """Whether the result is divided by `1 + c^2`."""

    def __post_init__(self):
        if not (math.isfinite(self.c) and self.c >= 0):
            raise ValueError(f"c must be >= 0 and finite, got {self.c}.")

    def of_gram(self, gram: Gram) -> TaskWeights:
        """`[task]`, positive."""
        live = live_tasks(gram)
        mean = live / jnp.maximum(live.sum(), 1.0)
        unit, _ = normalized(gram)
        radius = self.c * _length(unit, mean)
        objective = lambda w: w @ unit @ mean + radius * _length(unit, w)
        best = on_simplex(objective, live)
        weights = mean + safe_divide(radius, _length(unit, best)) * best
        return weights / (1.0 + self.c**2 * self.rescale)


def _length(gram: Gram, weights: TaskWeights):
    # No derivative exists at length 0, where tasks cancel exactly.
    tiny = jnp.finfo(gram.dtype).eps
    return jnp.sqrt(jnp.maximum(weights @ gram @ weights, 0.0) + tiny)
