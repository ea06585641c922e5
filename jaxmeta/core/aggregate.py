"""The between-task contract: many tasks' gradients in, one update out.

A `TaskAggregator` is an optax transformation whose updates enter as `[task, *p]` and
leave as `[*p]`. It is the first link of an `optax.chain`, or the `aggregator=`
argument of `make_train_step`. It may ask for the extra arguments `task_losses`
(`[task]`) and `task_ids` (`[task]`).
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core.types import Array, PyTree, TaskIds, TaskLosses, TaskWeights

TaskAggregator: TypeAlias = optax.GradientTransformationExtraArgs
"""`update(task_grads [task, *p], state, params, **extra) -> (updates [*p], state)`."""

WeightsFn: TypeAlias = Callable[[Any, TaskLosses, TaskIds], tuple[TaskWeights, Any]]

ObserveFn: TypeAlias = Callable[[Any, TaskLosses, TaskIds], Any]


def count_tasks(task_grads: PyTree, params: PyTree | None = None) -> int:
    """The length of the task axis.

    Raises:
      ValueError: naming the leaf, if it has no task axis or not that of the others.

    Example:
      >>> count_tasks({"w": jnp.zeros((3, 8, 8)), "b": jnp.zeros((3, 8))})
      3
    """
    leaves = jax.tree_util.tree_leaves_with_path(task_grads)
    shapes = {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}
    if not shapes:
        raise ValueError("there is no gradient to aggregate: the pytree has no leaf.")
    if params is not None:
        parameters = jax.tree.leaves(params)
        if len(parameters) != len(shapes):
            raise ValueError(
                f"there must be a gradient for each of the {len(parameters)} "
                f"parameters, got {len(shapes)}."
            )
        for (name, shape), parameter in zip(shapes.items(), parameters, strict=True):
            if shape[1:] != jnp.shape(parameter) or not shape:
                raise ValueError(
                    f"gradient {name or '(the only leaf)'} must be [task, "
                    f"*{jnp.shape(parameter)}], one a task, got shape {shape}."
                )
    lengths = {shape[:1] for shape in shapes.values()}
    if len(lengths) > 1 or () in lengths:
        raise ValueError(
            "every gradient must be [task, *p] with the same number of tasks, got "
            f"{', '.join(f'{name} {shape}' for name, shape in shapes.items())}."
        )
    for path, leaf in leaves:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            raise ValueError(
                f"gradient {jax.tree_util.keystr(path)} must be of a floating type, "
                f"got {jnp.result_type(leaf)}."
            )
    return lengths.pop()[0]


def accumulator(dtype: Any, chosen: Any = None) -> Any:
    """The type in which products of `dtype` are added up: at least float32.

    Example:
      >>> jnp.dtype(accumulator(jnp.bfloat16)).name
      'float32'
    """
    return jnp.promote_types(dtype, jnp.float32) if chosen is None else chosen


def weighted_sum(weights: TaskWeights, leaf: Array) -> Array:
    """`sum_t w_t g_t` of one leaf `[task, *p]`, added up in at least float32.

    Example:
      >>> leaf = jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> weighted_sum(jnp.array([1.0, 2.0]), leaf).tolist()
      [3.0, 2.0]
    """
    dtype = accumulator(leaf.dtype)
    total = jax.lax.dot_general(
        weights.astype(dtype),
        leaf,
        (((0,), (0,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=dtype,
    )
    return total.astype(leaf.dtype)


class WeightsOnly(optax.GradientTransformationExtraArgs):
    """An aggregator that weighs tasks without looking at their gradients.

    The update is `sum_t w_t g_t` with `w = weights(state, task_losses, task_ids)`.
    Declaring it so lets `make_train_step` take ONE backward pass of the weighted loss
    and never hold `[task, *p]` gradients. As a link of a chain the same object
    reduces explicit per-task gradients; both paths give the same update.

    Attributes:
      init: `params -> state`.
      weights: `(state, task_losses [task], task_ids [task])` to `(weights [task],
        state)`, called with the losses of ALL tasks, on every device alike.
      observe: None, or `(state, losses_after [task], task_ids [task]) -> state`, called
        after the step with the losses of the same batch at the new parameters. As a
        link of a chain it is called at the start of the next `update`, which then
        needs `task_losses_after=`: the losses of the last batch, for the same tasks in
        the same order, at the present parameters (nan at first).

    Raises:
      ValueError: from `update`, for leaves without a common task axis, and without
        `task_losses` where `needs_losses` was said.

    Example:
      Only the worst task counts:

      >>> def worst(state, task_losses, task_ids):
      ...     return (task_losses == task_losses.max()).astype(jnp.float32), state
      >>> tx = WeightsOnly(lambda params: optax.EmptyState(), worst)
      >>> grads, losses = jnp.array([[1.0], [5.0]]), jnp.array([0.2, 0.9])
      >>> tx.update(grads, tx.init(None), task_losses=losses)[0].tolist()
      [5.0]
    """

    weights: WeightsFn
    observe: ObserveFn | None

    def __new__(
        cls,
        init: Callable[..., Any],
        weights: WeightsFn,
        observe: ObserveFn | None = None,
        *,
        needs_losses: bool = False,
    ):
        def update(updates, state, params=None, **extra):
            num_tasks = count_tasks(updates, params)
            task_losses, task_ids = extra.get("task_losses"), extra.get("task_ids")
            if task_losses is None and needs_losses:
                raise ValueError(
                    "this aggregator needs the losses of the tasks: call update("
                    f"task_grads, state, params, task_losses=losses), ({num_tasks},)."
                )
            if task_losses is None:
                task_losses = jnp.full((num_tasks,), jnp.nan)
            if task_ids is None:
                task_ids = jnp.arange(num_tasks)
            if observe is not None:
                if (after := extra.get("task_losses_after")) is None:
                    raise ValueError(
                        "this aggregator needs task_losses_after=, the losses of the "
                        "last batch at the present parameters. In make_train_step pass "
                        "it as aggregator=."
                    )
                state = observe(state, after, task_ids)
            w, state = weights(state, task_losses, task_ids)
            return jax.tree.map(lambda g: weighted_sum(w, g), updates), state

        self = super().__new__(cls, init, update)
        self.weights = weights
        self.observe = observe
        return self


def _constant_weights(weight: Callable[[int], float]) -> WeightsOnly:
    def weights(state, task_losses, task_ids):
        del task_ids
        (num_tasks,) = task_losses.shape
        return jnp.full((num_tasks,), weight(num_tasks), jnp.float32), state

    return WeightsOnly(lambda params: optax.EmptyState(), weights)


def mean_over_tasks() -> WeightsOnly:
    """The average of the tasks' gradients: `1/T sum_t g_t`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> tx = optax.chain(mean_over_tasks(), optax.sgd(1.0))
      >>> params = jnp.zeros(2)
      >>> task_grads = jnp.array([[1.0, 0.0], [3.0, 2.0]])
      >>> updates, _ = tx.update(task_grads, tx.init(params), params)
      >>> updates.tolist()
      [-2.0, -1.0]
    """
    return _constant_weights(lambda num_tasks: 1.0 / num_tasks)


def sum_over_tasks() -> WeightsOnly:
    """The sum of the tasks' gradients, `sum_t g_t`, as MSR's released code uses.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = sum_over_tasks()
      >>> updates, _ = tx.update(jnp.array([[1.0], [3.0]]), tx.init(jnp.zeros(1)))
      >>> updates.tolist()
      [4.0]
    """
    return _constant_weights(lambda num_tasks: 1.0)
