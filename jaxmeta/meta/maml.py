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
import functools
import math
from typing import Literal, NamedTuple, TypeAlias, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmeta.core.learner import Learner
from jaxmeta.core.objectives import Objective, squared_error
from jaxmeta.core.task import Task
from jaxmeta.core.types import FastParams, Params, PyTree, Scalar
from jaxmeta.meta import norm_stats
from jaxmeta.meta.inner_loop import descend
from jaxmeta.meta.meta_gradient import UNROLLED, MetaGradient
from jaxmeta.meta.norm_stats import NormStats
from jaxmeta.networks.norm import OWN

FAST = "params"
"""The collection that the inner loop adapts."""

Rates: TypeAlias = Literal["fixed", "per_tensor", "per_parameter"]


class Adapted(NamedTuple):
    """What MAML makes of a support set.

    Attributes:
      fast: parameters after the inner loop, same tree as `params["fast"]`.
      stats: batch statistics that go with them, `()` of a network without.
    """

    fast: FastParams
    stats: PyTree


class MamlState(NamedTuple):
    """What MAML remembers and does not learn by gradients.

    Attributes:
      stats: running batch statistics, `()` of a network without.
      steps: `[]` outer steps done, None unless `multi_step_loss` counts them.
    """

    stats: PyTree
    steps: Scalar | None


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
      >>> from jaxmeta.core.task import Examples
      >>> from jaxmeta.networks.mlp import MLP
      >>> source_example = Task(
      ...     Examples(jnp.zeros((1, 4)), jnp.zeros((1, 2))),
      ...     Examples(jnp.zeros((3, 4)), jnp.zeros((3, 2))),
      ...     jnp.array(0),
      ... )
      >>> learner = Maml(network=MLP(features=(8, 2)), inner_steps=2)
      >>> params, state = learner.init(jax.random.key(0), source_example)
      >>> key = jax.random.key(1)
      >>> adapted = learner.adapt(params, state, source_example.support, key)
      >>> jax.tree.structure(adapted.fast) == jax.tree.structure(params["fast"])
      True
    """

    network: nn.Module
    """Any Linen module of one argument or, if it has batch statistics, of inputs and
    `networks.norm.Statistics`."""

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

    positive_rates: bool = False
    """Whether learned rates are the softplus of what is learned. Else they may turn
    negative."""

    multi_step_loss: int = 0
    """In the first so many outer steps the outer loss counts the query after every
    inner step, at first equally, in the end the last alone (Antoniou, Edwards, Storkey,
    "How to train your MAML", 2019)."""

    norm_stats: NormStats = "query"
    """Whose batch statistics normalise a query set, see `meta.norm_stats`."""

    only: tuple[str, ...] = ()
    """Names in `params` that the inner loop moves, the others being common to all
    tasks; empty: all. Only the head is ANIL, see `meta.anil`."""

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
        if self.rates != "fixed" and not self.meta_gradient.learns_rates:
            raise ValueError(
                'rates must be "fixed" with the meta-gradient '
                f"{type(self.meta_gradient).__name__}, which does not reach them, got "
                f"{self.rates!r}."
            )
        norm_stats.check(self.norm_stats)
        if self.positive_rates and self.rates == "fixed":
            raise ValueError('positive_rates must be False with rates "fixed".')
        if self.multi_step_loss < 0:
            raise ValueError(
                f"multi_step_loss must be >= 0, got {self.multi_step_loss}."
            )
        if self.multi_step_loss and not self.meta_gradient.stepwise:
            raise ValueError(
                "multi_step_loss must be 0 with the meta-gradient "
                f"{type(self.meta_gradient).__name__}, which sees all inner steps as "
                f"one, got {self.multi_step_loss}."
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
        slow, stats = norm_stats.start(self.network, key, example.support.inputs)
        fast = dict(slow.pop(FAST))
        if self.only:
            if unknown := set(self.only) - set(fast):
                raise ValueError(
                    f"only names {', '.join(sorted(unknown))}, and the network's "
                    f"parameters are {', '.join(fast)}."
                )
            slow[FAST] = {k: v for k, v in fast.items() if k not in self.only}
            fast = {name: fast[name] for name in self.only}
        if slow and not self.meta_gradient.learns_slow:
            raise ValueError(
                f"the meta-gradient {type(self.meta_gradient).__name__} learns only "
                f"what the inner loop moves, and the network also has "
                f"{', '.join(slow)}; choose another."
            )
        params = {"fast": fast, "slow": slow}
        if self.rates != "fixed":
            start = self.inner_rate
            if self.positive_rates:
                start = start + math.log(-math.expm1(-start))  # softplus of it is start
            params["rates"] = self._constant_rates(fast, start)
        return params, MamlState(stats, jnp.zeros(()) if self.multi_step_loss else None)

    def _constant_rates(self, fast: FastParams, value: float) -> PyTree:
        steps = (self.inner_steps,) if self.per_step else ()

        def rate(leaf):
            shape = leaf.shape if self.rates == "per_parameter" else ()
            return jnp.full(steps + shape, value, leaf.dtype)

        return jax.tree.map(rate, fast)

    def _rates(self, params: Params) -> PyTree:
        """The inner rates, as `descend` takes them."""
        if self.rates == "fixed":
            return self._constant_rates(params["fast"], self.inner_rate)
        rates = params["rates"]
        return jax.tree.map(jax.nn.softplus, rates) if self.positive_rates else rates

    def _forward(self, slow, fast, stats, inputs, statistics):
        """Outputs, and the batch statistics kept."""
        variables = {**slow, FAST: {**slow.get(FAST, {}), **fast}}
        return norm_stats.forward(self.network, variables, stats, inputs, statistics)

    def _descend(self, params, stats, support, rates, *, training, **settings):
        """The fast weights after inner steps from those of `params`."""
        statistics = norm_stats.of_support(self.norm_stats, training=training)

        def support_loss(fast: FastParams, context: PyTree) -> Scalar:
            slow, stats, support = context
            outputs, _ = self._forward(slow, fast, stats, support.inputs, statistics)
            return self.objective(outputs, support.targets)[0]

        return descend(
            support_loss,
            params["fast"],
            (params["slow"], stats, support),
            rates,
            meta_gradient=self.meta_gradient,
            **settings,
        )

    def _adapted(self, params: Params, stats, support, fast: FastParams) -> Adapted:
        """With the statistics of the support set, where the query needs them."""
        if self.norm_stats == "support":
            _, stats = self._forward(params["slow"], fast, stats, support.inputs, OWN)
        return Adapted(fast, stats)

    def predict(self, params: Params, adapted: Adapted, inputs: jax.Array) -> jax.Array:
        """Outputs `[n, ...]` of the adapted network."""
        return self._answer(params, adapted, inputs, training=False)[0]

    def _answer(self, params, adapted, inputs, *, training):
        statistics = norm_stats.of_query(self.norm_stats, training=training)
        fast, stats = adapted
        return self._forward(params["slow"], fast, stats, inputs, statistics)

    def adapt(self, params, model_state, support, key):
        del key
        fast = self._descend(
            params,
            model_state.stats,
            support,
            self._rates(params),
            training=False,
            num_steps=self.num_eval_steps,
            per_step=self.per_step,
        )
        return self._adapted(params, model_state.stats, support, fast)

    def loss(self, params, model_state, task, key):
        del key
        stats = model_state.stats

        def query_loss(fast):
            adapted = self._adapted(params, stats, task.support, fast)
            outputs, kept = self._answer(
                params, adapted, task.query.inputs, training=True
            )
            return *self.objective(outputs, task.query.targets), kept

        def steps(fast, rates, **settings):
            start = {**params, "fast": fast}
            return self._descend(
                start, stats, task.support, rates, training=True, **settings
            )

        rates = self._rates(params)
        if not self.multi_step_loss:
            settings = {"num_steps": self.inner_steps, "per_step": self.per_step}
            fast = steps(params["fast"], rates, **settings)
            loss, metrics, kept = query_loss(fast)
            loss = self.meta_gradient.outer(params["fast"], fast, loss)
        else:
            step = self.meta_gradient.one_of_many(functools.partial(steps, num_steps=1))
            fast, losses = params["fast"], []
            for i in range(self.inner_steps):
                now = (
                    jax.tree.map(lambda r, i=i: r[i], rates) if self.per_step else rates
                )
                fast = step(fast, now)
                loss, metrics, kept = query_loss(fast)
                losses.append(loss)
            loss = self._step_weights(model_state.steps) @ jnp.stack(losses)
        if self.norm_stats == "running":
            stats = kept
        done = model_state.steps
        return loss, (metrics, MamlState(stats, None if done is None else done + 1))

    def _step_weights(self, steps: Scalar) -> jax.Array:
        """Of the query loss after every inner step, which sum to 1."""
        last = jnp.zeros(self.inner_steps).at[-1].set(1.0)
        done = jnp.minimum(steps / self.multi_step_loss, 1.0)
        return done * last + (1.0 - done) / self.inner_steps

    def evaluate(self, params, model_state, task: Task, key):
        adapted = self.adapt(params, model_state, task.support, key)
        outputs = self.predict(params, adapted, task.query.inputs)
        return self.objective(outputs, task.query.targets)[1]
