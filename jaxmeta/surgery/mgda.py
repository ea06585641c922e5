"""MGDA: the shortest gradient in the tasks' convex hull.

Desideri, Multiple-gradient descent algorithm, C. R. Math. 2012; Sener and Koltun,
Multi-Task Learning as Multi-Objective Optimization, NeurIPS 2018 (arXiv 1810.04650),
who solve the same problem by Frank-Wolfe.
"""

import dataclasses

from jaxmeta.core.types import TaskWeights
from jaxmeta.surgery.gram import Gram, live_tasks, normalized
from jaxmeta.surgery.solver import on_simplex
from jaxmeta.surgery.weighting import GramWeighting


@dataclasses.dataclass(frozen=True, kw_only=True)
class MGDA(GramWeighting):
    """`argmin w' G w` over the simplex: no task gets worse, to first order.

    At a Pareto-stationary point the update is zero. The shortest gradients weigh
    most, so one nearly solved task can stall the others.

    Cost: O(T^3) a Newton step, 30 steps. State: none.

    Example:
      >>> import jax.numpy as jnp
      >>> print(MGDA().of_gram(jnp.array([[1.0, 0.0], [0.0, 4.0]])).round(3))
      [0.8 0.2]
    """

    def of_gram(self, gram: Gram) -> TaskWeights:
        """`[task]` on the simplex of the tasks that are there."""
        unit, _ = normalized(gram)
        return on_simplex(lambda w: 0.5 * w @ unit @ w, live_tasks(gram))
