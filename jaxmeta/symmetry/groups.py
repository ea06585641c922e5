"""The symmetry matrices of known groups: the right answers.

A group is an array `[m, n, n]` of orthogonal matrices, all its elements, the identity
first where this module builds it. `vec` is row-major, `W` is `[out, in]` and acts as
`y = W x`. All of it runs on the host in NumPy.

References:
  Zhou, Knowles & Finn, "Meta-Learning Symmetries by Reparameterization", ICLR 2021
  (arXiv:2007.02933): section 4 and its Proposition 1.
"""

import itertools
import math

import numpy as np
from jax.typing import ArrayLike

from jaxmeta.core.types import Float

_TOLERANCE = 1e-5
"""Entries of group matrices are small numbers, given in single precision or better."""


def cyclic_shifts(n: int) -> Float[np.ndarray, "n n n"]:
    """The cyclic group `C_n` as the circular shifts of a signal.

    `(pi(g_i) x)[j] = x[(j - i) mod n]`.

    Args:
      n: length of the signal and order of the group, at least 1.

    Returns:
      `[n, n, n]` permutation matrices; the i-th shifts by i.

    Raises:
      ValueError: if `n` is below 1.

    Example:
      >>> (cyclic_shifts(3)[1] @ [10.0, 20.0, 30.0]).tolist()
      [30.0, 10.0, 20.0]
    """
    _require_at_least("n", n, 1)
    return np.stack([np.roll(np.eye(n), i, axis=0) for i in range(n)])


def permutations(n: int) -> Float[np.ndarray, "m n n"]:
    """The symmetric group `S_n` as all permutations of `n` coordinates.

    `permutations(2)` is the swap, the example by which the paper explains `U`.

    Args:
      n: number of coordinates, in `1..7`: there are `n!` permutations.

    Returns:
      `[n!, n, n]` permutation matrices, in lexicographic order.

    Raises:
      ValueError: if `n` is out of range.

    Example:
      >>> permutations(2).tolist()
      [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]
    """
    _require_at_least("n", n, 1)
    if n > 7:
        raise ValueError(f"n must be at most 7, got {n}: S_n has {math.factorial(n)}.")
    return np.stack([np.eye(n)[list(p)] for p in itertools.permutations(range(n))])


def dihedral_4(size: int) -> Float[np.ndarray, "8 pixels pixels"]:
    """The dihedral group `D_4`: quarter turns and reflections of a square image.

    Element `4 f + r` reflects left to right if `f = 1`, then turns by `r` quarters
    counter-clockwise.

    Args:
      size: height and width in pixels, at least 2 (one pixel cannot tell the eight
        elements apart).

    Returns:
      `[8, size^2, size^2]` permutation matrices of images flattened row by row.

    Raises:
      ValueError: if `size` is below 2.

    Example:
      >>> quarter_turn = dihedral_4(2)[1]
      >>> (quarter_turn @ [1.0, 2.0, 3.0, 4.0]).reshape(2, 2).tolist()
      [[2.0, 4.0], [1.0, 3.0]]
    """
    _require_at_least("size", size, 2)
    pixels = np.arange(size**2).reshape(size, size)
    images = [np.rot90(p, r) for p in (pixels, pixels[:, ::-1]) for r in range(4)]
    return np.stack([np.eye(size**2)[image.reshape(-1)] for image in images])


def regular_representation(group: ArrayLike) -> Float[np.ndarray, "m m m"]:
    """How a group permutes functions of its own elements.

    `(L(h) y)[g] = y[h^-1 g]`: left multiplication, which is what happens to the
    outputs of a group convolution when `h` acts on its input.

    Args:
      group: `[m, n, n]` orthogonal matrices, all different.

    Returns:
      `[m, m, m]` permutation matrices, in the order of the group.

    Raises:
      ValueError: if the matrices are not a group of `m` different elements.

    References:
      Proposition 1 of the MSR paper, whose layers have one output per element.

    Example:
      >>> import numpy as np
      >>> group = cyclic_shifts(4)
      >>> bool(np.all(regular_representation(group) == group))
      True
    """
    group = _as_group(group)
    # [h, g, :]: the matrix of h^-1 g, to be found among the elements.
    products = np.einsum("hji,gjk->hgik", group, group)
    found = np.array(
        [np.abs(products - g).max(axis=(-2, -1)) < _TOLERANCE for g in group]
    )
    if not np.all(found.sum(axis=0) == 1):
        raise ValueError(
            "group must hold each element of a group once: the product of two of its "
            f"{len(group)} matrices is missing, or there twice."
        )
    return np.moveaxis(found, 0, -1).astype(group.dtype)


def sharing_matrix(group: ArrayLike) -> Float[np.ndarray, "m_n n"]:
    """The symmetry matrix of a finite group (Proposition 1).

    `U^G` stacks the matrices `pi(g_1), ..., pi(g_m)`. For every `v`, `vec(W) = U^G v`
    then is a `W` whose rows are the transformed filters `pi(g_i) v`, so that `W x` is
    the group convolution of `v` and `x`, and `W pi(h) x = L(h) W x` with `L` the
    `regular_representation`.

    Args:
      group: `[m, n, n]` orthogonal matrices.

    Returns:
      `U^G`, `[m * n, n]`.

    Raises:
      ValueError: if `group` is not `[m, n, n]` or a matrix is not orthogonal.

    References:
      Section 4, Proposition 1 and figure 2 of the MSR paper.

    Example:
      >>> sharing_matrix(permutations(2)).tolist()
      [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]
    """
    group = _as_group(group)
    return group.reshape(-1, group.shape[-1])


def equivariant_sharing(
    group_in: ArrayLike, group_out: ArrayLike
) -> Float[np.ndarray, "out_in k"]:
    """The symmetry matrix of all linear maps between two actions of one group.

    Its columns are an orthonormal basis of `{vec(W): W pi_in(g) = pi_out(g) W for all
    g}`, the range of the averaging projector `1/m sum_g pi_out(g) x pi_in(g)`
    (Kronecker product). It generalises `sharing_matrix`, to whose column space it is
    equal when `group_out` is the regular representation, to layers whose outputs are
    not numbered by the elements of the group: images to images, say.

    Args:
      group_in: `[m, in, in]` orthogonal matrices.
      group_out: `[m, out, out]` orthogonal matrices, in the same order.

    Returns:
      `[out * in, k]`, `k` the dimension of the space (0 if only `W = 0` commutes).

    Raises:
      ValueError: if an argument is not a stack of orthogonal matrices, their numbers
        differ, or they are not two actions of one group.

    Example:
      A layer that commutes with all permutations has two parameters, one for the
      diagonal and one for the rest:

      >>> equivariant_sharing(permutations(3), permutations(3)).shape
      (9, 2)
    """
    group_in, group_out = _as_group(group_in), _as_group(group_out)
    if len(group_in) != len(group_out):
        raise ValueError(
            "group_in and group_out must act for the same elements, got "
            f"{len(group_in)} and {len(group_out)} matrices."
        )
    size = group_out.shape[-1] * group_in.shape[-1]
    projector = np.einsum("gab,gij->aibj", group_out, group_in).reshape(size, size)
    eigenvalues, vectors = np.linalg.eigh((projector + projector.T) / 2)
    eigenvalues = eigenvalues / len(group_in)
    # A projector has eigenvalues 0 and 1 only; anything else is not a group average.
    if np.abs(eigenvalues - np.round(eigenvalues)).max() > _TOLERANCE:
        raise ValueError("group_in and group_out must be two actions of one group.")
    return vectors[:, eigenvalues > 0.5]


def translation_sharing(
    input_size: int, kernel_size: int, mixing: ArrayLike | None = None
) -> Float[np.ndarray, "out_in k"]:
    """The symmetry matrix of a 1-D convolution without padding, or of its relaxations.

    Without `mixing`: `W[p, p + t] = v[t]`, the dense matrix of a convolution. With it,
    position p has its own kernel, a mixture of `rank` shared ones:
    `W[p, p + t] = sum_r mixing[p, r] v[r * kernel_size + t]`. That is the ground truth
    of the synthetic problems of rank 1, 2 and 5; rank 1 with equal weights is the
    convolution, rank `out` any locally connected layer.

    Args:
      input_size: length `in` of the signal.
      kernel_size: taps, in `1..input_size`.
      mixing: `[out, rank]` weights with `out = input_size - kernel_size + 1`; None
        stands for one kernel at all positions.

    Returns:
      `[out * in, rank * kernel_size]`.

    Raises:
      ValueError: if `kernel_size` is out of range or `mixing` has another shape.

    References:
      The synthetic problems of the MSR paper: layers with partial symmetry.

    Example:
      >>> import numpy as np
      >>> u = translation_sharing(4, 2)
      >>> (u @ np.array([-1.0, 1.0])).reshape(3, 4).tolist()
      [[-1.0, 1.0, 0.0, 0.0], [0.0, -1.0, 1.0, 0.0], [0.0, 0.0, -1.0, 1.0]]
    """
    if not 1 <= kernel_size <= input_size:
        raise ValueError(
            f"kernel_size must be in 1..{input_size} (input_size), got {kernel_size}."
        )
    num_out = input_size - kernel_size + 1
    mixing = np.ones((num_out, 1)) if mixing is None else np.asarray(mixing, np.float64)
    if mixing.ndim != 2 or len(mixing) != num_out:
        raise ValueError(f"mixing must be [{num_out}, rank], got shape {mixing.shape}.")
    # windows[p, i, t] = 1 where tap t of the window at p looks at input i.
    windows = np.stack(
        [np.eye(input_size)[:, p : p + kernel_size] for p in range(num_out)]
    )
    return np.einsum("pr,pit->pirt", mixing, windows).reshape(num_out * input_size, -1)


def _require_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")


def _as_group(group: ArrayLike) -> np.ndarray:
    matrices = np.asarray(group, np.float64)
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2]:
        raise ValueError(f"a group must be [m, n, n], got shape {matrices.shape}.")
    gram = np.einsum("gji,gjk->gik", matrices, matrices)
    if np.abs(gram - np.eye(matrices.shape[-1])).max() > _TOLERANCE:
        raise ValueError("a group's matrices must be orthogonal.")
    return matrices
