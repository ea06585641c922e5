"""SAR: down the entropy of sure points, to where it is flat.

Niu, Wu, Zhang, Wen, Chen, Zhao, Tan, Towards Stable Test-Time Adaptation in Dynamic
Wild World, ICLR 2023 (arXiv 2302.12400), section 4 and algorithm 1. Differences from
the authors' code: all normalisation layers move (they leave out the last block of a
ResNet or transformer), a batch without a sure point changes nothing, and a reset starts
the moving average anew.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core.types import Array, Bool, Float
from jaxmeta.shift.adaptation.adapter import choose, masked_mean
from jaxmeta.shift.adaptation.descent import Descent, entropy, momentum_sgd

_MEMORY = 0.9
"""Share of the past in the moving average of the loss."""


class Loss(NamedTuple):
    """What SAR remembers of the stream.

    Attributes:
      average: `[]` moving average of the entropy of sure points, in nats.
      any: `[]` whether there was one.
    """

    average: Float[Array, ""]
    any: Bool[Array, ""]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sar(Descent):
    """A step with the gradient from a little up the hill, over sure points.

    ```text
    sure   H_i < max_entropy ln(num_classes)
    g      gradient at theta of the mean entropy of sure points
    up     theta + radius g / ||g||
    step   with the gradient at up, over points that are sure there too
    reset  if the moving average of the loss at up falls below reset_below
    ```

    Raises:
      ValueError: as `Descent` does.

    Example:
      >>> adapter = Sar(learning_rate=1e-3)
    """

    max_entropy: float = 0.4
    """Points less sure than this share of the largest entropy are not learned from."""

    radius: float = 0.05
    """rho, the distance up the hill, >= 0."""

    reset_below: float = 0.2
    """In nats. A model that is that sure of everything has collapsed: it is set back to
    how it was trained. 0: never."""

    optimizer: Callable[[float], optax.GradientTransformation] = momentum_sgd
    """As published, here and below."""

    learning_rate: float = 2.5e-4
    """For a ResNet and batches of 64."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("max_entropy", "radius", "reset_below"):
            if not (math.isfinite(value := getattr(self, name)) and value >= 0):
                raise ValueError(f"{name} must be >= 0 and finite, got {value}.")

    def remember(self, learner):
        del learner
        return _nothing_yet()

    def update(self, logits_of, state, mask):
        def loss(moved, candidates):
            logits = logits_of(moved)
            entropies = entropy(logits)
            limit = self.max_entropy * math.log(logits.shape[-1])
            sure = candidates & (entropies < limit)
            return masked_mean(entropies, sure), (logits, sure)

        slope = jax.value_and_grad(loss, has_aux=True)
        (_, (logits, sure)), uphill = slope(state.moved, mask)
        length = optax.tree.norm(uphill)
        scale = self.radius / (length + 1e-12)
        top = jax.tree.map(lambda p, g: p + scale * g, state.moved, uphill)
        (value, (_, sure)), grads = slope(top, sure)
        mixed = _MEMORY * state.memory.average + (1 - _MEMORY) * value
        average = choose(state.memory.any, mixed, value)
        state = self.step(state, grads, Loss(average, jnp.array(True)), sure.any())
        return self._recover(state), logits

    def _recover(self, state):
        """The state, or the first one if the model has collapsed."""
        collapsed = state.memory.any & (state.memory.average < self.reset_below)
        opt_state = self.optimizer(self.learning_rate).init(state.first)
        moved, opt_state, memory = choose(
            collapsed,
            (state.first, opt_state, _nothing_yet()),
            (state.moved, state.opt_state, state.memory),
        )
        return dataclasses.replace(
            state, moved=moved, opt_state=opt_state, memory=memory
        )


def _nothing_yet() -> Loss:
    return Loss(jnp.zeros(()), jnp.array(False))
