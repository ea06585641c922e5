"""One point at a time: predict it, remember it, and adapt to all that was seen.

At test time there may be no batch, only a stream. Setting the size of a set to 1 is not
it: ARM then has no context at all, and is far worse than ERM. What has to be done is to
keep the context, or the normalisation statistics, of all points so far.
"""

import jax
import jax.numpy as jnp

from jaxmeta.core.types import Array, Bool, Float, Int, ModelState, Params
from jaxmeta.shift.adaptation.adapter import if_finite
from jaxmeta.shift.learner import ShiftLearner


def stream(
    learner: ShiftLearner,
    params: Params,
    model_state: ModelState,
    inputs: Float[Array, "time *point"],
    *,
    groups: Int[Array, " time"] | None = None,
    memory: int | None = None,
) -> Float[Array, "time classes"]:
    """Logits of every point of a stream, each from what was seen up to it.

    Three ways to use it:

    - episodic: with `groups`, what was seen is forgotten where the group changes;
    - continual: without, nothing is; `memory` makes old points count less;
    - mixed: without, and the points of several groups in any order.

    It is one `lax.scan` over `learner.observe`. XLA runs convolutions in a loop slowly
    on the CPU (`core.loops`): there call `observe` in a loop of your own.

    A point that makes what is remembered not finite, such as a reading of nan, is not
    remembered.

    Args:
      learner: a trained method that can be streamed: not ARM-LL, which adapts to a set.
      params: its parameters.
      model_state: its statistics.
      inputs: `[time, ...]` one point each.
      groups: `[time]` who each point is of, if that is known.
      memory: how many points are remembered, >= 1: the share of a new one is never
        below 1/memory. None: all of them count the same.

    Returns:
      `[time, classes]`.

    Raises:
      ValueError: for a method that cannot be streamed, a `memory` below 1, inputs that
        are no floating-point numbers, or `groups` of another length.

    Example:
      >>> from jaxmeta.networks.convnet import ConvNet
      >>> from jaxmeta.shift.arm_bn import ArmBn
      >>> from jaxmeta.shift.learner import start
      >>> learner = ArmBn(network=ConvNet(num_classes=3, width=2))
      >>> images = jax.random.uniform(jax.random.key(0), (5, 16, 16, 1))
      >>> params, stats = start(learner.network, jax.random.key(1), images)
      >>> stream(learner, params, stats, images).shape
      (5, 3)
    """
    if not isinstance(learner, ShiftLearner):
        raise ValueError(
            f"{type(learner).__name__} cannot be streamed; give the learner that it "
            "adapts, or use adapt_stream."
        )
    inputs = jnp.asarray(inputs)
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise ValueError(
            f"inputs must be floating-point numbers, got {inputs.dtype}; prepare them "
            "as in training, bytes as inputs / 255."
        )
    if memory is not None and memory < 1:
        raise ValueError(f"memory must be >= 1 or None, got {memory}.")
    if groups is not None and len(groups) != len(inputs):
        raise ValueError(
            f"groups must have one id a point ({len(inputs)}), got {len(groups)}."
        )

    def one(carry, at):
        seen, what = carry
        point, starts = at
        seen = jnp.where(starts, 0, seen)
        share = newest_share(seen, memory)
        next_, logits = learner.observe(params, model_state, what, point, seen, share)
        return if_finite((seen + 1, next_), (seen, what)), logits

    begin = (jnp.zeros((), jnp.int32), learner.remember(params, model_state))
    return jax.lax.scan(one, begin, (inputs, _starts(len(inputs), groups)))[1]


def newest_share(seen: Int[Array, ""], memory: int | None = None) -> Float[Array, ""]:
    """How much the newest point counts in the average of all: `max(1/t, 1/memory)`.

    Args:
      seen: how many there were before it.
      memory: see `stream`.

    Example:
      >>> float(newest_share(jnp.array(3))), float(newest_share(jnp.array(3), 2))
      (0.25, 0.5)
    """
    share = 1.0 / (seen + 1)
    return share if memory is None else jnp.maximum(share, 1.0 / memory)


def _starts(length: int, groups: Array | None) -> Bool[Array, " time"]:
    """Where what was seen is forgotten; nothing has been at the first point."""
    if groups is None:
        return jnp.zeros(length, bool)
    groups = jnp.asarray(groups)
    return jnp.concatenate([jnp.zeros(min(1, length), bool), groups[1:] != groups[:-1]])
