"""DANN: features from which nobody can tell the group.

Ganin et al., Domain-Adversarial Training of Neural Networks, JMLR 17 (2016), with the
alternating updates of Zhang et al., Adaptive Risk Minimization (arXiv 2007.02931).
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import optax

from jaxmeta.core.metrics import Mean
from jaxmeta.core.task import Task
from jaxmeta.networks.mlp import MLP
from jaxmeta.networks.norm import TRAINING
from jaxmeta.shift.learner import flat, mean_loss, measured, point_losses
from jaxmeta.shift.unadapted import Unadapted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dann(Unadapted):
    """`L(y) - weight * L(group)` for the network, `L(group)` for a discriminator.

    In even steps only the discriminator learns, in odd ones only the network: use
    `Optimizer(transform=functools.partial(alternating, transform=optax.adam))`.
    Predictions are those of ERM.

    Raises:
      ValueError: for a `num_groups` below 2, or a weight that is negative.

    Example:
      >>> from jaxmeta.networks.convnet import ConvNet
      >>> learner = Dann(network=ConvNet(num_classes=10, width=8), num_groups=14)
    """

    discriminator: MLP | None = None
    """From features to groups; two layers of 256 units when None."""

    num_groups: int
    """How many groups the training data have, >= 2."""

    adversary_weight: float = 0.01
    """How much the network minds being found out."""

    def __post_init__(self):
        if self.num_groups < 2:
            raise ValueError(f"num_groups must be >= 2, got {self.num_groups}.")
        weight = self.adversary_weight
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"adversary_weight must be >= 0 and finite, got {weight}.")

    @functools.cached_property
    def _discriminator(self) -> MLP:
        return self.discriminator or MLP(features=(256, 256, self.num_groups))

    def init(self, key, example):
        keys = jax.random.split(key)
        params, state = self.start_network(keys[0], example)
        inputs = example.query.inputs[0]
        outputs, _ = self.forward(params, state, inputs, None, TRAINING)
        found = self._discriminator.init(keys[1], outputs.features)
        return {**params, "discriminator": found["params"]}, state

    def loss(self, params, model_state, task: Task, key):
        del key
        points = flat(task.query)
        outputs, model_state = self.forward(
            params, model_state, points.inputs, points.mask, TRAINING
        )
        loss = mean_loss(
            point_losses(outputs, points.targets, points.mask), points.mask
        )

        def group_loss(discriminator, features):
            logits = self._discriminator.apply({"params": discriminator}, features)
            told = outputs._replace(logits=logits)
            return mean_loss(
                point_losses(told, points.groups, points.mask), points.mask
            )

        stop, discriminator = jax.lax.stop_gradient, params["discriminator"]
        for_network = group_loss(stop(discriminator), outputs.features)
        for_discriminator = group_loss(discriminator, stop(outputs.features))
        loss = loss - self.adversary_weight * for_network
        # Its value is the network's; each part has the gradient of its own loss.
        loss = loss + for_discriminator - stop(for_discriminator)
        metrics = measured(outputs.logits, points.targets, points.mask)
        return loss, (
            {**metrics, "group_loss": Mean.of(for_discriminator)},
            model_state,
        )


def alternating(
    learning_rate: float, transform: Callable[..., optax.GradientTransformation]
) -> optax.GradientTransformation:
    """Updates `discriminator` in even steps and everything else in odd ones.

    The part that rests keeps its optimiser state too.

    Args:
      learning_rate: of both.
      transform: makes an optimiser from a learning rate.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"network": jnp.ones(1), "discriminator": jnp.ones(1)}
      >>> tx = alternating(1.0, optax.sgd)
      >>> updates, _ = tx.update(params, tx.init(params), params)
      >>> updates["network"].item(), updates["discriminator"].item()
      (0.0, -1.0)
    """

    def in_turn(parity: int) -> optax.GradientTransformation:
        def mine(step, **extra):
            del extra
            return step % 2 == parity

        return optax.conditionally_mask(transform(learning_rate), mine)

    return optax.partition(
        {"discriminator": in_turn(0), "network": in_turn(1)},
        lambda params: {
            name: jax.tree.map(lambda _, name=name: name, part)
            for name, part in params.items()
        },
    )
