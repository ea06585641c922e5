"""Why surgery helps: the theory's own quantities, free from the Gram matrix.

Yu, Kumar, Gupta, Levine, Hausman, Finn, Gradient Surgery for Multi-Task Learning,
NeurIPS 2020 (arXiv 2001.06782): definitions 1, 2 and 5, theorem 2, section 5.3.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core.aggregate import accumulator
from jaxmeta.core.metrics import Mean, Metrics
from jaxmeta.core.outer_step import OuterStep
from jaxmeta.core.types import Array, Float, Scalar, TaskWeights
from jaxmeta.surgery.aggregate import Mask, shared_leaves
from jaxmeta.surgery.gram import Gram, gram_matrix, live_tasks, safe_divide
from jaxmeta.surgery.theory import (
    cosines,
    curvature,
    curvature_bounding_measure,
    magnitude_similarity,
    theorem_2,
)


class Diagnosis(NamedTuple):
    """What `diagnose` finds. Means and shares are over pairs of tasks that are there.

    Attributes:
      cosines: `[task, task]`; two tasks conflict where it is negative.
      conflicting: `[]` share of pairs that conflict, in [0, 1].
      similarity: `[]` mean magnitude similarity Phi, in [0, 1].
      curvature_bound: `[]` mean curvature bounding measure xi, >= 0.
      norms: `[task]` lengths of the gradients.
      alignment: `[]` cosine of the update and the sum of gradients.
      predicted_change: `[task]` first-order change of every loss, `-step_size (G w)_t`;
        a task with a positive one is hurt.
      hurt: `[]` share of tasks that the update still conflicts with, in [0, 1].
    """

    cosines: Float[Array, "task task"]
    conflicting: Scalar
    similarity: Scalar
    curvature_bound: Scalar
    norms: Float[Array, " task"]
    alignment: Scalar
    predicted_change: Float[Array, " task"]
    hurt: Scalar


def diagnose(gram: Gram, weights: TaskWeights, step_size: float | Scalar) -> Diagnosis:
    """Conflict before surgery, and what the weighted update does to every task.

    Args:
      gram: `[task, task]` inner products of the gradients.
      weights: `[task]`; the update is `sum_t w_t g_t`.
      step_size: the learning rate, >= 0.

    Raises:
      ValueError: for shapes that do not fit, or a negative step size.

    Example:
      >>> gram = jnp.array([[1.0, -0.5], [-0.5, 1.0]])
      >>> found = diagnose(gram, jnp.array([1.5, 1.5]), 0.1)
      >>> float(found.conflicting), found.predicted_change.round(3).tolist()[0] < 0
      (1.0, True)
    """
    if gram.shape != (*weights.shape, *weights.shape):
        raise ValueError(
            f"gram must be [task, task] and weights [task], got {gram.shape} and "
            f"{weights.shape}."
        )
    if isinstance(step_size, float | int) and step_size < 0:
        raise ValueError(f"step_size must be >= 0, got {step_size}.")
    live, along = live_tasks(gram), gram @ weights
    # Where the gradients cancel, rounding alone may make their sum too short.
    alignment = safe_divide(along.sum(), _length(weights @ along, gram.sum()))
    means = {name: safe_divide(*mean) for name, mean in _over_pairs(gram).items()}
    return Diagnosis(
        **means,
        cosines=cosines(gram),
        norms=jnp.sqrt(jnp.diagonal(gram)),
        alignment=jnp.clip(alignment, -1.0, 1.0),
        predicted_change=-step_size * along,
        hurt=safe_divide(jnp.sum(live * (along < 0)), live.sum()),
    )


def step_diagnostics(step: OuterStep, *, mask: Mask = None) -> Metrics:
    """`diagnose` for a step of the harness, with curvature and theorem 2 beside it.

    Give it to `make_train_step` or an `Experiment` as `step_metrics=`; a run on the
    command line has it with `--diagnostics`. The change of the parameters is the one
    that the whole optax chain made, momentum and all.

    Theorem 2 is about two tasks, a gradient step and constants that nobody knows. As
    in section 5.3 of the paper they are measured: for tasks i and j the curvature `l`
    is that of `L_i + L_j` along the step taken (not along `g_i + g_j`), `L` is taken to
    be `|l|`, which is the least it can be, and the step size is
    `|change| / |g_i + g_j|`. So (b), (c) and all three are estimates. In float32 a
    curvature is the difference of losses, good to about `1e-7 L / |change|^2`: steps
    shorter than 1e-3 tell nothing of it.

    Args:
      step: what the harness tells of it.
      mask: as in `aggregate_tasks`; conflict, `alignment` and the step size of the
        theorem are those of the shared parameters, what happens to losses that of all.

    Returns:
      Under `diagnostics/`, over pairs of tasks: `conflicting`, `similarity` (Phi),
      `curvature_bound` (xi, where it is finite), `theorem_2a`, `theorem_2b`,
      `theorem_2c` and `theorem_2` (all three), and `cosines` `[task, task]`. Over
      tasks: `norms` and `predicted_change` `[task]`, `hurt`. Of the step: `alignment`
      with the sum of gradients, `curvature` of the summed loss along it, over the
      squared length of the step. Arrays are in the order of the batch: where slot i is
      always task i, as in sources with a list of tasks, of the tasks.

    Example:
      >>> import optax
      >>> from jaxmeta import init_state, make_train_step
      >>> from jaxmeta.core.testing import smoke_learner, smoke_source
      >>> from jaxmeta.surgery import pcgrad
      >>> learner, source, key = smoke_learner(), smoke_source(), jax.random.key(0)
      >>> tx = optax.chain(pcgrad(0), optax.sgd(0.01))
      >>> state = init_state(learner, tx, key=key, example=source.example)
      >>> step = make_train_step(learner, tx, step_metrics=step_diagnostics)
      >>> tasks = source.sample(key, jnp.arange(4), split="train")
      >>> _, metrics = jax.jit(step)(state, tasks, key)
      >>> 0 <= metrics["diagnostics/conflicting"].compute() <= 1
      Array(True, dtype=bool)
    """
    is_shared = jax.tree.leaves(shared_leaves(step.change, mask))
    grads, change = jax.tree.leaves(step.task_grads), jax.tree.leaves(step.change)
    pick = lambda leaves: [x for x, ours in zip(leaves, is_shared, strict=True) if ours]
    gram = gram_matrix(pick(grads))
    live, pairs = live_tasks(gram), _pairs(gram)
    slopes, shared_slopes = _along(grads, change), _along(pick(grads), pick(change))
    moved, shared_moved = _square(change), _square(pick(change))
    bends = safe_divide(curvature(step.losses, step.losses_after, slopes), moved)
    lower = bends[:, None] + bends[None, :]
    measured = pairs * ((moved > 0) & jnp.isfinite(lower))
    squares = jnp.diagonal(gram)
    together = jnp.maximum(squares[:, None] + squares[None, :] + 2.0 * gram, 0.0)
    found = theorem_2(
        gram,
        lipschitz=jnp.abs(lower),
        lower=lower,
        step_size=jnp.sqrt(jnp.where(together > 0, shared_moved / together, jnp.inf)),
    )
    add_up = lambda grad: jnp.sum(grad.astype(accumulator(grad.dtype)), axis=0)
    total = _square([add_up(grad) for grad in pick(grads)])
    alignment = safe_divide(-shared_slopes.sum(), _length(shared_moved, total))
    bend = jnp.sum(bends)
    metrics = {
        **_over_pairs(gram),
        "theorem_2a": Mean.of(found.conflict, pairs),
        "theorem_2b": Mean.of(found.curved, measured),
        "theorem_2c": Mean.of(found.long_step, measured),
        "theorem_2": Mean.of(jnp.stack(found).all(axis=0), measured),
        "cosines": Mean(cosines(gram), live[:, None] * live[None, :]),
        "norms": Mean(jnp.sqrt(squares), live),
        "predicted_change": Mean(slopes * live, live),
        "hurt": Mean.of(slopes > 0, live),
        "alignment": Mean.of(alignment),
        "curvature": Mean.of(bend, jnp.isfinite(bend) & (moved > 0)),
    }
    return {f"diagnostics/{name}": mean for name, mean in metrics.items()}


def diagnostics_beside(aggregator: Callable[..., Any]) -> Callable[..., Metrics]:
    """`step_diagnostics` without the heads that an aggregator leaves out.

    Args:
      aggregator: of an `Optimizer`: a maker, or a `functools.partial` of one that may
        have been given a `mask`.

    Example:
      >>> from jaxmeta.surgery import pcgrad
      >>> diagnostics_beside(pcgrad) is step_diagnostics
      True
      >>> heads = {"body": True, "heads": False}
      >>> diagnostics_beside(functools.partial(pcgrad, mask=heads)).keywords["mask"]
      {'body': True, 'heads': False}
    """
    mask = getattr(aggregator, "keywords", {}).get("mask")
    if mask is None:
        return step_diagnostics
    return functools.partial(step_diagnostics, mask=mask)


def _pairs(gram: Gram) -> Gram:
    """1 above the diagonal where both tasks are there, else 0."""
    live = live_tasks(gram)
    return jnp.triu(live[:, None] * live[None, :], k=1)


def _over_pairs(gram: Gram) -> dict[str, Mean]:
    pairs, bound = _pairs(gram), curvature_bounding_measure(gram)
    return {
        "conflicting": Mean.of(cosines(gram) < 0, pairs),
        "similarity": Mean.of(magnitude_similarity(gram), pairs),
        "curvature_bound": Mean.of(bound, pairs * jnp.isfinite(bound)),
    }


def _along(task_grads: list[Array], change: list[Array]) -> Float[Array, " task"]:
    """`[task]` products of every task's gradient with the change."""
    products = (
        jax.lax.dot_general(
            grad,
            leaf,
            ((tuple(range(1, grad.ndim)), tuple(range(leaf.ndim))), ((), ())),
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=accumulator(leaf.dtype),
        )
        for grad, leaf in zip(task_grads, change, strict=True)
    )
    return sum(products, start=jnp.zeros(len(task_grads[0])))


def _square(leaves: list[Array]) -> Scalar:
    """Squared length of a list of arrays as one vector."""
    squares = (jnp.sum(jnp.square(x.astype(accumulator(x.dtype)))) for x in leaves)
    return sum(squares, start=jnp.zeros(()))


def _length(a: Array, b: Array) -> Array:
    """`sqrt(a b)` of two squares that rounding may have made negative."""
    return jnp.sqrt(jnp.maximum(a, 0.0) * jnp.maximum(b, 0.0))
