"""What every method of test-time adaptation is: a state, and one step on a batch.

A trained model meets a stream of unlabelled batches. What other libraries keep in
modules, modes and buffers is here a value that goes in and comes out, so that to reset
is to take the first state again, and a whole stream is one compiled loop.
"""

import abc
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp

from jaxmeta.core.types import (
    Array,
    Bool,
    Float,
    ModelState,
    Params,
    PRNGKey,
    PyTree,
    Scalar,
)
from jaxmeta.shift.learner import ShiftLearner

Order: TypeAlias = Literal["predict_then_update", "update_then_predict"]
"""Whether a batch is answered by the model as it was before it, or as it is after it.

The first is what the authors of TENT, EATA and SAR do: it needs no further pass, and a
batch has no effect on its own answer but through its statistics. Where every batch is
met by a fresh model only the second adapts at all.
"""


class Model(NamedTuple):
    """What predictions are made with, and all that is remembered by simple methods.

    Attributes:
      params: parameters of the trained learner.
      model_state: its stored statistics.
    """

    params: Params
    model_state: ModelState


class Adapter(abc.ABC):
    """A way to adapt a trained learner to batches without labels.

    Subclasses are frozen keyword-only dataclasses: the object is the configuration.
    Both methods are pure and jittable with the adapter and the learner static. Padding
    counts nothing, whatever it holds, and nothing is learned from a batch of it alone.

    Example:
      One that never adapts:

      >>> import dataclasses
      >>> from jaxmeta.networks.norm import STORED
      >>> @dataclasses.dataclass(frozen=True, kw_only=True)
      ... class Source(Adapter):
      ...     def init(self, learner, params, model_state, key):
      ...         return Model(params, model_state)
      ...     def adapt(self, learner, state, inputs, mask):
      ...         params, model_state = state
      ...         outputs, _ = learner.forward(
      ...             params, model_state, inputs, mask, STORED
      ...         )
      ...         return state, outputs.logits
    """

    @abc.abstractmethod
    def init(
        self,
        learner: ShiftLearner,
        params: Params,
        model_state: ModelState,
        key: PRNGKey,
    ) -> Any:
        """The state before the first batch; taking it again is a reset.

        Args:
          learner: what was trained.
          params: its trained parameters.
          model_state: its stored statistics.
          key: of what the method draws.

        Raises:
          ValueError: for a learner that the method cannot adapt.
        """

    @abc.abstractmethod
    def adapt(
        self,
        learner: ShiftLearner,
        state: Any,
        inputs: Float[Array, "n ..."],
        mask: Bool[Array, " n"],
    ) -> tuple[Any, Float[Array, "n classes"]]:
        """The state after a batch, and the answer to that batch.

        Args:
          learner: what was trained.
          state: from `init`, or from the batch before.
          inputs: `[n, ...]` one batch.
          mask: `[n]` False for padding.

        Returns:
          `(state, logits)`, `logits`: `[n, classes]`; those of padding mean nothing.
        """


def check_order(order: str) -> None:
    """Raises ValueError for an unknown order."""
    if order not in get_args(Order):
        raise ValueError(f"order must be one of {get_args(Order)}, got {order!r}.")


def only_points(inputs: Array, mask: Array) -> Array:
    """`[n, ...]` with zeros for padding, which could hold nan and poison a gradient.

    Example:
      >>> only_points(jnp.array([[1.0], [jnp.nan]]), jnp.array([True, False])).tolist()
      [[1.0], [0.0]]
    """
    rows = mask.reshape(mask.shape + (1,) * (inputs.ndim - 1))
    return jnp.where(rows, inputs, 0.0)


def choose(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    """`new` where `[]` condition holds, else `old`, leaf by leaf.

    Example:
      >>> choose(jnp.array(True), {"a": jnp.ones(1)}, {"a": jnp.zeros(1)})
      {'a': Array([1.], dtype=float32)}
    """
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def if_finite(new: PyTree, old: PyTree) -> PyTree:
    """`new` if every number in it is finite, else `old`: one reading of nan teaches
    nothing, and is not remembered.

    Example:
      >>> old, new = jnp.zeros(2), jnp.array([1.0, jnp.nan])
      >>> if_finite({"a": new, "b": old + 1.0}, {"a": old, "b": old})["b"].tolist()
      [0.0, 0.0]
    """
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(new)]
    return choose(jnp.array(finite).all(), new, old)


def masked_mean(values: Float[Array, " n"], mask: Bool[Array, " n"]) -> Scalar:
    """The mean over some of `[n]`, 0 where there is none.

    Example:
      >>> masked_mean(jnp.array([1.0, 3.0, 9.0]), jnp.array([True, True, False])).item()
      2.0
    """
    return jnp.where(mask, values, 0.0).sum() / jnp.maximum(mask.sum(), 1)
