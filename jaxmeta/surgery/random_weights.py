"""Random loss weighting (RLW), the baseline that everybody must report.

Lin, Ye, Zhang, Tsang, Reasonable Effectiveness of Random Weighting: A Litmus Test for
Multi-Task Learning, TMLR 2022 (arXiv 2111.10603), section 3. Weights drawn for the
losses and for the gradients (RGW) give the same update here.
"""

import dataclasses
from typing import Any, ClassVar

import jax

from jaxmeta.core.types import PRNGKey, TaskWeights
from jaxmeta.surgery.weighting import Tasks, Weighting


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomWeights(Weighting):
    """`w = softmax(z)`, `z ~ N(0, I)`, drawn anew at every step.

    Cost: O(T); one backward pass. State: none but the key.

    Example:
      >>> import jax.numpy as jnp
      >>> tasks = Tasks(jnp.eye(3), jnp.zeros(3), jnp.arange(3))
      >>> w, _ = RandomWeights().weigh(tasks, (), jax.random.key(0))
      >>> round(float(w.sum()), 5)
      1.0
    """

    needs_gram: ClassVar[bool] = False

    def init(self) -> Any:
        """No state."""
        return ()

    def weigh(self, tasks: Tasks, state: Any, key: PRNGKey) -> tuple[TaskWeights, Any]:
        """The weights of this step: positive, summing to 1."""
        return jax.nn.softmax(jax.random.normal(key, tasks.losses.shape)), state
