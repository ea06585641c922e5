"""Nash-MTL: the bargaining solution between tasks.

Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik, Fetaya, Multi-Task Learning as a
Bargaining Game, ICML 2022 (arXiv 2202.01017), claim 3.1. Solved to the end at every
step by Newton's method, where the authors take a few steps of a convex-concave
procedure from the last solution.
"""

import dataclasses

from jaxmeta.core.types import TaskWeights
from jaxmeta.surgery.fairgrad import fair_weights
from jaxmeta.surgery.gram import Gram
from jaxmeta.surgery.weighting import GramWeighting


@dataclasses.dataclass(frozen=True, kw_only=True)
class NashMTL(GramWeighting):
    """The w > 0 with `G w = 1 / w`: maximises `sum_t log <g_t, d>` over directions.

    Every task improves whatever its scale. The equation is solved for gradients of
    mean squared length 1 (the authors divide the Gram matrix by its norm), which fixes
    the length of the update: it scales with the gradients, in the same direction.

    Cost: O(T^3) a Newton step, 40 steps. State: none.

    Example:
      >>> import jax.numpy as jnp
      >>> w = NashMTL().of_gram(jnp.array([[1.0, 0.0], [0.0, 4.0]]))
      >>> print((w[0] / w[1]).round(3))
      2.0
    """

    def of_gram(self, gram: Gram) -> TaskWeights:
        """`[task]`, positive."""
        return fair_weights(gram, 1.0)
