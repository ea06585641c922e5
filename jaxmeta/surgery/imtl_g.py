"""IMTL-G: an update with equal projections onto all tasks.

Liu, Li, Kuang, Xue, Chen, Yang, Liao, Zhang, Towards Impartial Multi-task Learning,
ICLR 2021, equation 6, in the form that a Gram matrix gives it.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.core.types import TaskWeights
from jaxmeta.surgery.gram import Gram, safe_divide, unit_length
from jaxmeta.surgery.weighting import GramWeighting


@dataclasses.dataclass(frozen=True, kw_only=True)
class IMTLG(GramWeighting):
    """`w` proportional to `K^+ 1 / n`, summing to 1: all `<g_t / |g_t|, d>` are equal.

    `K` are the cosines and `n` the lengths; where G is regular this is `G^-1 n`.
    Where it is not (more tasks than parameters) the projections are equal as nearly as
    least squares makes those of the unit gradients.
    Weights may be negative. Where they sum to zero there is no such update, and the
    weights are zero.

    Cost: O(T^3), one eigendecomposition. State: none.

    Example:
      >>> print(IMTLG().of_gram(jnp.array([[1.0, 0.0], [0.0, 9.0]])).round(2))
      [0.75 0.25]
    """

    def of_gram(self, gram: Gram) -> TaskWeights:
        """`[task]`, summing to 1."""
        unit, lengths = unit_length(gram)
        equal = jnp.linalg.pinv(unit, hermitian=True).sum(axis=1)
        weights = safe_divide(equal, safe_divide(lengths, lengths.max()))
        return safe_divide(weights, weights.sum())
