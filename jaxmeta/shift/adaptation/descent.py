"""What TENT, EATA and SAR share: steps down an entropy on the norm layers alone.

Only the scale and bias of the normalisation layers move. Derivatives are taken with
respect to them and nothing else, which leaves out half of the backward pass.
"""

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxmeta.core.types import Array, Bool, Float, ModelState, Params, PyTree
from jaxmeta.shift.adaptation.adapter import (
    Adapter,
    Order,
    check_order,
    choose,
    if_finite,
    only_points,
)
from jaxmeta.shift.adaptation.batch_norm import BatchStatistics
from jaxmeta.shift.learner import ShiftLearner

LogitsOf = Callable[[PyTree], Float[Array, "n classes"]]
"""From the moving parameters to the logits of the batch at hand."""


def momentum_sgd(learning_rate: float) -> optax.GradientTransformation:
    """SGD with a momentum of 0.9, as EATA and SAR use it."""
    return optax.sgd(learning_rate, momentum=0.9)


@struct.dataclass
class DescentState:
    """The state of a method that moves normalisation layers.

    Attributes:
      moved: scales and biases as they are now, None in place of other parameters.
      first: the same as they were trained.
      fixed: the other parameters, None in place of these.
      model_state: stored statistics of the learner.
      opt_state: of the optimiser.
      memory: what else the method remembers.
    """

    moved: Params
    first: Params
    fixed: Params
    model_state: ModelState
    opt_state: Any
    memory: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Descent(Adapter):
    """Steps of an optimiser on the scales and biases of normalisation layers.

    Subclasses write one step, `update`.

    Raises:
      ValueError: for a number outside its range, an unknown order; by `init`, for a
        network without normalisation layers.
    """

    optimizer: Callable[[float], optax.GradientTransformation] = optax.adam
    """Makes the optimiser from the learning rate."""

    learning_rate: float = 1e-3
    """Its learning rate, > 0."""

    steps: int = 1
    """Steps a batch, >= 1."""

    order: Order = "predict_then_update"
    """Whether a batch is answered before its first step or after its last."""

    statistics: BatchStatistics = dataclasses.field(default_factory=BatchStatistics)
    """Whose statistics batch normalisation uses."""

    def __post_init__(self):
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(
                "learning_rate must be a positive finite number, got "
                f"{self.learning_rate}."
            )
        if self.steps < 1:
            raise ValueError(f"steps must be >= 1, got {self.steps}.")
        check_order(self.order)

    @abc.abstractmethod
    def remember(self, learner: ShiftLearner) -> Any:
        """`DescentState.memory` before the first batch."""

    @abc.abstractmethod
    def update(
        self, logits_of: LogitsOf, state: DescentState, mask: Bool[Array, " n"]
    ) -> tuple[DescentState, Float[Array, "n classes"]]:
        """One step: the next state, and the logits before it.

        Args:
          logits_of: the network on the batch.
          state: before the step.
          mask: `[n]` False for padding.
        """

    def init(self, learner, params, model_state, key):
        del key
        moved, fixed = split_norm(params)
        if not jax.tree.leaves(moved):
            raise ValueError(
                f"{type(self).__name__} moves the scales and biases of normalisation "
                f"layers, and {learner.network} has none; Memo moves all parameters."
            )
        return DescentState(
            moved=moved,
            first=moved,
            fixed=fixed,
            model_state=model_state,
            opt_state=self.optimizer(self.learning_rate).init(moved),
            memory=self.remember(learner),
        )

    def adapt(self, learner, state, inputs, mask):
        inputs, statistics = only_points(inputs, mask), self.statistics.share(mask)

        def logits_of(moved):
            params = merge(moved, state.fixed)
            outputs, _ = learner.forward(
                params, state.model_state, inputs, mask, statistics
            )
            return outputs.logits

        state, logits = self.update(logits_of, state, mask)
        for _ in range(self.steps - 1):
            state, _ = self.update(logits_of, state, mask)
        if self.order == "update_then_predict":
            logits = logits_of(state.moved)
        return state, logits

    def step(
        self, state: DescentState, grads: PyTree, memory: Any, taken: Array
    ) -> DescentState:
        """The state after the optimiser's step, or as it was if not `taken` or finite.

        Without that guard a batch that teaches nothing would still be one more step of
        the momentum, and one reading of nan the last thing that is learned.
        """
        tx = self.optimizer(self.learning_rate)
        updates, opt_state = tx.update(grads, state.opt_state, state.moved)
        moved = optax.apply_updates(state.moved, updates)
        old = (state.moved, state.opt_state, state.memory)
        new = choose(taken, (moved, opt_state, memory), old)
        moved, opt_state, memory = if_finite(new, old)
        return dataclasses.replace(
            state, moved=moved, opt_state=opt_state, memory=memory
        )


def entropy(logits: Float[Array, "n classes"]) -> Float[Array, " n"]:
    """`-sum_c p_c log p_c` of the softmax p, in nats.

    Example:
      >>> print(entropy(jnp.array([[0.0, 0.0], [0.0, 1.0]])).round(3))
      [0.693 0.582]
    """
    logs = jax.nn.log_softmax(logits)
    return -(jnp.exp(logs) * logs).sum(-1)


def split_norm(params: Params) -> tuple[Params, Params]:
    """The scales and biases of normalisation layers, and the other parameters.

    A layer that has a `scale` is one. Both trees have None where the other has a leaf.

    Example:
      >>> params = {
      ...     "norm": {"scale": 1.0, "bias": 2.0},
      ...     "dense": {"kernel": 3.0, "bias": 4.0},
      ... }
      >>> moved, fixed = split_norm(params)
      >>> moved["norm"], fixed["dense"]
      ({'bias': 2.0, 'scale': 1.0}, {'bias': 4.0, 'kernel': 3.0})
      >>> merge(moved, fixed) == params
      True
    """
    scale, bias = (jax.tree_util.DictKey(name) for name in ("scale", "bias"))
    known = {path for path, _ in jax.tree_util.tree_leaves_with_path(params)}

    def is_norm(path, _):
        return path[-1:] in ((scale,), (bias,)) and (*path[:-1], scale) in known

    which = jax.tree_util.tree_map_with_path(is_norm, params)
    keep = lambda wanted: jax.tree.map(
        lambda norm, leaf: leaf if norm == wanted else None, which, params
    )
    return keep(True), keep(False)


def merge(moved: Params, fixed: Params) -> Params:
    """The whole tree that `split_norm` took apart."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, moved, fixed, is_leaf=lambda x: x is None
    )
