"""One outer step as a pure function."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.core import Tracer

from jaxmeta.core.aggregate import TaskAggregator, WeightsOnly
from jaxmeta.core.learner import Learner
from jaxmeta.core.metrics import Mean, Metrics, sum_first_axis
from jaxmeta.core.outer_step import OuterStep, StepMetrics, named
from jaxmeta.core.parallel import Parallel, map_tasks_with
from jaxmeta.core.task import Task
from jaxmeta.core.types import (
    Array,
    Bool,
    Int,
    ModelState,
    Params,
    Precision,
    PRNGKey,
    TaskLosses,
)

# What a key is for; folded in first, so that no two uses of one seed share a stream.
INIT, DRAW, LEARN, EVALUATE = range(4)


@struct.dataclass
class TrainState:
    """Everything a run needs to go on; keys come from `fold_in(root, step)`.

    Attributes:
      step: `[]` int32, outer steps done, skipped ones included.
      skipped: `[]` int32, how many of the last steps in a row were skipped because
        their loss, update or new state was not finite.
      params: what the outer loop learns.
      model_state: running statistics, `()` for most learners.
      opt_state: state of the aggregator and of the optax chain.
    """

    # Not array types: JAX also fills this tree with shapes and shardings.
    step: Any
    skipped: Any
    params: Params
    model_state: ModelState
    opt_state: Any


TrainStep = Callable[[TrainState, Task, PRNGKey], tuple[TrainState, Metrics]]


def step_key(root: PRNGKey, purpose: int, step: Int[Array, ""] | int) -> PRNGKey:
    """The key of one step for one purpose; tasks fold in their slot after it."""
    return jax.random.fold_in(jax.random.fold_in(root, purpose), step)


def init_state(
    learner: Learner,
    tx: optax.GradientTransformation,
    aggregator: TaskAggregator | None = None,
    *,
    key: PRNGKey,
    example: Task,
) -> TrainState:
    """The state before the first step.

    Args:
      learner: as given to `make_train_step`.
      tx: as given to `make_train_step`.
      aggregator: as given to `make_train_step`.
      key: of the initialisation.
      example: one task; only its shapes matter.

    Example:
      >>> from jaxmeta.core.testing import smoke_learner, smoke_source
      >>> state = init_state(
      ...     smoke_learner(),
      ...     optax.adam(1e-3),
      ...     key=jax.random.key(0),
      ...     example=smoke_source().example,
      ... )
      >>> int(state.step)
      0
    """
    params, model_state = _init(learner, key, example)
    link = optax.identity() if aggregator is None else aggregator
    none = jnp.zeros((), jnp.int32)
    opt_state = (link.init(params), tx.init(params))
    return _apart(TrainState(none, none, params, model_state, opt_state))


def _init(learner: Learner, key: PRNGKey, example: Task) -> tuple[Params, ModelState]:
    """One program: by itself every random number would be compiled.

    It runs once, so on a CPU LLVM leaves it as it is, which takes a fifth of the time.
    """
    inside = any(isinstance(x, Tracer) for x in jax.tree.leaves((key, example)))
    if inside or jax.default_backend() != "cpu":
        return jax.jit(learner.init)(key, example)
    return _quickly_compiled(learner)(key, example)


@lru_cache(maxsize=64)
def _quickly_compiled(learner: Learner) -> Callable:
    # With options of the compiler `jit` remembers nothing from one call to the next.
    quick = {"xla_backend_optimization_level": 0}
    return jax.jit(learner.init, compiler_options=quick)


def _apart(tree: Any) -> Any:
    """Copies of arrays that occur again, since a loop gives each away once."""
    seen: set[int] = set()

    def own(leaf: Any) -> Any:
        if id(leaf) in seen:
            return jnp.copy(leaf)
        seen.add(id(leaf))
        return leaf

    return jax.tree.map(own, tree)


def make_train_step(
    learner: Learner,
    tx: optax.GradientTransformation,
    aggregator: TaskAggregator | None = None,
    *,
    parallel: Parallel | None = None,
    precision: Precision = "highest",
    max_skips: int = 2,
    step_metrics: StepMetrics | None = None,
) -> TrainStep:
    """One outer step as a pure function; all that a loop of your own needs.

    With an aggregator that declares `WeightsOnly`, the step takes one backward pass
    of the weighted loss. Otherwise every task gets its gradient, `[task, *p]`, and
    the aggregator (or, when there is none, the first link of `tx`) reduces it.

    A step whose loss, update or new state is not finite changes nothing but the
    counters. After more than `max_skips` such steps in a row every further step is
    skipped too, so that the caller finds the last good parameters.

    Args:
      learner: the method.
      tx: an optax chain. Without `aggregator` its first link reduces the task axis.
      aggregator: the between-task aggregator, `[task, *p] -> [*p]`.
      parallel: how tasks are spread over devices; all devices when None.
      precision: matmul precision of the whole step.
      max_skips: non-finite steps in a row that are forgiven, >= 0.
      step_metrics: more metrics, from the gradients and losses of all tasks, such as
        `surgery.step_diagnostics`. Every task then gets its gradient, and its loss is
        computed once more after the step.

    Returns:
      `step(state, tasks, key) -> (state, metrics)`, to be wrapped in `jax.jit`. `key`
      is the key of this step; `metrics` are sums and counts over the batch, with
      `skipped` beside the learner's own.

    Raises:
      ValueError: (when first called) if the task axis is still there after the chain,
        or if the tasks do not divide over the devices.

    Example:
      >>> import jax, optax
      >>> from jaxmeta import init_state, make_train_step, sum_over_tasks
      >>> from jaxmeta.core.testing import smoke_learner, smoke_source
      >>> learner, source, key = smoke_learner(), smoke_source(), jax.random.key(0)
      >>> tx = optax.chain(sum_over_tasks(), optax.adam(0.05))
      >>> state = init_state(learner, tx, key=key, example=source.example)
      >>> step = jax.jit(make_train_step(learner, tx))
      >>> for i in range(60):
      ...     tasks = source.sample(jax.random.key(i), jnp.arange(8), split="train")
      ...     state, metrics = step(state, tasks, jax.random.fold_in(key, i))
      >>> bool(metrics["loss"].compute() < 0.05)
      True
    """
    parallel = Parallel() if parallel is None else parallel
    observe = None
    if isinstance(aggregator, WeightsOnly):
        observe = aggregator.observe
        # As a link it would want the losses after the step at the next one.
        aggregator = WeightsOnly(aggregator.init, aggregator.weights)
    if isinstance(aggregator, WeightsOnly) and step_metrics is None:
        propose = _weighted_update(learner, aggregator, tx, parallel)
    else:
        propose = _task_gradient_update(learner, aggregator, tx, parallel)

    def loss_alone(shared, task, key):
        params, model_state = shared
        return learner.loss(params, model_state, task, key)[0]

    losses_alone = map_tasks_with(parallel, loss_alone)

    def step(state: TrainState, tasks: Task, key: PRNGKey):
        (num_tasks,) = tasks.task_id.shape
        keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(num_tasks))
        tasks = parallel.split_examples(tasks)
        with jax.default_matmul_precision(precision):
            proposal = propose(state, tasks, keys)
            updates, opt_state = proposal.updates, proposal.opt_state
            metrics = dict(proposal.metrics)
            if observe is not None or step_metrics is not None:
                after = optax.apply_updates(state.params, updates)
                losses_after = losses_alone((after, state.model_state), tasks, keys)
                if observe is not None:
                    seen = observe(opt_state[0], losses_after, tasks.task_id)
                    opt_state = (seen, opt_state[1])
                if step_metrics is not None:
                    seen = OuterStep(
                        parallel.split_columns(proposal.task_grads),
                        jax.tree.map(jnp.subtract, after, state.params),
                        proposal.losses,
                        losses_after,
                        tasks.task_id,
                    )
                    metrics |= named(step_metrics(seen))
        model_state = jax.tree.map(
            lambda total, old: (total / num_tasks).astype(jnp.result_type(old)),
            proposal.states,
            state.model_state,
        )
        # An optimiser whose second moment overflows makes updates of 0 for ever after.
        finite = (
            proposal.losses_finite
            & _all_finite(updates)
            & _stay_finite(model_state, state.model_state)
            & _stay_finite(opt_state, state.opt_state)
        )
        healthy = finite & (state.skipped <= max_skips)
        taken = lambda new, old: jax.tree.map(
            lambda a, b: jnp.where(healthy, a, b), new, old
        )
        new = TrainState(
            step=state.step + 1,
            skipped=jnp.where(healthy, 0, state.skipped + 1),
            params=taken(optax.apply_updates(state.params, updates), state.params),
            model_state=taken(model_state, state.model_state),
            opt_state=taken(opt_state, state.opt_state),
        )
        # What was skipped must not turn the averages of a whole log interval to nan.
        metrics = jax.tree.map(lambda x: jnp.where(healthy, x, 0.0), metrics)
        metrics["skipped"] = Mean(
            jnp.where(healthy, 0.0, 1.0), jnp.ones((), jnp.float32)
        )
        return parallel.keep(new), parallel.gather(metrics)

    return step


def _all_finite(tree) -> Bool[Array, ""]:
    leaves = [jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]
    return jnp.stack(leaves).all()


def _stay_finite(new, old) -> Bool[Array, ""]:
    """Whether `new` is finite wherever `old` was; a smallest loss starts infinite."""
    healthy = jnp.array(True)
    for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True):
        if jnp.issubdtype(jnp.result_type(a), jnp.inexact):  # not counts, not keys
            healthy &= (jnp.isfinite(a) | ~jnp.isfinite(b)).all()
    return healthy


class _Proposal(NamedTuple):
    """A step that has not been taken yet; `metrics` and `states` are summed."""

    updates: Params
    opt_state: Any
    losses: TaskLosses
    losses_finite: Bool[Array, ""]
    metrics: Metrics
    states: ModelState
    task_grads: Params | None


def _weighted_update(learner, aggregator: WeightsOnly, tx, parallel: Parallel):
    """One backward pass of `sum_t w_t loss_t`; `[task, *p]` never exists."""
    tx = optax.with_extra_args_support(tx)

    def body(shard, shared, tasks, keys):
        params, model_state, aggregator_state = shared

        def losses_of(params):
            fn = lambda params, task, key: learner.loss(params, model_state, task, key)
            return parallel.over_local_tasks(fn)(params, tasks, keys)

        losses, pull_back, aux = jax.vjp(losses_of, params, has_aux=True)
        weights, aggregator_state = aggregator.weights(
            aggregator_state, shard.gather(losses), shard.gather(tasks.task_id)
        )
        (grads,) = pull_back(shard.own(weights).astype(losses.dtype))
        # As a float, so that it travels with the gradient.
        bad = jnp.sum(~jnp.isfinite(losses), dtype=jnp.float32)
        same = shard.total((grads, sum_first_axis(aux), bad))
        return (*same, aggregator_state), losses

    on_shards = parallel.on_shards(body)

    def propose(state: TrainState, tasks: Task, keys) -> _Proposal:
        aggregator_state, tx_state = state.opt_state
        shared = (state.params, state.model_state, aggregator_state)
        (grads, (metrics, states), bad, aggregator_state), losses = on_shards(
            shared, tasks, keys
        )
        grads = parallel.keep(grads)
        updates, tx_state = _update(tx, grads, tx_state, state.params, losses, tasks)
        opt_state = (aggregator_state, tx_state)
        return _Proposal(updates, opt_state, losses, bad == 0, metrics, states, None)

    return propose


def _task_gradient_update(learner, aggregator, tx, parallel: Parallel):
    """Every task's gradient, `[task, *p]`, reduced by the first link of the chain."""
    if aggregator is None:
        # Which link reduces is not known, so all of them work on spread parameters.
        chain = _spread(optax.chain(optax.identity(), tx), parallel)
    else:
        chain = optax.chain(_spread(aggregator, parallel), tx)

    def gradient(shared, task, key):
        params, model_state = shared
        loss = lambda params: learner.loss(params, model_state, task, key)
        return jax.value_and_grad(loss, has_aux=True)(params)

    over_tasks = map_tasks_with(parallel, gradient)

    def propose(state: TrainState, tasks: Task, keys) -> _Proposal:
        (losses, aux), grads = parallel.in_order(
            over_tasks((state.params, state.model_state), tasks, keys)
        )
        metrics, states = sum_first_axis(aux)
        updates, opt_state = _update(
            chain, grads, state.opt_state, state.params, losses, tasks
        )
        finite = _all_finite(losses)
        return _Proposal(updates, opt_state, losses, finite, metrics, states, grads)

    return propose


def _spread(
    aggregator: optax.GradientTransformation, parallel: Parallel
) -> TaskAggregator:
    """Every device combines some columns of the gradients, and only results travel."""
    aggregator = optax.with_extra_args_support(aggregator)

    def update(updates, state, params=None, **extra):
        spread = parallel.split_columns(updates)
        reduced = aggregator.update(spread, state, params, **extra)
        return parallel.keep(parallel.split_columns(reduced, first_axis=0))

    return optax.GradientTransformationExtraArgs(aggregator.init, update)


def _update(tx, grads, opt_state, params, losses, tasks: Task):
    """`tx.update`, after `eval_shape` has shown that the task axis is gone."""
    update = partial(tx.update, task_losses=losses, task_ids=tasks.task_id)
    shapes = lambda tree: [jnp.shape(x) for x in jax.tree.leaves(tree)]
    try:
        after = jax.eval_shape(update, grads, opt_state, params)
        reduced = shapes(after) == shapes((params, opt_state))
        reason = ""
    except (TypeError, ValueError) as error:
        reduced, reason = False, f" ({error})"
    if not reduced:
        raise ValueError(
            "the task axis is still there after the optax chain: every gradient is "
            f"[task, *p] with {losses.shape[0]} tasks. Put the aggregator first, as in "
            "optax.chain(mean_over_tasks(), optax.adam(1e-3)), or pass it as "
            "aggregator=mean_over_tasks() (not both). What wraps a whole chain "
            "(optax.masked, MultiSteps, apply_if_finite) goes around what follows the "
            f"aggregator; heads stay out of surgery with mask=.{reason}"
        )
    return update(grads, opt_state, params)
