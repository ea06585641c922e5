"""EATA: down the entropy of points that are sure and new, not far from the source.

Niu, Wu, Zhang, Chen, Zheng, Zhao, Tan, Efficient Test-Time Model Adaptation without
Forgetting, ICML 2022 (arXiv 2204.02610), section 4; what the text leaves open follows
the authors' code. Points that are filtered out are masked, so that shapes are fixed.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core.types import Array, Bool, Float, ModelState, Params, PyTree
from jaxmeta.shift.adaptation.adapter import choose, masked_mean, only_points
from jaxmeta.shift.adaptation.batch_norm import BatchStatistics
from jaxmeta.shift.adaptation.descent import (
    Descent,
    entropy,
    merge,
    momentum_sgd,
    split_norm,
)
from jaxmeta.shift.learner import ShiftLearner

_MEMORY = 0.9
"""Share of the past in the moving average of probabilities."""

_OWN = BatchStatistics()


class Seen(NamedTuple):
    """What EATA remembers of the stream.

    Attributes:
      probs: `[classes]` moving average of the probabilities of points learned from.
      any: `[]` whether there was one.
    """

    probs: Float[Array, " classes"]
    any: Bool[Array, ""]


@dataclasses.dataclass(frozen=True, eq=False)
class Fisher:
    """How much each scale and bias matters to what the model knows of the source.

    Attributes:
      values: the tree of the parameters; None for those that do not move.
    """

    values: PyTree

    @classmethod
    def of(
        cls,
        learner: ShiftLearner,
        params: Params,
        model_state: ModelState,
        batches: Float[Array, "batch n ..."],
        masks: Bool[Array, "batch n"],
        statistics: BatchStatistics = _OWN,
    ) -> "Fisher":
        """The mean over batches of the squared gradient of the batch's mean loss.

        The labels are the model's own answers. (Squares of gradients of single points
        would be the diagonal of the Fisher matrix; the authors square batches.)

        Args:
          learner: what was trained.
          params: its parameters.
          model_state: its stored statistics.
          batches: `[batch, n, ...]` of the data it was trained on; the authors take
            2,000 points in batches of 64.
          masks: `[batch, n]` False for padding.
          statistics: whose statistics batch normalisation uses.

        Example:
          >>> from jaxmeta.networks.convnet import ConvNet
          >>> from jaxmeta.shift.arm_bn import ArmBn
          >>> from jaxmeta.shift.learner import start
          >>> learner = ArmBn(network=ConvNet(num_classes=3, width=2))
          >>> batches = jax.random.normal(jax.random.key(0), (2, 4, 16, 16, 1))
          >>> params, state = start(learner.network, jax.random.key(1), batches[0])
          >>> masks = jnp.ones((2, 4), bool)
          >>> fisher = Fisher.of(learner, params, state, batches, masks)
          >>> adapter = Eata(fisher=fisher)
        """
        moved, fixed = split_norm(params)

        def loss(moved, inputs, mask):
            outputs, _ = learner.forward(
                merge(moved, fixed),
                model_state,
                only_points(inputs, mask),
                mask,
                statistics.share(mask),
            )
            answers = outputs.logits.argmax(-1)
            losses = optax.softmax_cross_entropy_with_integer_labels(
                outputs.logits, answers
            )
            return masked_mean(losses, mask)

        gradient = jax.jit(jax.grad(loss))
        squares = [
            jax.tree.map(jnp.square, gradient(moved, inputs, mask))
            for inputs, mask in zip(batches, masks, strict=True)
        ]
        return cls(jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *squares))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eata(Descent):
    """`min mean_i w_i H_i + fisher_weight sum_j F_j (theta_j - theta_j^source)^2`.

    ```text
    E0  = max_entropy ln(number of classes)
    i   is learned from if H_i < E0 and |cos(p_i, average p)| < max_similarity
    w_i = exp(E0 - H_i), a constant
    ```

    The average of the probabilities is a moving one, over points learned from; before
    the first of them none is redundant. A batch without a point to learn from changes
    nothing. Without `fisher` it is ETA. One with it holds arrays: it is for libraries,
    and cannot be written as JSON.

    Raises:
      ValueError: as `Descent` does; by `init` where the number of classes is not known,
        and from `adapt` where it is another.

    Example:
      >>> eta = Eata(max_similarity=0.05)  # for a thousand classes
    """

    max_entropy: float = 0.4
    """Points less sure than this share of the largest entropy are not learned from."""

    max_similarity: float = 0.4
    """Points whose probabilities are closer to the average than this cosine are
    redundant. Published: 0.4 for 10 classes and 0.05 for 1,000. The cosine of a sure
    point and a uniform average is 1/sqrt(classes): a smaller value filters all."""

    fisher: Fisher | None = None
    """What must not be forgotten, from `Fisher.of`; None: nothing (ETA)."""

    fisher_weight: float = 1.0
    """Published: 1 for CIFAR-10-C, 2,000 for ImageNet-C; >= 0."""

    num_classes: int | None = None
    """Logits of the network, >= 2; None: what the network says of itself."""

    optimizer: Callable[[float], optax.GradientTransformation] = momentum_sgd
    """As published, here and below."""

    learning_rate: float = 2.5e-4
    """For a ResNet and batches of 64."""

    def __post_init__(self):
        super().__post_init__()
        if self.num_classes is not None and self.num_classes < 2:
            raise ValueError(f"num_classes must be >= 2, got {self.num_classes}.")
        for name in ("max_entropy", "max_similarity", "fisher_weight"):
            if not (math.isfinite(value := getattr(self, name)) and value >= 0):
                raise ValueError(f"{name} must be >= 0 and finite, got {value}.")

    def remember(self, learner):
        own = getattr(learner.network, "num_classes", None)
        known = own if self.num_classes is None else self.num_classes
        if known is None:
            raise ValueError(
                f"{type(learner.network).__name__} does not say how many classes it "
                "has: give Eata their number, num_classes=."
            )
        return Seen(jnp.zeros(known), jnp.array(False))

    def update(self, logits_of, state, mask):
        def loss(moved):
            logits = logits_of(moved)
            if logits.shape[-1] != state.memory.probs.shape[0]:
                raise ValueError(
                    f"num_classes is {state.memory.probs.shape[0]}, but the network "
                    f"has {logits.shape[-1]} logits."
                )
            weights = self.weigh(logits, state.memory, mask)
            learned = weights > 0
            total = masked_mean(weights * entropy(logits), learned)
            return total + self._forgotten(moved, state.first), (logits, learned)

        grads, (logits, learned) = jax.grad(loss, has_aux=True)(state.moved)
        memory = _seen(state.memory, jax.nn.softmax(logits), learned)
        return self.step(state, grads, memory, learned.any()), logits

    def weigh(
        self, logits: Float[Array, "n classes"], memory: Seen, mask: Bool[Array, " n"]
    ) -> Float[Array, " n"]:
        """`[n]` how much every point counts; 0 for one that is not learned from.

        Example:
          >>> logits = jnp.array([[9.0, 0.0], [0.0, 0.0]])
          >>> memory = Seen(jnp.zeros(2), jnp.array(False))
          >>> Eata().weigh(logits, memory, jnp.ones(2, bool)) > 0
          Array([ True, False], dtype=bool)
        """
        logits = jax.lax.stop_gradient(logits)
        limit = self.max_entropy * math.log(logits.shape[-1])
        entropies, probs = entropy(logits), jax.nn.softmax(logits)
        lengths = jnp.linalg.norm(probs, axis=-1) * jnp.linalg.norm(memory.probs)
        cosine = probs @ memory.probs / jnp.maximum(lengths, 1e-8)
        new = (jnp.abs(cosine) < self.max_similarity) | ~memory.any
        learned = mask & (entropies < limit) & new
        return jnp.where(learned, jnp.exp(limit - entropies), 0.0)

    def _forgotten(self, moved: Params, first: Params) -> Any:
        """The weighted distance from the source, 0 without a Fisher."""
        if self.fisher is None:
            return 0.0
        terms = jax.tree.map(
            lambda f, a, b: (f * jnp.square(a - b)).sum(),
            self.fisher.values,
            moved,
            first,
        )
        return self.fisher_weight * sum(jax.tree.leaves(terms))


def _seen(memory: Seen, probs: Array, learned: Array) -> Seen:
    """The memory after a batch with a point to learn from."""
    mean = jax.vmap(masked_mean, in_axes=(1, None))(probs, learned)
    mixed = _MEMORY * memory.probs + (1 - _MEMORY) * mean
    return Seen(choose(memory.any, mixed, mean), jnp.array(True))
