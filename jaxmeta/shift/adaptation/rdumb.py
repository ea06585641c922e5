"""RDumb: any method, set back every so often.

Press, Schneider, Kuemmerer, Bethge, RDumb: A simple approach that questions our
progress in continual test-time adaptation, NeurIPS 2023 (arXiv 2306.05401), section 3.
"""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmeta.core.types import Array, Int
from jaxmeta.shift.adaptation.adapter import Adapter, choose


class ResetState(NamedTuple):
    """The states of the method that is set back, and how far it is.

    Attributes:
      now: after the last batch.
      first: before the first.
      count: `[]` batches since the last reset.
    """

    now: Any
    first: Any
    count: Int[Array, ""]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResetEvery(Adapter):
    """Takes the first state of `adapter` again after every `every` batches.

    Batches of padding alone are counted too. The paper's method has ETA inside, and
    resets it every 1,000 batches.

    Raises:
      ValueError: for `every` below 1.

    Example:
      >>> from jaxmeta.shift.adaptation import Eata
      >>> rdumb = ResetEvery(adapter=Eata())
    """

    adapter: Adapter
    """What is set back."""

    every: int = 1000
    """Batches between resets, >= 1."""

    def __post_init__(self):
        if self.every < 1:
            raise ValueError(f"every must be >= 1, got {self.every}.")

    def init(self, learner, params, model_state, key):
        first = self.adapter.init(learner, params, model_state, key)
        return ResetState(first, first, jnp.array(0))

    def adapt(self, learner, state, inputs, mask):
        now, logits = self.adapter.adapt(learner, state.now, inputs, mask)
        count = state.count + 1
        due = count >= self.every
        now = choose(due, state.first, now)
        return ResetState(now, state.first, jnp.where(due, 0, count)), logits
