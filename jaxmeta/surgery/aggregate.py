"""Any weighting as an optax transformation: one Gram, one mask, one granularity."""

from collections.abc import Callable, Hashable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmeta.core.aggregate import (
    TaskAggregator,
    WeightsOnly,
    count_tasks,
    weighted_sum,
)
from jaxmeta.core.types import Array, PRNGKey, PyTree, TaskIds, TaskLosses, TaskWeights
from jaxmeta.surgery.gram import gram_matrix
from jaxmeta.surgery.weighting import FeedbackWeighting, Tasks, Weighting

Mask: TypeAlias = PyTree | Callable[[PyTree], PyTree] | None
"""A pytree of bools like the parameters, or a function that makes it from them."""

Granularity: TypeAlias = Literal["global", "leaf"] | PyTree | Callable[[PyTree], PyTree]
"""Which leaves share one Gram matrix: all, each its own, or those of one label."""


class AggregateState(NamedTuple):
    """State of `aggregate_tasks`.

    Attributes:
      key: raw bits of the key of the next step.
      groups: state of the weighting, every leaf `[group, ...]`.
    """

    key: Array
    groups: Any


def aggregate_tasks(
    weighting: Weighting,
    key: PRNGKey | Array | int = 0,
    *,
    granularity: Granularity = "global",
    mask: Mask = None,
    accumulator_dtype: Any = None,
) -> TaskAggregator:
    """Replaces the tasks' gradients by their weighted sum, `[task, *p] -> [*p]`.

    `Delta = sum_t w_t g_t` with the weights `w` that `weighting` finds in the Gram
    matrix of the gradients. Put it first in a chain: what follows (clipping, Adam,
    weight decay, `apply_if_finite`) then sees one gradient. A task that is absent from
    a batch has a gradient of zeros and is skipped; a gradient with a nan or infinity
    makes the whole update non-finite, heads and other groups too, so that nobody trains
    on without knowing. A task id that the weighting does not know does the same.

    Around the whole chain, `optax.MultiSteps` and `optax.apply_if_finite` expect
    updates shaped like their input and fail, and `optax.masked` leaves what it masks
    with its task axis: use `mask=` here, accumulate the tasks' gradients before the
    chain, and put `apply_if_finite` around what follows.

    With parameters that are sharded only `[task, task]` matrices travel. Gradients that
    are sharded over tasks XLA would gather everywhere: reshard them by parameter first
    (`jax.lax.with_sharding_constraint(g, P(None, axis))`; `make_train_step` does). Of
    replicas that each see part of a task's data, average every task's gradient first
    (`jax.lax.pmean(task_grads, axis)`): surgery is not linear.

    Args:
      weighting: the rule, such as `PCGrad()`.
      key: a key, typed or raw, or a seed, for rules that draw random numbers.
      granularity: "global", one set of weights for all; "leaf", one for each leaf; or
        a pytree of labels like the parameters, one set of weights a label.
      mask: True for shared parameters. The others (task-specific heads) stay out of
        the Gram matrix and their gradients are summed untouched, also where the rule
        averages the shared ones. None: all are shared.
        Like labels it may be a function of the tree, of which only the structure
        counts.
      accumulator_dtype: in which the Gram matrix is added up; at least float32 when
        None.

    Returns:
      An optax transformation. `update(task_grads, state, params)` also takes
      `task_losses=` and `task_ids=`, both `[task]`; `params` may be left out. For a
      weighting that needs no gradients it declares `WeightsOnly`, and the harness
      takes one backward pass.

    Raises:
      TypeError: for a weighting that is none, such as a class instead of an object.
      ValueError: for an unknown granularity, and when called with leaves that have no
        task axis or not the same, or without `task_losses` where they are needed.

    Example:
      Two tasks that pull in opposite directions along the first axis:

      >>> from jaxmeta.surgery import MGDA
      >>> tx = optax.chain(aggregate_tasks(MGDA()), optax.sgd(1.0))
      >>> params = jnp.zeros(2)
      >>> task_grads = jnp.array([[1.0, 1.0], [-1.0, 1.0]])
      >>> updates, _ = tx.update(task_grads, tx.init(params), params)
      >>> print(updates.round(4))
      [-0. -1.]
    """
    if not isinstance(weighting, Weighting):
        raise TypeError(
            "weighting must be a Weighting such as surgery.PCGrad(), got "
            f"{weighting!r:.60}."
        )
    key_data, impl = raw_key(key)
    if isinstance(granularity, str) and granularity not in ("global", "leaf"):
        raise ValueError(
            "granularity must be 'global', 'leaf' or a pytree of labels, got "
            f"{granularity!r}."
        )
    if not weighting.needs_gram:
        return weights_only(weighting, key_data, impl, granularity, mask)

    def init(params):
        num_groups = 1
        if not _is_global(granularity):
            num_groups = len(_groups(params, granularity, mask)[0])
        return _beside(params, first_state(weighting, key_data, num_groups))

    def update(updates, state, params=None, **extra):
        num_tasks = count_tasks(updates, params)
        losses, ids = losses_and_ids(weighting, num_tasks, extra)
        groups, heads = _groups(updates, granularity, mask)
        leaves, structure = jax.tree.flatten(updates)
        shared = [[leaves[i] for i in group] for group in groups]
        grams = jnp.stack(
            [
                gram_matrix(group, accumulator_dtype=accumulator_dtype)
                for group in shared
            ]
        )
        key, now = jax.random.split(jax.random.wrap_key_data(state.key, impl=impl))

        def weigh(gram, state, key):
            return find_weights(weighting, Tasks(gram, losses, ids), state, key)

        weights, states = jax.vmap(weigh)(
            grams, state.groups, jax.random.split(now, len(groups))
        )
        healthy = jnp.isfinite(weights).all()
        for i in heads:
            leaves[i] = weighted_sum(jnp.ones(num_tasks), leaves[i])
            healthy &= jnp.isfinite(leaves[i]).all()
        # A weight of nan costs no further pass over the gradients.
        weights = jnp.where(healthy, weights, jnp.nan)
        for group, w in zip(groups, weights, strict=True):
            for i in group:
                leaves[i] = weighted_sum(w, leaves[i])
        for i in heads:
            leaves[i] = jnp.where(healthy, leaves[i], jnp.nan)
        state = AggregateState(jax.random.key_data(key), states)
        return jax.tree.unflatten(structure, leaves), state

    return optax.GradientTransformationExtraArgs(init, update)


def first_state(
    weighting: Weighting, key_data: Array, num_groups: int
) -> AggregateState:
    """The state before the first step, for some groups of leaves.

    Example:
      >>> from jaxmeta.surgery import GradVac
      >>> first_state(GradVac(num_tasks=3), raw_key(0)[0], 2).groups.shape
      (2, 3, 3)
    """
    repeat = lambda x: jnp.stack([x] * num_groups)
    groups = jax.tree.map(repeat, _strong(weighting.init()))
    return AggregateState(key_data, groups)


def _beside(params: PyTree, state: AggregateState) -> AggregateState:
    """The state on every device of the mesh that the parameters are on.

    Left on one device it would move there in the first step, and recompile the second.
    """
    leaves = jax.tree.leaves(params)
    is_array = bool(leaves) and isinstance(leaves[0], jax.Array)
    if not is_array or isinstance(leaves[0], Tracer):
        return state
    sharding = leaves[0].sharding
    if not isinstance(sharding, NamedSharding):
        return state
    explicit = AxisType.Explicit in sharding.mesh.axis_types  # names every axis
    spec = lambda x: PartitionSpec(*[None] * (x.ndim if explicit else 0))
    put = lambda x: jax.device_put(x, NamedSharding(sharding.mesh, spec(x)))
    return jax.tree.map(put, state)


def _strong(tree: Any) -> Any:
    """Arrays of a fixed type: a weak one changes in the first step, and recompiles."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), tree)


def find_weights(
    weighting: Weighting, tasks: Tasks, state: Any, key: PRNGKey
) -> tuple[TaskWeights, Any]:
    """The weights, or nan for all: a gradient is not finite, or a task is unknown."""
    weights, state = weighting.weigh(tasks, state, key)
    sound = _all_known(weighting, tasks.ids)
    if weighting.needs_gram:
        sound &= jnp.isfinite(tasks.gram).all()
    return jnp.where(sound, weights, jnp.nan), state


def _all_known(weighting: Weighting, ids: TaskIds) -> Array:
    """Whether every task id has a place in the weighting's memory."""
    limit = weighting.num_tasks
    if limit is None:
        return jnp.array(True)
    return ((ids >= 0) & (ids < limit)).all()


def weights_only(
    weighting: Weighting, key_data: Array, impl: Any, granularity: Any, mask: Any
) -> WeightsOnly:
    if mask is not None or not _is_global(granularity):
        raise ValueError(
            f"{type(weighting).__name__} weighs losses, not gradients: it takes "
            "neither mask nor granularity."
        )

    def init(params):
        return _beside(params, AggregateState(key_data, _strong(weighting.init())))

    def weights(state, task_losses, task_ids):
        key, now = jax.random.split(jax.random.wrap_key_data(state.key, impl=impl))
        (num_tasks,) = task_losses.shape
        no_gram = jnp.full((num_tasks, num_tasks), jnp.nan)
        tasks = Tasks(no_gram, task_losses, task_ids)
        w, groups = find_weights(weighting, tasks, state.groups, now)
        return w, AggregateState(jax.random.key_data(key), groups)

    def observe(state, losses_after, task_ids):
        assert isinstance(weighting, FeedbackWeighting)
        return state._replace(
            groups=weighting.observe(state.groups, losses_after, task_ids)
        )

    learns_after = isinstance(weighting, FeedbackWeighting)
    return WeightsOnly(
        init,
        weights,
        observe if learns_after else None,
        needs_losses=weighting.needs_losses,
    )


def raw_key(key: PRNGKey | Array | int) -> tuple[Array, Any]:
    """Raw bits, which any checkpoint can hold, and the generator they are for.

    Example:
      >>> data, impl = raw_key(jax.random.key(7))
      >>> bool((data == raw_key(7)[0]).all())
      True
    """
    if not hasattr(key, "dtype") or (jnp.ndim(key) == 0 and not _is_typed(key)):
        key = jax.random.key(key)
    if not _is_typed(key):
        key = jax.random.wrap_key_data(jnp.asarray(key))
    return jax.random.key_data(key), jax.random.key_impl(key)


def _is_typed(key: Any) -> bool:
    return jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def losses_and_ids(
    weighting: Weighting, num_tasks: int, extra: dict[str, Any]
) -> tuple[TaskLosses, TaskIds]:
    """`task_losses=` and `task_ids=` of an update, or what stands for them.

    Raises:
      ValueError: if `task_losses` are needed and missing.
    """
    losses, ids = extra.get("task_losses"), extra.get("task_ids")
    if losses is None and weighting.needs_losses:
        raise ValueError(
            f"{type(weighting).__name__} needs the losses of the tasks: call "
            f"update(task_grads, state, params, task_losses=losses) with shape "
            f"({num_tasks},)."
        )
    losses = jnp.full((num_tasks,), jnp.nan) if losses is None else losses
    ids = jnp.arange(num_tasks) if ids is None else ids
    for name, value in (("task_losses", losses), ("task_ids", ids)):
        if jnp.shape(value) != (num_tasks,):
            raise ValueError(
                f"{name} must have shape ({num_tasks},), one a task, got "
                f"{jnp.shape(value)}."
            )
    return losses, ids


def _is_global(granularity: Any) -> bool:
    return isinstance(granularity, str) and granularity == "global"


def _groups(
    tree: PyTree, granularity: Any, mask: Any
) -> tuple[list[list[int]], list[int]]:
    """Indices of leaves by Gram matrix, and of the leaves that stay out."""
    structure = jax.tree.structure(tree)
    everywhere = lambda value: [value] * structure.num_leaves
    shared = jax.tree.leaves(shared_leaves(tree, mask))
    if _is_global(granularity):
        labels: list[Hashable] = everywhere("global")
    elif isinstance(granularity, str):
        labels = list(range(structure.num_leaves))
    else:
        labels = _like(tree, granularity, "granularity")
    groups: dict[Hashable, list[int]] = {}
    for i, label in enumerate(labels):
        if shared[i]:
            groups.setdefault(label, []).append(i)
    return list(groups.values()), [i for i in range(len(labels)) if not shared[i]]


def shared_leaves(tree: PyTree, mask: Mask) -> PyTree:
    """A mask as a pytree of bools like `tree`.

    Raises:
      ValueError: if it does not have the structure of the tree, or is False everywhere.

    Example:
      >>> shared_leaves({"body": 0.0, "head": 0.0}, {"body": True, "head": False})
      {'body': True, 'head': False}
    """
    if mask is None:
        return jax.tree.map(lambda _: True, tree)
    shared = _like(tree, mask, "mask")
    if not any(shared):
        raise ValueError("mask leaves no parameter shared: nothing is left to weigh.")
    return jax.tree.unflatten(jax.tree.structure(tree), shared)


def _like(tree: PyTree, given: Any, name: str) -> list[Any]:
    """The leaves of `given` (or of what it makes of the tree), one a leaf of `tree`."""
    made = given(tree) if callable(given) else given
    if jax.tree.structure(made) != jax.tree.structure(tree):
        raise ValueError(
            f"{name} must be a pytree like the parameters, "
            f"{jax.tree.structure(tree)}, got {jax.tree.structure(made)}."
        )
    return jax.tree.leaves(made)
