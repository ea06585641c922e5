"""Prototypical networks: a class is the mean of its examples in a learned space.

Snell, Swersky, Zemel, "Prototypical Networks for Few-shot Learning" (2017).
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmeta.core.learner import Learner
from jaxmeta.core.objectives import cross_entropy
from jaxmeta.core.task import Task
from jaxmeta.core.types import Array, Float, Int, Params, PyTree
from jaxmeta.meta import norm_stats
from jaxmeta.meta.norm_stats import NormStats


class Adapted(NamedTuple):
    """What the network makes of a support set.

    Attributes:
      prototypes: `[ways, d]` the mean of every class.
      stats: batch statistics for the query, `()` of a network without.
    """

    prototypes: Float[Array, "ways d"]
    stats: PyTree


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
    """f: inputs `[n, ...]` to `[n, d]`; with batch statistics, of inputs and
    `networks.norm.Statistics`."""

    ways: int = 5
    """Classes of a task, >= 2; every one has a support example."""

    norm_stats: NormStats = "query"
    """Whose batch statistics normalise a query set, see `meta.norm_stats`."""

    def __post_init__(self):
        norm_stats.check(self.norm_stats)
        if self.ways < 2:
            raise ValueError(f"ways must be >= 2, got {self.ways}.")

    def init(self, key, example):
        return norm_stats.start(self.network, key, example.support.inputs)

    def adapt(self, params, model_state, support, key):
        del key
        return self._adapt(params, model_state, support, training=False)

    def _adapt(self, params, stats, support, *, training) -> Adapted:
        statistics = norm_stats.of_support(self.norm_stats, training=training)
        embedded, kept = norm_stats.forward(
            self.network, params, stats, support.inputs, statistics
        )
        means = prototypes(embedded, support.targets, self.ways)
        return Adapted(means, kept if self.norm_stats == "support" else stats)

    def predict(
        self, params: Params, adapted: Adapted, inputs: Array
    ) -> Float[Array, "n ways"]:
        """Logits `-|f(x) - c_k|^2` of inputs `[n, ...]`."""
        return self._predict(params, adapted, inputs, training=False)[0]

    def _predict(self, params, adapted, inputs, *, training):
        statistics = norm_stats.of_query(self.norm_stats, training=training)
        embedded, kept = norm_stats.forward(
            self.network, params, adapted.stats, inputs, statistics
        )
        apart = embedded[:, None] - adapted.prototypes[None]
        return -jnp.square(apart).sum(-1), kept

    def loss(self, params, model_state, task: Task, key):
        del key
        adapted = self._adapt(params, model_state, task.support, training=True)
        outputs, kept = self._predict(params, adapted, task.query.inputs, training=True)
        loss, metrics = cross_entropy(outputs, task.query.targets)
        return loss, (metrics, kept if self.norm_stats == "running" else model_state)

    def evaluate(self, params, model_state, task: Task, key):
        adapted = self.adapt(params, model_state, task.support, key)
        outputs = self.predict(params, adapted, task.query.inputs)
        return cross_entropy(outputs, task.query.targets)[1]


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
