"""FairGrad: the update that is alpha-fair to the tasks' rates of improvement.

Ban and Ji, Fair Resource Allocation in Multi-Task Learning, ICML 2024 (arXiv
2402.15638), equation 6.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxmeta.core.types import TaskWeights
from jaxmeta.surgery.gram import Gram, live_tasks, normalized, safe_divide, unit_length
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

    Newton's method for `min 1/2 u' K u + sum_t h_t(u_t)` in the weights `u = n w` of
    unit gradients, with steps that never change a weight more than fourfold.

    Args:
      gram: `[task, task]`; absent tasks get weight 0.
      alpha: > 0.

    Example:
      >>> print(fair_weights(jnp.diag(jnp.array([1.0, 1.0, 0.0])), 1.0).round(3))
      [1. 1. 0.]
    """
    live = live_tasks(gram)
    unit, lengths = unit_length(gram)
    lengths = safe_divide(lengths, jnp.sqrt(normalized(gram)[1])) + (1.0 - live)
    power = 1.0 / alpha
    # G w = w^-power for u = n w: K u = goal u^-power.
    goal = lengths ** (power - 1.0)
    damping = 10.0 * len(gram) * jnp.finfo(gram.dtype).eps
    matrix = unit + jnp.diag(1.0 - live)

    def newton(_, u):
        pull = goal * u**-power
        curvature = power * pull / u + damping
        factor = jax.scipy.linalg.cho_factor(matrix + jnp.diag(curvature))
        du = -jax.scipy.linalg.cho_solve(factor, matrix @ u - pull)
        step = 1.0 / (1.0 + jnp.maximum(jnp.max(jnp.abs(du) / u) - 0.5, 0.0))
        return jnp.clip(u + step * du, u / 4.0, jnp.minimum(4.0 * u, LARGEST))

    start = goal ** (1.0 / (1.0 + power))  # the solution for orthogonal gradients
    return live * jax.lax.fori_loop(0, STEPS, newton, start) / lengths
