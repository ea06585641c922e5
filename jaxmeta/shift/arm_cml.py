"""ARM-CML: a context network reads the group, and its mean is one more input.

Zhang, Marklund, Dhawan, Gupta, Levine, Finn, Adaptive Risk Minimization (arXiv
2007.02931), section 4.1. The context is an image, so that it can be appended to the
channels of every input. Without a context the method is far worse than ERM, so a set
that is too small gets the mean context of training.
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmeta.core.task import Task
from jaxmeta.core.types import Array, Params
from jaxmeta.networks.convnet import Outputs
from jaxmeta.networks.norm import OWN, STORED, TRAINING, Statistics, between
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

_MOMENTUM = 0.1
"""Share of a batch in the stored mean context, as in the stored statistics."""

_NEVER = 2**31 - 1
"""More points than any set has."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmCml(ShiftLearner):
    """`f([x, mean_k context(x_k)])` with the mean over the set that x is in.

    Raises:
      ValueError: for a `min_support` below 1 or unknown `norm_stats`.

    Example:
      >>> from jaxmeta.networks.convnet import ContextNet, ConvNet
      >>> learner = ArmCml(
      ...     network=ConvNet(num_classes=10, width=8, large=False),
      ...     context=ContextNet(channels=2, width=4),
      ... )
    """

    context: nn.Module
    """Called as `network` is; returns `[n, height, width, channels]`."""

    norm_stats: Literal["running", "set"] = "running"
    """Normalisation of both networks. running: over the whole batch in training, then
    stored statistics, as published for MNIST and FEMNIST. set: over each set, always,
    as published for CIFAR-10-C and Tiny ImageNet-C: ARM-BN at the same time."""

    min_support: int = 2
    """Fewer points than this are not adapted to."""

    def __post_init__(self):
        if self.min_support < 1:
            raise ValueError(f"min_support must be >= 1, got {self.min_support}.")
        if self.norm_stats not in ("running", "set"):
            raise ValueError(
                f"norm_stats must be 'running' or 'set', got {self.norm_stats!r}."
            )

    def init(self, key, example):
        keys, inputs = jax.random.split(key), example.query.inputs[0]
        context_params, context_stats = start(self.context, keys[0], inputs)
        found = self.context.apply(
            {"params": context_params, "batch_stats": context_stats}, inputs
        )
        assert isinstance(found, jax.Array)
        mean = jnp.zeros(found.shape[1:])
        params, stats = start(self.network, keys[1], append(inputs, mean))
        return (
            {"network": params, "context": context_params},
            {"network": stats, "context": context_stats, "mean": mean},
        )

    def read(
        self, params: Params, model_state, inputs: Array, mask, statistics: Statistics
    ) -> tuple[Array, Any]:
        """Contexts `[n, height, width, channels]` of points, and statistics."""
        stats = model_state["context"]
        return run(self.context, params["context"], stats, inputs, statistics, mask)

    def respond(
        self,
        params: Params,
        model_state,
        inputs: Array,
        context: Array,
        mask,
        statistics,
    ) -> tuple[Outputs, Any]:
        """The outputs for points `[n, ...]` that share a context, and statistics."""
        stats = model_state["network"]
        together = append(inputs, context)
        return run(self.network, params["network"], stats, together, statistics, mask)

    def forward(self, params, model_state, inputs, mask, statistics):
        contexts, context_stats = self.read(
            params, model_state, inputs, mask, statistics
        )
        context = self._context(model_state, contexts, mask)
        outputs, stats = self.respond(
            params, model_state, inputs, context, mask, statistics
        )
        model_state = {**model_state, "network": stats, "context": context_stats}
        return outputs, model_state

    def _context(self, model_state, contexts: Array, mask: Array | None) -> Array:
        """The mean of a set's, or of training where there are too few points."""
        there = jnp.ones(len(contexts), bool) if mask is None else mask
        own = mean_context(contexts, mask)
        return jnp.where(enough(there, self.min_support), own, model_state["mean"])

    def looking_at(self, params, model_state, inputs, mask):
        contexts, _ = self.read(params, model_state, inputs, mask, self._statistics)
        context = self._context(model_state, contexts, mask)
        alone = dataclasses.replace(self, min_support=_NEVER)
        return alone, {**model_state, "mean": context}

    @property
    def _statistics(self) -> Statistics:
        """Whose statistics an adapted model uses."""
        return STORED if self.norm_stats == "running" else OWN

    def adapt(self, params, model_state, support, key):
        del key
        check_support(len(support), self)
        if len(support) < self.min_support:
            return model_state
        contexts, context_stats = self.read(
            params, model_state, support, None, self._statistics
        )
        context = contexts.mean(0)
        _, stats = self.respond(
            params, model_state, support, context, None, self._statistics
        )
        return {"network": stats, "context": context_stats, "mean": context}

    def predict(self, params, model_state, adapted, inputs):
        del model_state
        context = adapted["mean"]
        outputs, _ = self.respond(params, adapted, inputs, context, None, STORED)
        return outputs.logits

    def answer(self, params, model_state, inputs, mask):
        check_support(len(inputs), self)
        known = enough(mask, self.min_support)
        share = jnp.where(known, self._statistics.use, 0.0)
        statistics = Statistics(use=share, keep=0.0)
        contexts, _ = self.read(params, model_state, inputs, mask, statistics)
        context = self._context(model_state, contexts, mask)
        outputs, _ = self.respond(
            params, model_state, inputs, context, mask, statistics
        )
        return outputs.logits

    def remember(self, params, model_state):
        del params
        return model_state

    def observe(self, params, model_state, memory, point, seen, share):
        own = self.norm_stats == "set"
        newest = Statistics(use=share, keep=share, pooled=True) if own else STORED
        contexts, context_stats = self.read(params, memory, point[None], None, newest)
        mean = between(memory["mean"], contexts[0], share)
        outputs, stats = self.respond(params, memory, point[None], mean, None, newest)
        memory = {"network": stats, "context": context_stats, "mean": mean}
        still, _ = self.respond(
            params, model_state, point[None], model_state["mean"], None, STORED
        )
        known = seen + 1 >= self.min_support
        return memory, jnp.where(known, outputs.logits, still.logits)[0]

    def loss(self, params, model_state, task: Task, key):
        del key
        inputs, mask = task.query.inputs, task.query.mask
        # One batch that may know its sets, for the reason that ArmBn gives.
        sets = len(mask) if self.norm_stats == "set" else 1
        statistics = dataclasses.replace(TRAINING, sets=sets)
        merge = lambda leaf: leaf.reshape((-1, *leaf.shape[2:]))
        split = lambda leaf: leaf.reshape((*mask.shape, *leaf.shape[1:]))
        contexts, context_stats = self.read(
            params, model_state, merge(inputs), merge(mask), statistics
        )
        context = jax.vmap(mean_context)(split(contexts), mask)
        outputs, stats = run(
            self.network,
            params["network"],
            model_state["network"],
            merge(jax.vmap(append)(inputs, context)),
            statistics,
            merge(mask),
        )
        outputs = jax.tree.map(split, outputs)
        old = model_state["mean"]
        # A set without a point has no context.
        new = jax.lax.stop_gradient(mean_context(context, mask.any(-1)))
        model_state = {
            "network": stats,
            "context": context_stats,
            "mean": old + _MOMENTUM * (new - old),
        }
        losses = point_losses(outputs, task.query.targets, mask)
        metrics = measured(outputs.logits, task.query.targets, mask)
        return mean_loss(losses, mask), (metrics, model_state)


def append(inputs: Array, context: Array) -> Array:
    """`[n, height, width, c]` and one `[height, width, d]` as `[n, ..., c + d]`.

    Example:
      >>> append(jnp.zeros((3, 2, 2, 1)), jnp.ones((2, 2, 4))).shape
      (3, 2, 2, 5)
    """
    shape = (len(inputs), *context.shape)
    return jnp.concatenate([inputs, jnp.broadcast_to(context, shape)], axis=-1)


def mean_context(contexts: Array, mask: Array | None) -> Array:
    """The mean of `[n, ...]` over the points that are there.

    Example:
      >>> mask = jnp.array([True, True, False])
      >>> mean_context(jnp.array([1.0, 3.0, 9.0]), mask).item()
      2.0
    """
    if mask is None:
        return contexts.mean(0)
    rows = mask.reshape(mask.shape + (1,) * (contexts.ndim - 1))
    return jnp.where(rows, contexts, 0.0).sum(0) / jnp.maximum(mask.sum(), 1)
