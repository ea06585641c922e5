"""Aligned-MTL: gradients made orthogonal and equally long.

Senushkin, Patakin, Kuznetsov, Konushin, Independent Component Alignment for
Multi-Task Learning, CVPR 2023 (arXiv 2305.19000), algorithm 1.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.core.types import TaskWeights
from jaxmeta.surgery.gram import Gram, live_tasks, normalized
from jaxmeta.surgery.weighting import GramWeighting


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignedMTL(GramWeighting):
    """`w = sqrt(l_min) V L^(-1/2) V' 1/T`, `G = V L V'`, over the nonzero eigenvalues.

    The mean of the gradients after the closest change that gives their matrix
    condition number 1, at the smallest singular value.

    Cost: O(T^3), one eigendecomposition. State: none.

    Example:
      >>> print(AlignedMTL().of_gram(jnp.array([[1.0, 0.0], [0.0, 4.0]])).round(3))
      [0.5 0.25]
    """

    def of_gram(self, gram: Gram) -> TaskWeights:
        """`[task]`."""
        unit, _ = normalized(gram)
        values, vectors = jnp.linalg.eigh(unit)
        rounding = len(gram) * jnp.finfo(gram.dtype).eps * values.max()
        kept = values > rounding
        smallest = jnp.where(kept, values, jnp.inf).min()
        shrink = jnp.where(kept, jnp.sqrt(smallest / jnp.where(kept, values, 1.0)), 0.0)
        live = live_tasks(gram)
        mean = live / jnp.maximum(live.sum(), 1.0)
        return vectors @ (shrink * (mean @ vectors))
