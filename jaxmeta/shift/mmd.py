"""MMD: features that are distributed alike in every group.

Li, Pan, Wang, Kot, Domain Generalization with Adversarial Feature Learning, CVPR 2018,
in the form of Zhang et al., Adaptive Risk Minimization (arXiv 2007.02931), appendix,
whose kernel widths are those of Gulrajani and Lopez-Paz (arXiv 2007.01434).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxmeta.core.metrics import Mean
from jaxmeta.core.types import Array, Float, Scalar
from jaxmeta.networks.norm import TRAINING
from jaxmeta.shift.learner import flat, mean_loss, measured, point_losses
from jaxmeta.shift.unadapted import Unadapted

GAMMAS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)


def mmd_squared(
    x: Float[Array, "n f"],
    y: Float[Array, "m f"],
    x_mask: Array | None = None,
    y_mask: Array | None = None,
) -> Scalar:
    """The biased estimate of MMD^2 with a sum of Gaussian kernels.

    `mean k(x, x') + mean k(y, y') - 2 mean k(x, y)`,
    `k(a, b) = sum_gamma exp(-gamma |a - b|^2)`.

    Args:
      x: `[n, f]`.
      y: `[m, f]`.
      x_mask: `[n]` False for padding.
      y_mask: `[m]` the same of y.

    Example:
      >>> x = jnp.array([[0.0], [1.0]])
      >>> float(mmd_squared(x, x)), bool(mmd_squared(x, x + 5.0) > 0)
      (0.0, True)
    """

    def kernel(a, b):
        squares = jnp.square(a[:, None] - b[None, :]).sum(-1)
        return sum(jnp.exp(-gamma * squares) for gamma in GAMMAS)

    def share(points, mask):
        mask = jnp.ones(len(points)) if mask is None else mask
        return mask / jnp.maximum(mask.sum(), 1)

    p, q = share(x, x_mask), share(y, y_mask)
    return p @ kernel(x, x) @ p + q @ kernel(y, y) @ q - 2 * p @ kernel(x, y) @ q


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mmd(Unadapted):
    """`mean loss + penalty * mean over pairs of sets of MMD^2(features, features)`.

    The sets of a task must be of one group each: sampler `group`. Predictions are those
    of ERM.

    Raises:
      ValueError: for a penalty that is negative or not finite; when traced, for a task
        with fewer than two sets.

    Example:
      >>> from jaxmeta.networks.convnet import ConvNet
      >>> learner = Mmd(network=ConvNet(num_classes=10, width=8), penalty=1.0)
    """

    penalty: float = 1.0
    """How much unlike features cost."""

    def __post_init__(self):
        if not (math.isfinite(self.penalty) and self.penalty >= 0):
            raise ValueError(f"penalty must be >= 0 and finite, got {self.penalty}.")

    def init(self, key, example):
        return self.start_network(key, example)

    def loss(self, params, model_state, task, key):
        del key
        points, num_sets = flat(task.query), len(task.query.targets)
        if num_sets < 2:
            raise ValueError(
                "MMD compares sets: give sets_per_task of 2 or more, got 1."
            )
        outputs, model_state = self.forward(
            params, model_state, points.inputs, points.mask, TRAINING
        )
        features = outputs.features.reshape(num_sets, -1, outputs.features.shape[-1])
        first, second = jnp.triu_indices(num_sets, k=1)
        mask = task.query.mask
        apart = jax.vmap(mmd_squared)(
            features[first], features[second], mask[first], mask[second]
        )
        # A set of padding alone is like no other.
        there = mask.any(axis=1)
        pairs = (there[first] & there[second]).astype(apart.dtype)
        apart = pairs @ apart / jnp.maximum(pairs.sum(), 1.0)
        losses = point_losses(outputs, points.targets, points.mask)
        loss = mean_loss(losses, points.mask) + self.penalty * apart
        metrics = measured(outputs.logits, points.targets, points.mask)
        return loss, ({**metrics, "mmd": Mean.of(apart)}, model_state)
