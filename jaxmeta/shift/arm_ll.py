"""ARM-LL: a loss without labels is learned, and one step down it adapts the model.

Zhang, Marklund, Dhawan, Gupta, Levine, Finn, Adaptive Risk Minimization (arXiv
2007.02931), section 4.1. All parameters of the network take the step; the outer
gradient goes through it. The authors' code adds the losses of the groups: with SGD use
`sum_over_tasks`, or multiply the learning rate by the number of groups.

Every set has kernels of its own. Under `vmap` convolutions with them are slower on a
CPU (`networks.convolution`): give one set a task and several tasks a step, with
`Parallel(backend="loop")`.
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmeta.core.metrics import sum_first_axis
from jaxmeta.core.task import Task
from jaxmeta.core.types import Array, Float, Params, Scalar
from jaxmeta.meta.inner_loop import descend
from jaxmeta.meta.meta_gradient import UNROLLED, MetaGradient
from jaxmeta.networks.mlp import MLP
from jaxmeta.networks.norm import OWN, STORED, TRAINING
from jaxmeta.shift.adaptation.adapter import only_points
from jaxmeta.shift.learner import (
    ShiftLearner,
    check_support,
    enough,
    mean_loss,
    measured,
    point_losses,
    run,
    start,
)


class LearnedLoss(nn.Module):
    """`|| (h(z_1), ..., h(z_K)) ||_2` of the logits of a set, with h an MLP.

    The norm has a derivative of 0 at 0, and padding counts nothing.

    Attributes:
      hidden: units of the hidden layers.

    References:
      Zhang et al. (2021), section 4.1; three layers of 32 units.

    Example:
      >>> loss, _ = LearnedLoss().init_with_output(
      ...     jax.random.key(0), jnp.ones((4, 10)), jnp.ones(4, bool)
      ... )
      >>> loss.shape
      ()
    """

    hidden: tuple[int, ...] = (32, 32, 32)

    @nn.compact
    def __call__(self, logits: Float[Array, "n classes"], mask: Array) -> Scalar:
        values = MLP(features=(*self.hidden, 1))(logits)[:, 0]
        return safe_norm(jnp.where(mask, values, 0.0))


def safe_norm(x: Array) -> Scalar:
    """`||x||_2`, with a derivative of 0 at 0, where the plain one is nan.

    Example:
      >>> jax.grad(safe_norm)(jnp.zeros(2)).tolist()
      [0.0, 0.0]
      >>> float(safe_norm(jnp.array([3.0, 4.0])))
      5.0
    """
    square = jnp.sum(jnp.square(x))
    there = square > 0
    return jnp.where(there, jnp.sqrt(jnp.where(there, square, 1.0)), 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmLl(ShiftLearner):
    """`theta' = theta - rate * grad_theta L_phi(f_theta(x_1..x_K))`, then f_theta'.

    The outer loss is that of f_theta' on the same points, with labels; it trains theta
    and phi. Normalisation uses the statistics of the set, before and after the step.
    Those that are stored, for sets too small to adapt to, are of f_theta, which then
    answers.

    Raises:
      ValueError: for a number outside its range, or a meta-gradient that does not reach
        the learned loss.

    Example:
      >>> from jaxmeta.networks.convnet import ConvNet
      >>> learner = ArmLl(network=ConvNet(num_classes=10, width=8))
    """

    learned_loss: nn.Module = dataclasses.field(default_factory=LearnedLoss)
    """Called with logits and a mask; returns a number."""

    inner_rate: float = 0.1
    """Of the step at test time."""

    inner_steps: int = 1
    """Steps down the learned loss, >= 1."""

    min_support: int = 2
    """Fewer points than this are not adapted to."""

    meta_gradient: MetaGradient = UNROLLED
    """How the outer gradient goes through the steps."""

    def __post_init__(self):
        for name in ("inner_steps", "min_support"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be >= 1, got {value}.")
        if not (math.isfinite(self.inner_rate) and self.inner_rate > 0):
            raise ValueError(
                f"inner_rate must be a positive finite number, got {self.inner_rate}."
            )
        if not self.meta_gradient.second_order:
            raise ValueError(
                f"the meta-gradient {type(self.meta_gradient).__name__} does not reach "
                "the learned loss; choose another."
            )

    def init(self, key, example):
        keys, query = jax.random.split(key), example.query
        params, stats = start(self.network, keys[0], query.inputs[0])
        outputs, _ = run(self.network, params, stats, query.inputs[0], TRAINING)
        loss = self.learned_loss.init(keys[1], outputs.logits, query.mask[0])
        return {"network": params, "loss": loss["params"]}, stats

    def forward(self, params, model_state, inputs, mask, statistics):
        return run(
            self.network, params["network"], model_state, inputs, statistics, mask
        )

    def _step_down(self, params: Params, model_state, inputs: Array, mask: Array):
        """The network's parameters after the steps on one set."""

        def unlabelled(network, context):
            params, model_state, inputs, mask = context
            moved = {**params, "network": network}
            outputs, _ = self.forward(moved, model_state, inputs, mask, OWN)
            loss = self.learned_loss.apply(
                {"params": params["loss"]}, outputs.logits, mask
            )
            assert isinstance(loss, jax.Array)
            return loss

        rates = jax.tree.map(lambda _: self.inner_rate, params["network"])
        network = descend(
            unlabelled,
            params["network"],
            (params, model_state, inputs, mask),
            rates,
            num_steps=self.inner_steps,
            meta_gradient=self.meta_gradient,
        )
        return {**params, "network": network}

    def adapt(self, params, model_state, support, key):
        del key
        check_support(len(support), self)
        if len(support) < self.min_support:
            return params, model_state
        mask = jnp.ones(len(support), bool)
        params = self._step_down(params, model_state, support, mask)
        return params, self.forward(params, model_state, support, None, OWN)[1]

    def predict(self, params, model_state, adapted, inputs):
        del params, model_state
        params, stats = adapted
        return self.forward(params, stats, inputs, None, STORED)[0].logits

    def answer(self, params, model_state, inputs, mask):
        check_support(len(inputs), self)
        inputs = only_points(inputs, mask)
        moved = self._step_down(params, model_state, inputs, mask)
        outputs, _ = self.forward(moved, model_state, inputs, mask, OWN)
        still, _ = self.forward(params, model_state, inputs, mask, STORED)
        known = enough(mask, self.min_support)
        return jnp.where(known, outputs.logits, still.logits)

    def loss(self, params, model_state, task: Task, key):
        del key
        query = task.query

        def one_set(inputs, targets, mask):
            inputs = only_points(inputs, mask)
            # The pass that the step begins with, whose statistics are of theta.
            _, stats = self.forward(params, model_state, inputs, mask, TRAINING)
            moved = self._step_down(params, model_state, inputs, mask)
            outputs, _ = self.forward(moved, model_state, inputs, mask, OWN)
            losses = point_losses(outputs, targets, mask)
            return mean_loss(losses, mask), outputs.logits, stats

        sets = (query.inputs, query.targets, query.mask)
        losses, logits, stats = jax.vmap(one_set)(*sets)
        stats = jax.tree.map(lambda s: s / len(losses), sum_first_axis(stats))
        # A set without a point has no loss.
        loss = mean_loss(losses, query.mask.any(-1))
        return loss, (measured(logits, query.targets, query.mask), stats)
