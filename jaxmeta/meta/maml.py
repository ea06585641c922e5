"""MAML, and by a partition of its parameters also MSR.

Finn, Abbeel, Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep
Networks" (2017). The Flax collection `params` is what the inner loop moves; every
other collection of the network belongs to the outer loop alone. A network whose
layers keep a symmetry matrix U in another collection therefore makes this very class
the MSR learner of Zhou, Knowles, Finn, "Meta-Learning Symmetries by
Reparameterization" (2021), algorithm 1: the inner loop moves v, the outer loop learns
U, the start of v and the rates.
"""

import dataclasses
import math
from typing import Literal, TypeAlias, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmeta.core.learner import Learner
from jaxmeta.core.objectives import Objective, squared_error
from jaxmeta.core.task import Examples, Task
from jaxmeta.core.types import FastParams, Params, PyTree, Scalar
from jaxmeta.meta.inner_loop import descend
from jaxmeta.meta.meta_gradient import UNROLLED, Implicit, MetaGradient

FAST = "params"
"""The collection that the inner loop adapts."""

Rates: TypeAlias = Literal["fixed", "per_tensor", "per_parameter"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Maml(Learner):
    """Learns where gradient descent on a few examples should start.

    `v' = v - rate * grad_v L_support(U, v)`, repeated; the outer loss is
    `L_query(U, v')`, and its gradient goes to (v, U, rate).

    The meta-parameters are `{"fast": v, "slow": all else, "rates": ...}`;
    `rates` is absent when they are fixed.

    Raises:
      ValueError: at construction, for a step count below 1, a rate that is not a
        positive finite number, a choice that there is not, or learned rates with a
        meta-gradient that they have none of.

    Example:
      >>> from jaxmeta.networks.mlp import MLP
      >>> source_example = Task(
      ...     Examples(jnp.zeros((1, 4)), jnp.zeros((1, 2))),
      ...     Examples(jnp.zeros((3, 4)), jnp.zeros((3, 2))),
      ...     jnp.array(0),
      ... )
      >>> learner = Maml(network=MLP(features=(8, 2)), inner_steps=2)
      >>> params, _ = learner.init(jax.random.key(0), source_example)
      >>> fast = learner.adapt(params, (), source_example.support, jax.random.key(1))
      >>> jax.tree.structure(fast) == jax.tree.structure(params["fast"])
      True
    """

    network: nn.Module
    """Any Linen module of one argument."""

    objective: Objective = squared_error
    """Loss of outputs and targets, with its metrics."""

    inner_steps: int = 1
    """Gradient steps on the support set."""

    eval_inner_steps: int | None = None
    """Steps when evaluating; `inner_steps` when None."""

    inner_rate: float = 0.1
    """Inner learning rate, or where the learned ones start."""

    rates: Rates = "per_tensor"
    """Which inner rates the outer loop learns."""

    per_step: bool = False
    """Whether every inner step has its own rates."""

    only: tuple[str, ...] = ()
    """Names in `params` that the inner loop moves, the others being common to all
    tasks; empty: all. Only the head, `("Dense_0",)` of `Conv4`, is ANIL (Raghu et al.,
    "Rapid Learning or Feature Reuse?", 2020)."""

    meta_gradient: MetaGradient = UNROLLED
    """How the outer gradient goes through the inner steps."""

    def __post_init__(self):
        steps = {"inner_steps": self.inner_steps}
        if self.eval_inner_steps is not None:
            steps["eval_inner_steps"] = self.eval_inner_steps
        for name, value in steps.items():
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}.")
        if not (math.isfinite(self.inner_rate) and self.inner_rate > 0):
            raise ValueError(
                f"inner_rate must be a positive finite number, got {self.inner_rate}."
            )
        if self.rates not in get_args(Rates):
            raise ValueError(
                f"rates must be one of {get_args(Rates)}, got {self.rates!r}."
            )
        if isinstance(self.meta_gradient, Implicit) and self.rates != "fixed":
            raise ValueError(
                'rates must be "fixed" with the meta-gradient Implicit, which they do '
                f"not depend on, got {self.rates!r}."
            )
        if self.per_step and self.num_eval_steps != self.inner_steps:
            raise ValueError(
                "with per_step rates eval_inner_steps must equal inner_steps "
                f"({self.inner_steps}), got {self.eval_inner_steps}."
            )

    @property
    def num_eval_steps(self) -> int:
        """Inner steps taken by `adapt` and `evaluate`."""
        return self.eval_inner_steps or self.inner_steps

    def init(self, key, example):
        slow = dict(self.network.init(key, example.support.inputs))
        fast = dict(slow.pop(FAST))
        if self.only:
            if unknown := set(self.only) - set(fast):
                raise ValueError(
                    f"only names {', '.join(sorted(unknown))}, and the network's "
                    f"parameters are {', '.join(fast)}."
                )
            slow[FAST] = {k: v for k, v in fast.items() if k not in self.only}
            fast = {name: fast[name] for name in self.only}
        params = {"fast": fast, "slow": slow}
        if self.rates != "fixed":
            params["rates"] = self._initial_rates(params["fast"])
        return params, ()

    def _initial_rates(self, fast: FastParams) -> PyTree:
        steps = (self.inner_steps,) if self.per_step else ()

        def rate(leaf):
            shape = leaf.shape if self.rates == "per_parameter" else ()
            return jnp.full(steps + shape, self.inner_rate, leaf.dtype)

        return jax.tree.map(rate, fast)

    def predict(self, params: Params, fast: FastParams, inputs: jax.Array) -> jax.Array:
        """Outputs `[n, ...]` of the network with the given fast weights."""
        slow = params["slow"]
        variables = {**slow, FAST: {**slow.get(FAST, {}), **fast}}
        outputs = self.network.apply(variables, inputs)
        assert isinstance(outputs, jax.Array)  # not mutable, so no tuple
        return outputs

    def _adapt(self, params: Params, support: Examples, num_steps: int) -> FastParams:
        def support_loss(fast: FastParams, context: PyTree) -> Scalar:
            slow, support = context
            outputs = self.predict({"slow": slow}, fast, support.inputs)
            return self.objective(outputs, support.targets)[0]

        start = params["fast"]
        rates = params.get("rates")
        return descend(
            support_loss,
            start,
            (params["slow"], support),
            self._initial_rates(start) if rates is None else rates,
            num_steps=num_steps,
            per_step=self.per_step,
            meta_gradient=self.meta_gradient,
        )

    def adapt(self, params, model_state, support, key):
        del model_state, key
        return self._adapt(params, support, self.num_eval_steps)

    def loss(self, params, model_state, task, key):
        del key
        fast = self._adapt(params, task.support, self.inner_steps)
        outputs = self.predict(params, fast, task.query.inputs)
        loss, metrics = self.objective(outputs, task.query.targets)
        return loss, (metrics, model_state)

    def evaluate(self, params, model_state, task: Task, key):
        fast = self.adapt(params, model_state, task.support, key)
        outputs = self.predict(params, fast, task.query.inputs)
        return self.objective(outputs, task.query.targets)[1]
