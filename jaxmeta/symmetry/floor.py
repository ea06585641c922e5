"""How well ONE gradient step from ONE support example can do on synthetic tasks.

On the synthetic problems a task is linear in its parameters, `y = sum_j w_j phi_j(x)`
with `w ~ N(0, S)`, S diagonal. The gradient of the support loss at w = 0 is (up to a
factor) `g = G w`, where G is the Gram matrix of the features on the support example.
G is random and a step cannot undo it: it reads the gradient out with one matrix M for
all tasks, whether that is called a learning rate, a preconditioner or a symmetry. The
query error is `(w - M g)' Z (w - M g)` with `Z = E[G]`, hence the best M and its error:

    M     = S Z (E[G S G])^-1
    floor = min_M E[(w - M g)' Z (w - M g)] = tr(Z S) - tr(Z M Z S)

A start other than w = 0 does not help, because w has mean zero. The fourth moments in
`E[G S G]` follow from Isserlis' theorem: two windows of white noise are dependent only
where they overlap, so the sum is over the few displacements with an overlap.

The floor is that of a model which has the symmetry built in: it sees the gradient with
respect to the task's own parameters. More inner steps or more support go below it. So
may a free linear read-out of the gradient of *all* the weights, whose entries outside
the symmetric subspace are correlated with the noise inside: about .15 in place of .166
for a dense layer at rank 1, and .0024 and .0019 in place of .0026 and .0022 for
unshared 3x3 kernels under rotation without and with reflection.

These figures explain those of Zhou, Knowles and Finn, "Meta-Learning Symmetries by
Reparameterization", ICLR 2021, section 5; the paper does not have them.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxmeta.data.rotation import RotationSource, steerable_basis
from jaxmeta.data.translation import TranslationSource


def _best_error(
    mean: NDArray[np.float64],
    second: NDArray[np.float64],
    variance: NDArray[np.float64],
) -> float:
    """`tr(Z S - Z S Z E[GSG]^-1 Z S)` from Z = E[G], `E[G S G]` and the diagonal of S.

    The pseudo-inverse covers a redundant basis, whose extra directions carry nothing.
    """
    prior = mean * variance  # Z S
    explained = prior @ mean @ np.linalg.pinv(second, hermitian=True) @ prior
    return float(np.trace(prior) - np.trace(explained))


def translation_floor(mixing: ArrayLike, kernel_size: int = 3) -> float:
    """The one-step floor of `TranslationSource`, exact.

    The parameters are the basis filters b, `[rank, kernel_size]`, with `b ~ N(0, 1)`.
    With C the mixing matrix, P positions and `R_d[a, b] = [a == b + d]`,

    ```text
    Z = C'C / P (x) I
    E[G G] = Z Z
      + P^-2 sum_{d, p} (C_p . C_{p+d}) C_p C_{p+d}' (x) (R_d R_d + tr(R_d) R_d)
    ```

    At rank 1 this is close to `3 v / (1 + v)` with `v = 4 / P`, which leaves out the
    overlap of neighbours.

    Args:
      mixing: `[position, rank]` the mixing matrix C.
      kernel_size: taps of a filter, >= 1.

    Returns:
      The smallest expected squared error per output.

    Raises:
      ValueError: if `mixing` is not a matrix or kernel_size < 1.

    Example:
      >>> round(translation_floor(np.ones((68, 1))), 4)
      0.1663

    References:
      Isserlis, "On a formula for the product-moment coefficient of any order of a
      normal frequency distribution", Biometrika 1918.
    """
    mixing = np.asarray(mixing, np.float64)
    if mixing.ndim != 2 or not mixing.size:
        raise ValueError(f"mixing must be [position, rank], got shape {mixing.shape}.")
    if kernel_size < 1:
        raise ValueError(f"kernel_size must be >= 1, got {kernel_size}.")
    positions = len(mixing)
    gram = np.kron(mixing.T @ mixing / positions, np.eye(kernel_size))
    mean = np.asarray(gram, np.float64)
    second = mean @ mean
    reach = min(kernel_size, positions)
    for d in range(1 - reach, reach):
        here = mixing[max(0, -d) : positions - max(0, d)]
        there = mixing[max(0, d) : positions - max(0, -d)]
        agreement = np.sum(here * there, axis=1, keepdims=True)
        shift = np.eye(kernel_size, k=-d)  # tap a here is tap a - d there
        moment = shift @ shift + np.trace(shift) * shift
        second += np.kron((agreement * here).T @ there, moment) / positions**2
    return _best_error(mean, second, np.ones(len(mean)))


def rotation_floor(basis: ArrayLike, std: ArrayLike, image_size: int) -> float:
    """The one-step floor of a convolution with a random kernel, exact.

    The parameters are the weights of `K = sum_j w_j B_j`, `w_j ~ N(0, std_j^2)`. Let
    `Q_ab[j, k] = sum_c B[j, c, a] B[k, c, b]`, symmetrised in the taps a and b, and let
    `n_d` count the pairs of the P output positions at displacement d. For c channels,

    ```text
    Z = sum_a Q_aa / c
    E[G S G] = Z S Z + 2 (P c)^-2 sum_d n_d sum_ab Q_ab S Q_{a-d, b-d}
    ```

    Args:
      basis: `[function, channel, tap]` the kernels B, with a square number of taps in
        row-major order.
      std: `[function]` standard deviations of the weights.
      image_size: height and width of the support image, >= the kernel's.

    Returns:
      The smallest expected squared error per output.

    Raises:
      ValueError: if the shapes do not fit or the image is smaller than the kernel.

    Example:
      >>> round(rotation_floor(*steerable_basis(), 32), 4)
      0.0026

    References:
      Isserlis, "On a formula for the product-moment coefficient of any order of a
      normal frequency distribution", Biometrika 1918.
    """
    basis, std = np.asarray(basis, np.float64), np.asarray(std, np.float64)
    size = math.isqrt(basis.shape[-1]) if basis.ndim == 3 else 0
    if not size or size**2 != basis.shape[-1] or std.shape != basis.shape[:1]:
        raise ValueError(
            "basis must be [function, channel, tap] with a square number of taps and "
            f"std [function], got shapes {basis.shape} and {std.shape}."
        )
    if image_size < size:
        raise ValueError(
            f"image_size must be >= {size}, the size of the kernel, got {image_size}."
        )
    functions, channels, _ = basis.shape
    side = image_size - size + 1
    variance = np.square(std)
    gram = np.einsum("jca,kcb->abjk", basis, basis)
    mean = np.einsum("aajk->jk", gram) / channels
    gram = (gram + gram.swapaxes(0, 1)) / 2
    gram = gram.reshape(size, size, size, size, functions, functions)

    second = np.zeros_like(mean)
    reach = min(size, side)
    for dy in range(1 - reach, reach):
        for dx in range(1 - reach, reach):
            rows, rows_there = _overlap(dy, size)
            columns, columns_there = _overlap(dx, size)
            here = gram[rows, columns, rows, columns]
            there = gram[rows_there, columns_there, rows_there, columns_there]
            pairs = (side - abs(dy)) * (side - abs(dx))
            second += pairs * np.sum((here * variance) @ there, axis=(0, 1, 2, 3))
    second *= 2 / (side**2 * channels) ** 2
    return _best_error(mean, (mean * variance) @ mean + second, variance)


def _overlap(displacement: int, size: int) -> tuple[slice, slice]:
    """Taps that a window shares with the one `displacement` further on, in each."""
    ahead, behind = max(0, displacement), max(0, -displacement)
    return slice(ahead, size - behind), slice(behind, size - ahead)


def one_step_floor(source: TranslationSource | RotationSource) -> float:
    """The one-step floor of a synthetic source, see the module.

    Args:
      source: the tasks; the floor belongs to its draw of the mixing matrix.

    Returns:
      The smallest expected squared error per output after one gradient step.

    Raises:
      ValueError: if `source.num_support` is not 1.
      TypeError: if the source is of another kind.

    Example:
      >>> round(one_step_floor(RotationSource(flip=True)), 4)
      0.0022
    """
    if not isinstance(source, TranslationSource | RotationSource):
        raise TypeError(
            "one_step_floor() knows TranslationSource and RotationSource, got "
            f"{type(source).__name__}."
        )
    if source.num_support != 1:
        raise ValueError(
            "the floor is for one support example: num_support must be 1, got "
            f"{source.num_support}."
        )
    if isinstance(source, TranslationSource):
        return translation_floor(np.asarray(source.load()), source.kernel_size)
    return rotation_floor(*steerable_basis(source.flip), source.image_size)
