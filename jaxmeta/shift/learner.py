"""What the methods of this room share: sets of unlabelled points in, logits out."""

import abc
import dataclasses
import warnings
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxmeta.core.learner import Learner
from jaxmeta.core.metrics import Mean, Metrics
from jaxmeta.core.task import Task
from jaxmeta.core.types import Adapted, Array, Float, ModelState, Params, PyTree, Scalar
from jaxmeta.data.groups import Points
from jaxmeta.networks.convnet import Outputs
from jaxmeta.networks.norm import STATS, Statistics


def run(
    network: nn.Module,
    params: Params,
    stats: PyTree,
    inputs: Array,
    statistics: Statistics,
    mask: Array | None = None,
) -> tuple[Any, PyTree]:
    """Applies a network of this room: `(what it returns, its next statistics)`.

    Args:
      network: called with `(inputs, statistics, mask)`.
      params: its parameters.
      stats: its stored statistics, `{}` if it has none.
      inputs: `[n, ...]`.
      statistics: whose are used and whose are kept.
      mask: `[n]` False for padding.
    """
    outputs, updated = network.apply(
        {"params": params, STATS: stats}, inputs, statistics, mask, mutable=[STATS]
    )
    return outputs, updated.get(STATS, stats)


def start(network: nn.Module, key, inputs: Array) -> tuple[Params, PyTree]:
    """Initial parameters and statistics of a network of this room."""
    variables = network.init(key, inputs)
    return variables["params"], variables.get(STATS, {})


def point_losses(
    outputs: Outputs, targets: Array, mask: Array
) -> Float[Array, "*points"]:
    """Cross entropy of every point, in nats; 0 for padding."""
    losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, targets)
    return jnp.where(mask, losses, 0.0)


def mean_loss(losses: Array, mask: Array) -> Scalar:
    """The mean over points that are there."""
    return losses.sum() / jnp.maximum(mask.sum(), 1)


def measured(logits: Array, targets: Array, mask: Array) -> Metrics:
    """Loss and accuracy over points that are there.

    Args:
      logits: `[..., classes]`.
      targets: `[...]`.
      mask: `[...]`.

    Returns:
      `loss` in nats and `accuracy` in [0, 1].

    Example:
      >>> logits = jnp.array([[2.0, 0.0], [2.0, 0.0], [0.0, 9.0]])
      >>> mask = jnp.array([True, True, False])
      >>> metrics = measured(logits, jnp.array([0, 1, 0]), mask)
      >>> float(metrics["accuracy"].compute())
      0.5
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return {
        "loss": Mean.of(losses, mask),
        "accuracy": Mean.of(logits.argmax(-1) == targets, mask),
    }


def flat(points: Points) -> Points:
    """`[set, point, ...]` as `[set * point, ...]`."""
    merge = lambda leaf: leaf.reshape((-1, *leaf.shape[2:]))
    return Points(*map(merge, points))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShiftLearner(Learner):
    """A classifier that may look at a set of unlabelled points before it answers.

    `adapt` and `predict` take one set; `answer` does both for the set itself. A task
    is a stack of sets (`data.groups`); its query is answered set by set.
    """

    network: nn.Module
    """Called with `(inputs, statistics, mask)`; returns `Outputs`."""

    @abc.abstractmethod
    def predict(
        self, params: Params, model_state: ModelState, adapted: Adapted, inputs: Array
    ) -> Float[Array, "n classes"]:
        """Logits of `inputs` `[n, ...]`, as `adapt` has left the model."""

    @abc.abstractmethod
    def answer(
        self, params: Params, model_state: ModelState, inputs: Array, mask: Array
    ) -> Float[Array, "n classes"]:
        """Adapts to one set `[n, ...]` of points and predicts the same points."""

    @abc.abstractmethod
    def forward(
        self,
        params: Params,
        model_state: ModelState,
        inputs: Array,
        mask: Array | None,
        statistics: Statistics,
    ) -> tuple[Outputs, ModelState]:
        """One pass over one set with the statistics that the caller chooses.

        What test-time adaptation is built on: it works with any trained learner.
        """

    def looking_at(
        self, params: Params, model_state: ModelState, inputs: Array, mask: Array
    ) -> "tuple[ShiftLearner, ModelState]":
        """The learner and state whose `forward` answers points in the light of a set.

        Of what a set says beside its normalisation statistics, which the caller of
        `forward` chooses: nothing, for most methods.

        Args:
          params: trained parameters.
          model_state: trained statistics.
          inputs: `[n, ...]` the set.
          mask: `[n]` False for padding.
        """
        del params, inputs, mask
        return self, model_state

    def remember(self, params: Params, model_state: ModelState) -> Any:
        """What a stream starts from, before its first point.

        Raises:
          ValueError: for a method that cannot be streamed.
        """
        del params, model_state
        raise ValueError(
            f"{type(self).__name__} adapts to sets of points and cannot be streamed; "
            "collect some and call adapt and predict."
        )

    def observe(
        self,
        params: Params,
        model_state: ModelState,
        memory: Any,
        point: Array,
        seen: Array,
        share: Array,
    ) -> tuple[Any, Float[Array, " classes"]]:
        """Remembers one more point of a stream, and predicts it.

        Args:
          params: trained parameters.
          model_state: trained statistics.
          memory: what `remember` or the last `observe` returned.
          point: `[...]`.
          seen: `[]` points seen before; 0 begins a new stream.
          share: `[]` how much this point counts in the averages; 1 when it is the
            first.

        Returns:
          The next memory, and the logits of the point.
        """
        raise NotImplementedError

    def evaluate(self, params, model_state, task: Task, key):
        del key
        query = task.query
        one_set = lambda inputs, mask: self.answer(params, model_state, inputs, mask)
        logits = jax.vmap(one_set)(query.inputs, query.mask)
        return measured(logits, query.targets, query.mask)


def check_support(num_points: int, method: Any) -> None:
    """Warns where a set is too small to adapt to, once for every place and method.

    Args:
      num_points: in the set, padding included.
      method: has `min_support`, the fewest that it adapts to.
    """
    if num_points < method.min_support:
        warnings.warn(
            f"a set of {num_points} point{'s' * (num_points != 1)} is too small to "
            f"adapt to (min_support of {type(method).__name__} is "
            f"{method.min_support}): statistics of the training data are used. Give "
            "more points, stream them (jaxmeta.shift.stream), or lower min_support.",
            stacklevel=3,
        )


def enough(mask: Array, min_support: int) -> Array:
    """`[]` bool: whether a set has `min_support` points, padding not counted."""
    return mask.sum() >= min_support
