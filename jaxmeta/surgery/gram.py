"""The T x T Gram matrix of the tasks' gradients, and the way back from it.

Every method in this room replaces the gradients `g_1 .. g_T` by a combination
`sum_t w_t g_t` whose weights depend on the inner products `G_ij = <g_i, g_j>` alone.
So the gradients are read twice, once for `G` and once for the sum, and all the rest is
arithmetic on a matrix as small as the number of tasks.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxmeta.core.aggregate import accumulator
from jaxmeta.core.types import Array, Float, PyTree

Gram = Float[Array, "task task"]
"""`[task, task]` inner products of the tasks' gradients."""

COLUMNS = 8192
"""Columns of a large leaf that are multiplied at a time on a lone CPU."""


def gram_matrix(task_grads: PyTree, *, accumulator_dtype: Any = None) -> Gram:
    """Inner products of the tasks' gradients, `G_ij = <g_i, g_j>`.

    The sum of one Gram matrix a leaf; the leaves are never joined. Products are taken
    at the highest precision. Norms below 1e-19 or above 1e19 do not fit in float32.

    Args:
      task_grads: a pytree, every leaf `[task, *p]`.
      accumulator_dtype: of the sums; at least float32 when None.

    Returns:
      `[task, task]`, in the accumulator type.

    Example:
      >>> task_grads = {"a": jnp.array([[1.0], [2.0]]), "b": jnp.array([0.0, 1.0])}
      >>> gram_matrix(task_grads).tolist()
      [[1.0, 2.0], [2.0, 5.0]]
    """
    leaves = jax.tree.leaves(task_grads)
    dtype = accumulator(jnp.result_type(*leaves), accumulator_dtype)
    columns = COLUMNS if _alone_on_cpu() else None
    return sum(leaf_gram(leaf, dtype, columns) for leaf in leaves)  # pyright: ignore[reportReturnType]


def leaf_gram(leaf: Array, dtype: Any, columns: int | None) -> Gram:
    """The Gram matrix of one leaf `[task, *p]`, `columns` at a time if given."""
    if columns is None:
        return _products(leaf, dtype)
    num_tasks, size = leaf.shape[0], leaf[0].size
    flat = leaf.reshape(num_tasks, size)
    if size <= columns:
        return _products(flat, dtype)
    whole = size - size % columns

    def add(i, total):
        block = jax.lax.dynamic_slice_in_dim(flat, i * columns, columns, axis=1)
        return total + _products(block, dtype)

    total = jnp.zeros((num_tasks, num_tasks), dtype)
    total = jax.lax.fori_loop(0, whole // columns, add, total)
    return total + _products(flat[:, whole:], dtype)


def _products(rows: Array, dtype: Any) -> Gram:
    axes = tuple(range(1, rows.ndim))
    return jax.lax.dot_general(
        rows,
        rows,
        ((axes, axes), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=dtype,
        out_sharding=P() if _is_explicit(rows) else None,
    )


def _is_explicit(rows: Array) -> bool:
    """Whether shardings are part of types, so that a product's must be said."""
    mesh = jax.typeof(rows).sharding.mesh
    return AxisType.Explicit in mesh.axis_types


def _alone_on_cpu() -> bool:
    # XLA:CPU multiplies long rows several times faster in blocks that fit the cache.
    # A loop over columns would gather a leaf that is sharded over several devices.
    return jax.default_backend() == "cpu" and jax.device_count() == 1


def live_tasks(gram: Gram) -> Float[Array, " task"]:
    """`[task]` 1 for a task with a gradient, 0 for one that is absent.

    Example:
      >>> live_tasks(jnp.array([[4.0, 0.0], [0.0, 0.0]])).tolist()
      [1.0, 0.0]
    """
    return (jnp.diagonal(gram) > 0).astype(gram.dtype)


def safe_divide(a: Array, b: Array) -> Array:
    """`a / b`, and 0 where b is 0.

    Example:
      >>> safe_divide(jnp.array([1.0, 1.0]), jnp.array([2.0, 0.0])).tolist()
      [0.5, 0.0]
    """
    return jnp.where(b == 0, 0.0, a / jnp.where(b == 0, 1.0, b))


def normalized(gram: Gram) -> tuple[Gram, Float[Array, ""]]:
    """The Gram matrix over the mean squared norm of the live tasks, and that mean.

    Example:
      >>> normalized(jnp.diag(jnp.array([8.0, 0.0])))[0].tolist()
      [[1.0, 0.0], [0.0, 0.0]]
    """
    scale = safe_divide(jnp.trace(gram), live_tasks(gram).sum())
    return safe_divide(gram, scale), scale


def unit_length(gram: Gram) -> tuple[Gram, Float[Array, " task"]]:
    """The Gram matrix of the gradients scaled to length 1, and their lengths.

    What is solved for gradients of length 1 keeps all digits however much the lengths
    differ. Weights `u` of unit gradients are weights `u / lengths` of the gradients.
    Absent tasks have rows of zeros and length 0.

    Example:
      >>> unit, lengths = unit_length(jnp.diag(jnp.array([4.0, 0.0])))
      >>> unit.tolist(), lengths.tolist()
      ([[1.0, 0.0], [0.0, 0.0]], [2.0, 0.0])
    """
    lengths = jnp.sqrt(jnp.diagonal(gram))
    return safe_divide(safe_divide(gram, lengths[:, None]), lengths[None, :]), lengths
