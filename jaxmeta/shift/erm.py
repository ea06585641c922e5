"""Empirical risk minimisation, and its forms that weigh groups.

With a weighting of `surgery` the same class is group DRO (Sagawa et al., arXiv
1911.08731, algorithm 1) or q-FFL (Li et al., arXiv 1905.10497, equation 2); with the
sampler `point_balanced` it is up-weighting. The groups are those of the batch's points:
one mixed batch is one task, so that batch normalisation sees all of them, as published.
With a network that does not normalise over the batch the groups can be tasks, and the
weighting an aggregator between them.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxmeta.core.task import Task
from jaxmeta.core.types import Array
from jaxmeta.networks.norm import TRAINING
from jaxmeta.shift.learner import flat, mean_loss, measured, point_losses
from jaxmeta.shift.unadapted import Unadapted
from jaxmeta.surgery.famo import FAMO
from jaxmeta.surgery.upweighting import UpWeighting
from jaxmeta.surgery.weighting import Tasks, Weighting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Erm(Unadapted):
    """`min E[loss]` over all points, or `min sum_g w_g L_g` over groups.

    It does not adapt: predictions use the stored statistics of training.

    With `weighting` and `num_groups = G`, `L_g` is the mean loss of the batch's points
    of group g, 0 where there is none, and w is what the weighting makes of all `L_g`.

    Raises:
      ValueError: for a weighting that looks at gradients, at sizes or at losses after
        the step, or one without `num_groups`.

    Example:
      >>> from jaxmeta.networks.convnet import ConvNet
      >>> from jaxmeta.surgery import GroupDRO
      >>> network = ConvNet(num_classes=10, width=8)
      >>> dro = Erm(network=network, weighting=GroupDRO(num_tasks=14), num_groups=14)
    """

    weighting: Weighting | None = None
    """How groups are weighed; None: points are."""

    num_groups: int = 1
    """How many groups the training data have; only for `weighting`."""

    def __post_init__(self):
        if self.num_groups < 1:
            raise ValueError(f"num_groups must be >= 1, got {self.num_groups}.")
        if self.weighting is None:
            return
        if self.weighting.needs_gram:
            raise ValueError(
                f"{type(self.weighting).__name__} looks at gradients of tasks; pass it "
                "as the aggregator, with groups as tasks."
            )
        if isinstance(self.weighting, FAMO):
            raise ValueError(
                "FAMO looks at losses after the step, which this learner does not "
                "have; pass it as the aggregator, with groups as tasks."
            )
        if isinstance(self.weighting, UpWeighting):
            raise ValueError(
                "UpWeighting counts the points of a group, and every group has one "
                'loss here; give the source sampler="point_balanced" instead.'
            )
        if self.num_groups < 2:
            raise ValueError(
                "with a weighting num_groups must be >= 2, the groups of the training "
                f"data, got {self.num_groups}."
            )
        known = self.weighting.num_tasks
        if known is not None and known != self.num_groups:
            raise ValueError(
                f"num_groups ({self.num_groups}) must be the weighting's num_tasks "
                f"({known})."
            )

    def init(self, key, example):
        params, model_state = self.start_network(key, example)
        weights = () if self.weighting is None else self.weighting.init()
        return params, {**model_state, "weights": weights}

    def loss(self, params, model_state, task: Task, key):
        points = flat(task.query)
        outputs, model_state = self.forward(
            params, model_state, points.inputs, points.mask, TRAINING
        )
        losses = point_losses(outputs, points.targets, points.mask)
        loss = mean_loss(losses, points.mask)
        if self.weighting is not None:
            by_group = group_losses(losses, points.groups, points.mask, self.num_groups)
            ids = jnp.arange(self.num_groups)
            known = jax.lax.stop_gradient(by_group)
            nothing = jnp.zeros((self.num_groups, self.num_groups))
            weights, state = self.weighting.weigh(
                Tasks(nothing, known, ids), model_state["weights"], key
            )
            loss = jax.lax.stop_gradient(weights) @ by_group
            model_state = {**model_state, "weights": state}
        metrics = measured(outputs.logits, points.targets, points.mask)
        return loss, (metrics, model_state)


def group_losses(losses: Array, groups: Array, mask: Array, num_groups: int) -> Array:
    """`[num_groups]` mean loss of the points of every group, 0 where there is none.

    Args:
      losses: `[n]`, 0 for padding.
      groups: `[n]` ids below `num_groups`.
      mask: `[n]`.
      num_groups: >= 1.

    Example:
      >>> losses, groups = jnp.array([1.0, 3.0, 5.0]), jnp.array([0, 0, 2])
      >>> group_losses(losses, groups, jnp.ones(3, bool), 3).tolist()
      [2.0, 0.0, 5.0]
    """
    zeros = jnp.zeros((num_groups,))
    count = zeros.at[groups].add(mask)
    return zeros.at[groups].add(losses) / jnp.maximum(count, 1.0)
