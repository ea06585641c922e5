"""FairGrad: the update that is alpha-fair to the tasks' rates of improvement.

Ban and Ji, Fair Resource Allocation in Multi-Task Learning, ICML 2024 (arXiv
2402.15638), equation 6.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxmeta.core.types import TaskWeights
from jaxmeta.surgery.gram import Gram, live_tasks, normalized
from jaxmeta.surgery.weighting import GramWeighting

STEPS = 40
LARGEST = 1e4
"""Weights stop here, in units of the mean gradient: tasks that oppose each other
exactly have no fair update, and the equation no finite solution."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FairGrad(GramWeighting):
    """The w > 0 with `G w = w^(-1/alpha)`: `<g_t, d> = w_t^(-1/alpha)`.

    It maximises `sum_t <g_t, d>^(1-alpha) / (1-alpha)` over directions: alpha near 0
    is the sum, 1 proportional fairness (`NashMTL`), large alpha the worst task. The
    equation is solved for gradients of mean squared length 1, which fixes the length
    of the update: it scales with the gradients, in the same direction.

    Cost: O(T^3) a Newton step, 40 steps. State: none.

    Raises:
      ValueError: for an alpha that is not positive and finite.

    Example:
      >>> print(FairGrad(alpha=2.0).of_gram(jnp.eye(2)).round(3))
      [1. 1.]
    """

    alpha: float = 2.0
    """Fairness, > 0."""

    def __post_init__(self):
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"alpha must be positive and finite, got {self.alpha}.")

    def of_gram(self, gram: Gram) -> TaskWeights:
        """`[task]`, positive."""
        return fair_weights(gram, self.alpha)


def fair_weights(gram: Gram, alpha: float) -> TaskWeights:
    """Solves `G w = w^(-1/alpha)` for the gradients scaled to mean squared length 1.

    Newton's method on `log w`, for each task the logarithm of both sides' ratio, with
    steps that never change a weight more than fourfold.

    Args:
      gram: `[task, task]`; absent tasks get weight 0.
      alpha: > 0.

    Example:
      >>> fair_weights(jnp.diag(jnp.array([1.0, 1.0, 0.0])), 1.0).round(3).tolist()
      [1.0, 1.0, 0.0]
    """
    live = live_tasks(gram)
    unit, _ = normalized(gram)
    matrix = unit + jnp.diag(1.0 - live)
    power = 1.0 / alpha

    # Minimises 1/2 w' G w + sum_t h(w_t), h' = -w^(-1/alpha): convex in w, so Newton's
    # method with a line search by the Newton decrement converges from anywhere.
    def newton(_, w):
        slope = matrix @ w - w**-power
        curvature = power * w ** (-power - 1.0)
        factor = jax.scipy.linalg.cho_factor(matrix + jnp.diag(curvature))
        dw = -jax.scipy.linalg.cho_solve(factor, slope)
        relative = jnp.max(jnp.abs(dw) / w)
        step = 1.0 / (1.0 + jnp.maximum(relative - 0.5, 0.0))
        return jnp.clip(w + step * dw, w / 4.0, jnp.minimum(4.0 * w, LARGEST))

    return live * jax.lax.fori_loop(0, STEPS, newton, jnp.ones_like(live))
