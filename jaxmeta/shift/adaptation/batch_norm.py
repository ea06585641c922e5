"""Batch statistics at test time, without a gradient.

Schneider, Rusak, Eck, Bringmann, Brendel, Bethge, Improving robustness against common
corruptions by covariate shift adaptation, NeurIPS 2020 (arXiv 2006.16971), section 2;
with no prior it is the prediction-time batch normalisation of Nado et al. (arXiv
2006.10963). Networks without batch normalisation are not changed by it.
"""

import dataclasses
import math

import jax.numpy as jnp

from jaxmeta.core.types import Array, Bool
from jaxmeta.networks.norm import Statistics
from jaxmeta.shift.adaptation.adapter import (
    Adapter,
    Model,
    Order,
    check_order,
    if_finite,
    only_points,
)
from jaxmeta.shift.learner import check_support, enough


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchStatistics(Adapter):
    """`N/(N+n) stored + n/(N+n) batch`, of means and variances, for a batch of n.

    With `prior = 0` it is BN-1, what ARM-BN does at test time; the larger it is, the
    closer to the trained model. Nothing is remembered from batch to batch.

    Other methods have it as a field: it says whose statistics they use.

    Raises:
      ValueError: for a negative or non-finite `prior`, or a `min_support` below 1.

    Example:
      >>> use = BatchStatistics(prior=16.0).share(jnp.ones(16, bool)).use
      >>> float(use)
      0.5
    """

    prior: float = 0.0
    """N: how many points the stored statistics are worth, >= 0. In the paper 0 for
    large batches, and 8 to 256 for few points."""

    min_support: int = 2
    """Fewer points than this are answered with the stored statistics, >= 1."""

    def __post_init__(self):
        if not (math.isfinite(self.prior) and self.prior >= 0):
            raise ValueError(f"prior must be >= 0 and finite, got {self.prior}.")
        if self.min_support < 1:
            raise ValueError(f"min_support must be >= 1, got {self.min_support}.")

    def share(self, mask: Bool[Array, " n"]) -> Statistics:
        """The statistics to use for a batch; none are kept.

        Args:
          mask: `[n]` False for padding.
        """
        check_support(len(mask), self)
        count = mask.sum().astype(jnp.float32)
        share = count / jnp.maximum(self.prior + count, 1.0)
        use = jnp.where(enough(mask, self.min_support), share, 0.0)
        return Statistics(use=use, keep=0.0)

    def init(self, learner, params, model_state, key):
        del learner, key
        return Model(params, model_state)

    def adapt(self, learner, state, inputs, mask):
        inputs = only_points(inputs, mask)
        outputs, _ = learner.forward(
            state.params, state.model_state, inputs, mask, self.share(mask)
        )
        return state, outputs.logits


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunningStatistics(Adapter):
    """`stored <- (1 - m) stored + m batch`: the stored statistics follow the stream.

    Known as BN-EMA. It works with batches of any size, single points included.

    Raises:
      ValueError: for a `momentum` outside 0 to 1, or an unknown order.

    Example:
      >>> adapter = RunningStatistics(momentum=0.05)
    """

    momentum: float = 0.1
    """m: share of a batch in the statistics after it, in (0, 1]."""

    order: Order = "update_then_predict"
    """Whether a batch is answered with the statistics before or after it."""

    def __post_init__(self):
        if not 0 < self.momentum <= 1:
            raise ValueError(f"momentum must be in (0, 1], got {self.momentum}.")
        check_order(self.order)

    def init(self, learner, params, model_state, key):
        del learner, key
        return Model(params, model_state)

    def adapt(self, learner, state, inputs, mask):
        inputs = only_points(inputs, mask)
        # What is used is mixed as what is kept is: one pass does both.
        used = self.momentum if self.order == "update_then_predict" else 0.0
        statistics = Statistics(use=used, keep=self.momentum)
        outputs, model_state = learner.forward(
            state.params, state.model_state, inputs, mask, statistics
        )
        model_state = if_finite(model_state, state.model_state)
        return Model(state.params, model_state), outputs.logits
