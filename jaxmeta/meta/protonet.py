"""Prototypical networks: a class is the mean of its examples in a learned space.

Snell, Swersky, Zemel, "Prototypical Networks for Few-shot Learning" (2017).
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmeta.core.learner import Learner
from jaxmeta.core.objectives import cross_entropy
from jaxmeta.core.task import Task
from jaxmeta.core.types import Array, Float, Int, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProtoNet(Learner):
    """`p(k | x) ~ exp(-|f(x) - c_k|^2)`, `c_k` the mean of f over the support of k.

    There is no inner loop; the outer loop trains f by the cross entropy of the query.

    Raises:
      ValueError: for fewer than two ways.

    Example:
      >>> from jaxmeta.networks.conv import Conv4
      >>> learner = ProtoNet(network=Conv4(features=8, num_classes=None), ways=5)
    """

    network: nn.Module
    """f: inputs `[n, ...]` to `[n, d]`."""

    ways: int = 5
    """Classes of a task, >= 2; every one has a support example."""

    def __post_init__(self):
        if self.ways < 2:
            raise ValueError(f"ways must be >= 2, got {self.ways}.")

    def init(self, key, example):
        return dict(self.network.init(key, example.support.inputs)), ()

    def embed(self, params: Params, inputs: Array) -> Float[Array, "n d"]:
        """f of inputs `[n, ...]`."""
        embedded = self.network.apply(params, inputs)
        assert isinstance(embedded, jax.Array)  # not mutable, so no tuple
        return embedded

    def adapt(self, params, model_state, support, key):
        del model_state, key
        return prototypes(
            self.embed(params, support.inputs), support.targets, self.ways
        )

    def predict(
        self, params: Params, adapted: Float[Array, "ways d"], inputs: Array
    ) -> Float[Array, "n ways"]:
        """Logits `-|f(x) - c_k|^2` of inputs `[n, ...]`."""
        apart = self.embed(params, inputs)[:, None] - adapted[None]
        return -jnp.square(apart).sum(-1)

    def loss(self, params, model_state, task: Task, key):
        adapted = self.adapt(params, model_state, task.support, key)
        outputs = self.predict(params, adapted, task.query.inputs)
        loss, metrics = cross_entropy(outputs, task.query.targets)
        return loss, (metrics, model_state)

    def evaluate(self, params, model_state, task: Task, key):
        return self.loss(params, model_state, task, key)[1][0]


def prototypes(
    embedded: Float[Array, "n d"], targets: Int[Array, " n"], ways: int
) -> Float[Array, "ways d"]:
    """The mean of every class; nan for one without an example.

    Args:
      embedded: `[n, d]`.
      targets: `[n]` classes below `ways`.
      ways: how many.

    Example:
      >>> points = jnp.array([[1.0], [3.0], [7.0]])
      >>> prototypes(points, jnp.array([0, 0, 1]), 2).tolist()
      [[2.0], [7.0]]
    """
    members = jax.nn.one_hot(targets, ways, axis=0)
    return members @ embedded / members.sum(1, keepdims=True)
