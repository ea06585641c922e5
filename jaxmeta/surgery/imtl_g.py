"""IMTL-G: an update with equal projections onto all tasks.

Liu, Li, Kuang, Xue, Chen, Yang, Liao, Zhang, Towards Impartial Multi-task Learning,
ICLR 2021, equation 6, in the form that a Gram matrix gives it.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.core.types import TaskWeights
from jaxmeta.surgery.gram import Gram, normalized, safe_divide
from jaxmeta.surgery.weighting import GramWeighting


@dataclasses.dataclass(frozen=True, kw_only=True)
class IMTLG(GramWeighting):
    """`w = G^+ n / sum(G^+ n)` with `n_t = |g_t|`: all `<g_t / |g_t|, d>` are equal.

    Weights may be negative. Where they sum to zero there is no such update, and the
    weights are zero.

    Cost: O(T^3), one eigendecomposition. State: none.

    Example:
      >>> print(IMTLG().of_gram(jnp.array([[1.0, 0.0], [0.0, 9.0]])).round(2))
      [0.75 0.25]
    """

    def of_gram(self, gram: Gram) -> TaskWeights:
        """`[task]`, summing to 1."""
        unit, _ = normalized(gram)
        norms = jnp.sqrt(jnp.diagonal(unit))
        weights = jnp.linalg.pinv(unit, hermitian=True) @ norms
        return safe_divide(weights, weights.sum())
