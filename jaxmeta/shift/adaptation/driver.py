"""A stream of batches through an adapter; an adapter as a learner of the harness."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from jaxmeta.core.learner import Learner
from jaxmeta.core.loops import loops_well
from jaxmeta.core.types import Array, Bool, Float, ModelState, Params, PRNGKey
from jaxmeta.shift.adaptation.adapter import Adapter
from jaxmeta.shift.learner import ShiftLearner, measured


def adapt_stream(
    adapter: Adapter,
    learner: ShiftLearner,
    params: Params,
    model_state: ModelState,
    batches: Float[Array, "batch n ..."],
    masks: Bool[Array, "batch n"],
    key: PRNGKey,
    *,
    episodic: bool = False,
) -> Float[Array, "batch n classes"]:
    """The answers to batch after batch.

    One compiled loop, unless this machine is slow at that (`core.loops`): then one
    compiled step that is called for every batch.

    Args:
      adapter: the method.
      learner: what was trained.
      params: its trained parameters.
      model_state: its stored statistics.
      batches: `[batch, n, ...]` in the order in which they are met.
      masks: `[batch, n]` False for padding.
      key: of what the method draws.
      episodic: whether every batch is met by the trained model anew. Otherwise what
        was learned from one is carried to the next (continual adaptation).

    Returns:
      `[batch, n, classes]` logits.

    Raises:
      ValueError: without a batch or a point, or for masks of another shape.

    Example:
      >>> from jaxmeta.networks.convnet import ConvNet
      >>> from jaxmeta.shift.adaptation import Tent
      >>> from jaxmeta.shift.arm_bn import ArmBn
      >>> from jaxmeta.shift.learner import start
      >>> learner = ArmBn(network=ConvNet(num_classes=3, width=2))
      >>> batches = jax.random.normal(jax.random.key(0), (2, 4, 16, 16, 1))
      >>> params, state = start(learner.network, jax.random.key(1), batches[0])
      >>> masks = jnp.ones((2, 4), bool)
      >>> adapt_stream(
      ...     Tent(), learner, params, state, batches, masks, jax.random.key(2)
      ... ).shape
      (2, 4, 3)
    """
    batches, masks = jnp.asarray(batches), jnp.asarray(masks)
    if 0 in batches.shape[:2] or masks.shape != batches.shape[:2]:
        raise ValueError(
            "batches must be [batch, n, ...] with at least one batch of one point, and "
            f"masks [batch, n], got {batches.shape} and {masks.shape}."
        )
    trained = (params, model_state)
    state = adapter.init(learner, *trained, key)
    step = functools.partial(_step, adapter, learner, episodic)
    rows = (jnp.arange(len(batches)), batches, masks)
    first = jax.tree.map(lambda leaf: leaf[0], rows)
    shapes = jax.tree.map(_shape, (trained, key, state, first))
    if loops_well(step, *shapes):
        return _scan(adapter, learner, episodic, trained, key, state, rows)
    answers = []
    for i in range(len(batches)):
        row = jax.tree.map(lambda leaf, i=i: leaf[i], rows)
        state, logits = step(trained, key, state, row)
        answers.append(logits)
    return jnp.stack(answers)


def _shape(leaf: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _step(adapter, learner, episodic, trained, key, state, row):
    """The state and the answer after one batch, `row = (number, inputs, mask)`."""
    number, inputs, mask = row
    if episodic:
        state = adapter.init(learner, *trained, jax.random.fold_in(key, number))
    return adapter.adapt(learner, state, inputs, mask)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _scan(adapter, learner, episodic, trained, key, state, rows):
    """The answers to all batches in one loop."""
    step = functools.partial(_step, adapter, learner, episodic, trained, key)
    return jax.lax.scan(step, state, rows)[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapting(Learner):
    """A learner that is trained as it is, and answers with test-time adaptation.

    Every task is met by the trained model anew; over the sets of one task it adapts
    continually. A task of the group sources is one set in validation and test: adapters
    that predict before they update do not get to use what they learned there.

    Example:
      The same checkpoint, evaluated with and without:

      >>> from jaxmeta.networks.convnet import ConvNet
      >>> from jaxmeta.shift.adaptation import Tent
      >>> from jaxmeta.shift.erm import Erm
      >>> plain = Erm(network=ConvNet(num_classes=10, width=8))
      >>> adapting = Adapting(
      ...     learner=plain, adapter=Tent(order="update_then_predict")
      ... )
    """

    learner: ShiftLearner
    """What is trained."""

    adapter: Adapter
    """What it does at test time."""

    def init(self, key, example):
        return self.learner.init(key, example)

    def adapt(self, params, model_state, support, key):
        """The adapter's state after one batch `[n, ...]` of inputs."""
        state = self.adapter.init(self.learner, params, model_state, key)
        mask = jnp.ones(len(support), bool)
        return self.adapter.adapt(self.learner, state, support, mask)[0]

    def loss(self, params, model_state, task, key):
        return self.learner.loss(params, model_state, task, key)

    def evaluate(self, params, model_state, task, key):
        query = task.query
        logits = adapt_stream(
            self.adapter,
            self.learner,
            params,
            model_state,
            query.inputs,
            query.mask,
            key,
        )
        return measured(logits, query.targets, query.mask)
