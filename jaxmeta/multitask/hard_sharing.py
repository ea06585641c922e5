"""Hard parameter sharing: one body for all tasks, and a head for each.

Caruana, Multitask Learning, Machine Learning 28 (1997). The baseline of multi-task
learning, and the network to which gradient surgery is applied: to the body alone, as
Yu et al. (2020, section 3) say, since only there gradients of different tasks meet.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmeta.core.learner import Learner
from jaxmeta.core.objectives import Objective, cross_entropy
from jaxmeta.core.types import Array, Params, PyTree


def shared_body(params: Params) -> PyTree:
    """The mask of `HardSharing`: True for the body, False for the heads.

    Example:
      >>> shared_body({"body": {"w": 0.0}, "heads": {"w": 0.0}})
      {'body': {'w': True}, 'heads': {'w': False}}
    """
    return {
        name: jax.tree.map(lambda _, name=name: name == "body", part)
        for name, part in params.items()
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class HardSharing(Learner):
    """`y = head_t(body(x))`: all tasks train the body, task t its own head.

    The parameters are `{"body": ..., "heads": ...}`; every leaf of the heads is
    `[num_heads, *p]`. A task uses the head of its `task_id`; with one head all tasks
    share it. Nothing is adapted: the support set is not looked at. A task id without a
    head has outputs of nan.

    Raises:
      ValueError: for less than one head; from `init`, for modules that keep anything
        but parameters, such as running statistics.
      TypeError: from `predict`, for a head that returns anything but an array.

    Example:
      >>> from jaxmeta import surgery
      >>> from jaxmeta.core.task import Examples, Task
      >>> from jaxmeta.networks.mlp import MLP, Encoder
      >>> learner = HardSharing(
      ...     body=Encoder(features=(8,)), head=MLP(features=(3,)), num_heads=2
      ... )
      >>> query = Examples(jnp.zeros((4, 5)), jnp.zeros(4, int))
      >>> example = Task((), query, jnp.array(0))
      >>> params, _ = learner.init(jax.random.key(0), example)
      >>> params["heads"]["Dense_0"]["kernel"].shape
      (2, 8, 3)
      >>> aggregator = surgery.pcgrad(0, mask=shared_body)
    """

    body: nn.Module
    """Any Linen module of one argument, shared by all tasks."""

    head: nn.Module
    """Any Linen module of one argument, the outputs of the body."""

    num_heads: int = 1
    """One a task, or 1: all tasks share it."""

    objective: Objective = cross_entropy
    """Loss of outputs and targets, with its metrics."""

    def __post_init__(self):
        if self.num_heads < 1:
            raise ValueError(f"num_heads must be >= 1, got {self.num_heads}.")

    def init(self, key, example):
        body_key, head_key = jax.random.split(key)
        features, body = self.body.init_with_output(body_key, example.query.inputs)
        one_head = lambda key: self.head.init(key, features)
        heads = jax.vmap(one_head)(jax.random.split(head_key, self.num_heads))
        found = {"body": dict(body), "heads": dict(heads)}
        for name, collections in found.items():
            if set(collections) != {"params"}:
                raise ValueError(
                    f"the {name} must have parameters and nothing else, got the "
                    f"collections {sorted(collections)}."
                )
        return {name: part["params"] for name, part in found.items()}, ()

    def predict(self, params: Params, inputs: Array, task_id: Array) -> Array:
        """Outputs `[n, ...]` for the inputs `[n, ...]` of one task."""
        # A negative index would count from the end.
        which = jnp.where(task_id < 0, self.num_heads, task_id * (self.num_heads > 1))
        own = lambda leaf: leaf.at[which].get(mode="fill", fill_value=jnp.nan)
        head = jax.tree.map(own, params["heads"])
        features = self.body.apply({"params": params["body"]}, inputs)
        outputs = self.head.apply({"params": head}, features)
        if not isinstance(outputs, jax.Array):
            raise TypeError(f"the head must return one array, got {type(outputs)}.")
        return outputs

    def adapt(self, params, model_state, support, key):
        del model_state, support, key
        return params

    def loss(self, params, model_state, task, key):
        del key
        outputs = self.predict(params, task.query.inputs, task.task_id)
        loss, metrics = self.objective(outputs, task.query.targets)
        return loss, (metrics, model_state)

    def evaluate(self, params, model_state, task, key):
        return self.loss(params, model_state, task, key)[1][0]
