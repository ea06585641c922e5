"""What was learned: weights, spans and equivariance.

A layer with weights `vec(W) = U v` can only reach weights in the column space of `U`.
That space is the symmetry: two matrices with the same columns up to a change of basis
share parameters in the same way. `vec` is row-major, `W` is `[out, in]` and acts as
`y = W x`.

References:
  Zhou, Knowles & Finn, "Meta-Learning Symmetries by Reparameterization", ICLR 2021
  (arXiv:2007.02933): section 4.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.typing import ArrayLike

from jaxmeta.core.types import Array, Float, Scalar


def weight_matrix(
    symmetry_matrix: ArrayLike, v: ArrayLike, num_out: int, num_in: int
) -> Float[Array, "out in"]:
    """The weights that a symmetry matrix makes of filter parameters.

    `vec(W) = U v`, with `vec` row-major.

    Args:
      symmetry_matrix: `U`, `[num_out * num_in, k]`.
      v: `[k]` filter parameters.
      num_out: rows of `W`, at least 1.
      num_in: columns of `W`, at least 1.

    Returns:
      `W`, `[num_out, num_in]`.

    Raises:
      ValueError: if the shapes do not fit each other.

    References:
      Section 4 of the MSR paper.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxmeta.symmetry.groups import permutations, sharing_matrix
      >>> u = sharing_matrix(permutations(2))
      >>> weight_matrix(u, jnp.array([1.0, 2.0]), 2, 2).tolist()
      [[1.0, 2.0], [2.0, 1.0]]
    """
    u, v = jnp.asarray(symmetry_matrix), jnp.asarray(v)
    if u.shape != (num_out * num_in, *v.shape) or v.ndim != 1:
        raise ValueError(
            f"U must be [{num_out} * {num_in}, k] and v [k], got shapes {u.shape} and "
            f"{v.shape}."
        )
    return (u @ v).reshape(num_out, num_in)


def principal_angles(a: ArrayLike, b: ArrayLike) -> Float[np.ndarray, " angle"]:
    """Angles between the column spaces of two matrices.

    Zero angles are directions that both spaces share, right angles directions of one
    that the other has no part in.

    Args:
      a: `[n, p]`.
      b: `[n, q]`.

    Returns:
      `[min(rank a, rank b)]` angles in radians, ascending, in `[0, pi/2]`.

    Raises:
      ValueError: if the matrices do not have the same number of rows.

    References:
      Björck & Golub, "Numerical methods for computing angles between linear
      subspaces", Math. Comp. 27 (1973); computed by `scipy.linalg.subspace_angles`.

    Example:
      >>> import numpy as np
      >>> plane, line = np.eye(3)[:, :2], np.array([[1.0], [0.0], [1.0]])
      >>> float(np.rad2deg(principal_angles(plane, line))[0].round(6))
      45.0
    """
    a, b = _as_columns(a, b)
    return scipy.linalg.subspace_angles(a, b)[::-1]


def explained_sharing(learned: ArrayLike, true: ArrayLike) -> float:
    """How much of a known symmetry a learned matrix can express.

    `1/q sum_i cos^2(angle_i)` over the principal angles of the two column spaces, `q`
    the dimension of the true one: the mean squared length of the projections of its
    unit vectors onto the learned space. Dimensions that the learned space lacks count
    as right angles. A random space of dimension k in n dimensions scores about k/n.

    The score asks whether the symmetry is *contained*: extra learned directions cost
    nothing, and a square invertible matrix scores 1. Compare matrices of the same
    inner dimension.

    Args:
      learned: `[n, k]`, for instance the `U` of an `MSRDense`.
      true: `[n, q]`, for instance a `sharing_matrix`; not all zero.

    Returns:
      A number in `[0, 1]`; 1 if and only if the true space lies in the learned one.

    Raises:
      ValueError: if the numbers of rows differ, or the true matrix is zero.

    Example:
      >>> import numpy as np
      >>> from jaxmeta.symmetry.groups import translation_sharing
      >>> true = translation_sharing(5, 2)
      >>> round(explained_sharing(true @ np.array([[1.0, 2.0], [3.0, 4.0]]), true), 6)
      1.0
      >>> round(explained_sharing(true[:, :1], true), 6)
      0.5
    """
    learned, true = _as_columns(learned, true)
    learned_basis, true_basis = scipy.linalg.orth(learned), scipy.linalg.orth(true)
    dimension = true_basis.shape[1]
    if dimension == 0:
        raise ValueError("the true sharing matrix must not be zero.")
    share = np.sum((learned_basis.T @ true_basis) ** 2) / dimension
    return float(np.clip(share, 0.0, 1.0))


def equivariance_error(
    apply_fn: Callable[[Array], Array],
    transform_in: Callable[[Array], Array],
    transform_out: Callable[[Array], Array],
    x: ArrayLike,
    *,
    border: int = 0,
    axes: Sequence[int] = (-1,),
) -> Scalar:
    """How far a function is from commuting with a transformation.

    `|f(T x) - T' f(x)| / |f(x)|` in the Euclidean norm over all entries, both norms
    over the same region. Where the transformation is exact only in the interior, as a
    translation is, `border` leaves the edge out.

    Args:
      apply_fn: `f`, the function.
      transform_in: `T`, acting on inputs.
      transform_out: `T'`, acting on outputs.
      x: inputs of any shape.
      border: entries ignored at both ends of each of `axes` of the output, at least 0
        and less than half of the axis.
      axes: the axes of the output that have a border.

    Returns:
      A scalar, 0 for an equivariant function, NaN where `f(x)` vanishes everywhere.

    Raises:
      ValueError: if `border` is negative or leaves nothing.

    References:
      The MSR paper, on equivariance.

    Example:
      A difference commutes with shifts, but for the sample that wraps around:

      >>> import functools, jax.numpy as jnp
      >>> shift = functools.partial(jnp.roll, shift=1, axis=-1)
      >>> x = jnp.array([[1.0, 4.0, 9.0, 16.0, 25.0]])
      >>> difference = lambda x: x[:, 1:] - x[:, :-1]
      >>> float(equivariance_error(difference, shift, shift, x)) > 0.1
      True
      >>> float(equivariance_error(difference, shift, shift, x, border=1))
      0.0
    """
    if border < 0:
        raise ValueError(f"border must be at least 0, got {border}.")

    def interior(y: Array) -> Array:
        for axis in axes:
            size = y.shape[axis]
            if 2 * border >= size:
                raise ValueError(
                    f"border must be less than half of the output's axis {axis} of "
                    f"size {size}, got {border}."
                )
            y = jnp.moveaxis(jnp.moveaxis(y, axis, 0)[border : size - border], 0, axis)
        return y

    x = jnp.asarray(x)
    y = apply_fn(x)
    difference = interior(apply_fn(transform_in(x)) - transform_out(y))
    return jnp.linalg.norm(difference) / jnp.linalg.norm(interior(y))


def _as_columns(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise ValueError(
            "two matrices with the same number of rows are needed, got shapes "
            f"{a.shape} and {b.shape}."
        )
    return a, b
