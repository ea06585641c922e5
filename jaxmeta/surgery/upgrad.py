"""UPGrad: every gradient projected onto the cone in which no task gets worse.

Quinton and Rey, Jacobian Descent for Multi-Objective Optimization, 2024 (arXiv
2406.16232), equations 8 to 10.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxmeta.core.types import TaskWeights
from jaxmeta.surgery.gram import Gram, live_tasks, safe_divide, unit_length
from jaxmeta.surgery.reduction import Reduction, check_reduction, reduced
from jaxmeta.surgery.solver import minimize_positive
from jaxmeta.surgery.weighting import GramWeighting


@dataclasses.dataclass(frozen=True, kw_only=True)
class UPGrad(GramWeighting):
    """Projects each `g_i` onto `{d : <g_j, d> >= 0 for all j}` and adds them up.

    The projection of `g_i` is `sum_k v_k g_k` with `v = argmin v' G v`, `v >= e_i`.
    The result conflicts with no task; with two tasks it is PCGrad's.

    Cost: O(T^4) a Newton step (T problems side by side), 30 steps. State: none.

    Raises:
      ValueError: for an unknown reduction.

    Example:
      >>> print(UPGrad().of_gram(jnp.array([[1.0, -0.5], [-0.5, 1.0]])).round(2))
      [1.5 1.5]
    """

    reduction: Reduction = "sum"
    """"sum" of the projected gradients, or "mean" over the tasks that are there."""

    def __post_init__(self):
        check_reduction(self.reduction)

    def of_gram(self, gram: Gram) -> TaskWeights:
        """`[task]`, >= 1 for "sum"; 0 for absent tasks."""
        unit, lengths = unit_length(gram)
        # Task i's own unit gradient, projected and made as long as it was.
        projected = jax.vmap(lambda v: project_onto_cone(unit, v))(jnp.eye(len(gram)))
        weights = safe_divide(lengths @ projected, lengths)
        return reduced(weights, gram, self.reduction)


def project_onto_cone(gram: Gram, weights: TaskWeights) -> TaskWeights:
    """Weights of the point nearest to `sum_k weights_k g_k` that hurts no task.

    The dual of the projection: `argmin v' G v` over `v >= weights`.

    Args:
      gram: `[task, task]`, with entries of the order of 1.
      weights: `[task]` of the vector to project.

    Example:
      >>> gram = jnp.array([[1.0, -0.5], [-0.5, 1.0]])
      >>> print(project_onto_cone(gram, jnp.array([1.0, 0.0])).round(2))
      [1.  0.5]
    """
    # An absent task needs nothing: its multiplier is pushed to zero.
    absent = 1.0 - live_tasks(gram)
    matrix = gram + jnp.diag(absent)
    linear = gram @ weights + absent
    objective = lambda z: 0.5 * z @ matrix @ z + linear @ z
    extra = minimize_positive(objective, jnp.ones_like(weights))
    return weights + (1.0 - absent) * extra
