"""MEMO: down the entropy of the average answer to copies of one point.

Zhang, Levine, Finn, MEMO: Test Time Robustness via Adaptation and Augmentation, NeurIPS
2022 (arXiv 2110.09506), section 3 and algorithm 1.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core.types import Array, Float, PRNGKey, Scalar
from jaxmeta.networks.norm import STORED, Statistics
from jaxmeta.shift.adaptation.adapter import Adapter, Model, choose, only_points
from jaxmeta.shift.adaptation.augment import Jitter


class MemoState(NamedTuple):
    """The trained model, which never changes, and the key of the next batch."""

    model: Model
    key: PRNGKey


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memo(Adapter):
    """`min H(mean_b softmax f(augment_b(x)))` over all parameters, for every x alone.

    Every point is answered by a model of its own, moved from the trained one: one point
    says nothing about the next, and the state is but a key. Only the context of an
    `ArmCml` is that of the whole batch. The defaults are those for CIFAR-10, except for
    the augmentation, which is AugMix there.

    Points that are adapted to at once have kernels of their own: see
    `networks.convolution` for what that takes.

    Raises:
      ValueError: for a number outside its range.

    Example:
      >>> from jaxmeta.shift.adaptation import Jitter
      >>> adapter = Memo(augment=Jitter(max_turn_deg=0.0, mirror=True), steps=2)
    """

    augment: Callable[[PRNGKey, Array], Array] = dataclasses.field(
        default_factory=Jitter
    )
    """Makes a copy of one point with the same label."""

    num_augmentations: int = 32
    """Copies of a point, >= 1."""

    optimizer: Callable[[float], optax.GradientTransformation] = optax.sgd
    """Makes the optimiser from the learning rate."""

    learning_rate: float = 5e-3
    """Its learning rate, > 0."""

    steps: int = 1
    """Steps a point, each with copies of its own, >= 1."""

    prior: float | None = None
    """N: batch normalisation uses N/(N+1) stored statistics and 1/(N+1) of the copies,
    or of the point when it is answered; None: the stored ones alone. Published: 16 for
    networks with batch normalisation."""

    points_at_once: int | None = 16
    """Points adapted to at a time, which bounds the memory; None: all of a batch."""

    def __post_init__(self):
        for name in ("num_augmentations", "steps", "points_at_once"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(
                "learning_rate must be a positive finite number, got "
                f"{self.learning_rate}."
            )
        if self.prior is not None and not (
            math.isfinite(self.prior) and self.prior >= 0
        ):
            raise ValueError(f"prior must be >= 0 and finite, got {self.prior}.")

    def init(self, learner, params, model_state, key):
        del learner
        return MemoState(Model(params, model_state), key)

    def adapt(self, learner, state, inputs, mask):
        model, inputs = state.model, only_points(inputs, mask)
        params, model_state = model
        learner, model_state = learner.looking_at(params, model_state, inputs, mask)
        now, later = jax.random.split(state.key)
        statistics = (
            STORED
            if self.prior is None
            else Statistics(use=1.0 / (self.prior + 1.0), keep=0.0)
        )

        def logits_of(params, images):
            outputs, _ = learner.forward(params, model_state, images, None, statistics)
            return outputs.logits

        def one_point(numbered):
            index, point = numbered
            key = jax.random.fold_in(now, index)
            return logits_of(self._moved(logits_of, model, key, point), point[None])[0]

        points = (jnp.arange(len(inputs)), inputs)
        if self.points_at_once is None:
            logits = jax.vmap(one_point)(points)
        else:
            logits = jax.lax.map(one_point, points, batch_size=self.points_at_once)
        return MemoState(model, choose(mask.any(), later, state.key)), logits

    def _moved(self, logits_of, model: Model, key: PRNGKey, point: Array):
        """The parameters after the steps on one point."""
        tx, params = self.optimizer(self.learning_rate), model.params
        opt_state = tx.init(params)

        def loss(params, copies):
            return marginal_entropy(logits_of(params, copies))

        for i in range(self.steps):
            keys = jax.random.split(jax.random.fold_in(key, i), self.num_augmentations)
            copies = jax.vmap(self.augment, in_axes=(0, None))(keys, point)
            grads = jax.grad(loss)(params, copies)
            updates, opt_state = tx.update(grads, opt_state, params)
            params = optax.apply_updates(params, updates)
        return params


def marginal_entropy(logits: Float[Array, "copy classes"]) -> Scalar:
    """The entropy of the mean of the copies' probabilities, in nats.

    Two sure answers that differ are as bad as two unsure ones:

    Example:
      >>> sure = jnp.array([[50.0, 0.0], [0.0, 50.0]])
      >>> round(marginal_entropy(sure).item(), 3)
      0.693
    """
    logs = jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0) - math.log(len(logits))
    return -(jnp.exp(logs) * logs).sum()
