"""TENT: down the entropy of the predictions.

Wang, Shelhamer, Liu, Olshausen, Darrell, Tent: Fully Test-Time Adaptation by Entropy
Minimization, ICLR 2021 (arXiv 2006.10726), section 3.
"""

import dataclasses

import jax

from jaxmeta.shift.adaptation.adapter import masked_mean
from jaxmeta.shift.adaptation.descent import Descent, entropy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tent(Descent):
    """`min mean_i H(f(x_i))` over the scales and biases of normalisation layers.

    The defaults are those for CIFAR-10-C: Adam, 1e-3, one step a batch of 200. In a
    long stream it collapses into few classes; see `ResetEvery`, `Eata` and `Sar`.

    Raises:
      ValueError: as `Descent` does.

    Example:
      >>> from jaxmeta.shift.adaptation import BatchStatistics
      >>> adapter = Tent(learning_rate=2.5e-4, statistics=BatchStatistics(prior=16.0))
    """

    def remember(self, learner):
        del learner
        return ()

    def update(self, logits_of, state, mask):
        def loss(moved):
            logits = logits_of(moved)
            return masked_mean(entropy(logits), mask), logits

        grads, logits = jax.grad(loss, has_aux=True)(state.moved)
        return self.step(state, grads, (), mask.any()), logits
