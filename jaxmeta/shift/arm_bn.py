"""ARM-BN: the group's own batch statistics, in training and at test time.

Zhang, Marklund, Dhawan, Gupta, Levine, Finn, Adaptive Risk Minimization (arXiv
2007.02931), section 4.1.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.core.task import Task
from jaxmeta.networks.norm import OWN, STORED, TRAINING, Statistics
from jaxmeta.shift.learner import (
    ShiftLearner,
    check_support,
    enough,
    flat,
    mean_loss,
    measured,
    point_losses,
    run,
    start,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmBn(ShiftLearner):
    """`min E_g[loss(f(x; statistics of the set that x is in), y)]`.

    The network has no more parameters than with ERM. Gradients flow through the
    statistics. Those of training are kept too, for sets that are too small.

    Raises:
      ValueError: for a `min_support` below 1.

    Example:
      >>> from jaxmeta.networks.convnet import ConvNet
      >>> learner = ArmBn(network=ConvNet(num_classes=10, width=8))
    """

    min_support: int = 2
    """Fewer points than this are not adapted to."""

    def __post_init__(self):
        if self.min_support < 1:
            raise ValueError(f"min_support must be >= 1, got {self.min_support}.")

    def init(self, key, example):
        return start(self.network, key, example.query.inputs[0])

    def forward(self, params, model_state, inputs, mask, statistics):
        return run(self.network, params, model_state, inputs, statistics, mask)

    def adapt(self, params, model_state, support, key):
        del key
        check_support(len(support), self)
        if len(support) < self.min_support:
            return model_state
        return self.forward(params, model_state, support, None, OWN)[1]

    def predict(self, params, model_state, adapted, inputs):
        del model_state
        return self.forward(params, adapted, inputs, None, STORED)[0].logits

    def answer(self, params, model_state, inputs, mask):
        check_support(len(inputs), self)
        own = Statistics(
            use=jnp.where(enough(mask, self.min_support), 1.0, 0.0), keep=0.0
        )
        return self.forward(params, model_state, inputs, mask, own)[0].logits

    def remember(self, params, model_state):
        del params
        return model_state

    def observe(self, params, model_state, memory, point, seen, share):
        newest = Statistics(use=share, keep=share, pooled=True)
        outputs, memory = self.forward(params, memory, point[None], None, newest)
        still, _ = self.forward(params, model_state, point[None], None, STORED)
        known = seen + 1 >= self.min_support
        return memory, jnp.where(known, outputs.logits, still.logits)[0]

    def loss(self, params, model_state, task: Task, key):
        del key
        points, num_sets = flat(task.query), len(task.query.mask)
        # One batch that knows its sets: a vmap over them would take the gradients of
        # the kernels set by set, which is slower on a CPU.
        statistics = dataclasses.replace(TRAINING, sets=num_sets)
        outputs, model_state = self.forward(
            params, model_state, points.inputs, points.mask, statistics
        )
        losses = point_losses(outputs, points.targets, points.mask)
        metrics = measured(outputs.logits, points.targets, points.mask)
        return mean_loss(losses, points.mask), (metrics, model_state)
