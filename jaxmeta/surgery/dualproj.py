"""DualProj: the mean gradient projected onto the cone in which no task gets worse.

Lopez-Paz and Ranzato, Gradient Episodic Memory for Continual Learning, NeurIPS 2017
(arXiv 1706.08840), equation 11, as a rule between tasks.
"""

import dataclasses

from jaxmeta.core.types import TaskWeights
from jaxmeta.surgery.gram import Gram, safe_divide, unit_length
from jaxmeta.surgery.reduction import Reduction, check_reduction, reduced
from jaxmeta.surgery.upgrad import project_onto_cone
from jaxmeta.surgery.weighting import GramWeighting


@dataclasses.dataclass(frozen=True, kw_only=True)
class DualProj(GramWeighting):
    """The d nearest to the sum (or mean) of gradients with `<g_j, d> >= 0` for all j.

    Cost: O(T^3) a Newton step, 30 steps. State: none.

    Raises:
      ValueError: for an unknown reduction.

    Example:
      >>> import jax.numpy as jnp
      >>> gram = jnp.array([[1.0, -2.0], [-2.0, 9.0]])     # the sum hurts task 1
      >>> print(DualProj().of_gram(gram).round(3))
      [2. 1.]
    """

    reduction: Reduction = "sum"
    """"sum" of the gradients, or "mean" over the tasks that are there."""

    def __post_init__(self):
        check_reduction(self.reduction)

    def of_gram(self, gram: Gram) -> TaskWeights:
        """`[task]`, >= 1 for "sum"; 0 for absent tasks."""
        unit, lengths = unit_length(gram)
        longest = lengths.max()
        projected = project_onto_cone(unit, safe_divide(lengths, longest))
        weights = safe_divide(projected * longest, lengths)
        return reduced(weights, gram, self.reduction)
