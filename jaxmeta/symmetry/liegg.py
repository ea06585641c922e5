"""LieGG: which infinitesimal motions a trained network does not notice.

Moskalev, Sepliarskaia, Sosnovik, Smeulders, "LieGG: Studying Learned Lie Group
Generators" (NeurIPS 2022). For a function f of images and a motion of the plane with
generator H, `d/dt f(x moved by exp(t H))` vanishes at t = 0 for all images x if f is
invariant to it. The derivative is linear in H, so over a basis of generators it is a
matrix E, one row an image and output; what E sends to zero is what f does not notice.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.types import Array, Float
from jaxmeta.symmetry.motions import GENERATORS, Motion, move


class LieGG(NamedTuple):
    """What a function does not notice.

    Attributes:
      scores: of every generator, the mean square of f's derivative along it, as a share
        of the mean over all generators: 0 for an invariance, 1 for one like the others.
      variances: `[6]` the same of the generators that follow, ascending.
      generators: `[6, 6]` combinations of the basis, a row each, orthonormal.
    """

    scores: dict[str, float]
    variances: Float[np.ndarray, "6"]
    generators: Float[np.ndarray, "6 6"]


def derivatives(
    fn: Callable[[Array], Array], images: Float[Array, "n side side channel"]
) -> Float[Array, "n out generator"]:
    """E: the derivative of f along every generator, for every image.

    Args:
      fn: images `[n, side, side, channel]` to outputs `[n, out]`.
      images: `[n, side, side, channel]`.
    """

    def moved(rows: Array) -> Array:
        motion = Motion(jnp.eye(2) + rows[:, :2], rows[:, 2])
        return fn(jax.vmap(lambda image: move(image, motion))(images))

    still, along = jnp.zeros((2, 3)), jnp.array(list(GENERATORS.values()))
    one = lambda direction: jax.jvp(moved, (still,), (direction,))[1]
    return jnp.moveaxis(jax.lax.map(one, along), 0, -1)


def liegg(
    fn: Callable[[Array], Array], images: Float[Array, "n side side channel"]
) -> LieGG:
    """The generators that a function notices least, and how much it notices each.

    Args:
      fn: images `[n, side, side, channel]` to outputs `[n, out]`, differentiable.
      images: `[n, side, side, channel]`, smooth: edges between pixels have no
        derivative, and what is seen of one depends on the interpolation.

    Example:
      >>> ramp = jnp.linspace(-1.0, 1.0, 9)
      >>> blob = jnp.exp(-4 * (ramp[:, None] ** 2 + (ramp[None] - 0.3) ** 2))
      >>> brightness = lambda x: x.sum((1, 2))
      >>> found = liegg(brightness, blob[None, :, :, None])
      >>> found.scores["shift down"] < 1e-3 < found.scores["scaling"]
      True
    """
    return from_derivatives(jax.jit(lambda x: derivatives(fn, x))(images))


def from_derivatives(rows: Float[Array, "*n generator"]) -> LieGG:
    """The same of derivatives that are known.

    Args:
      rows: `[..., 6]`, as `derivatives` makes them, of one function or several.

    Example:
      >>> from_derivatives(jnp.eye(6)).scores["rotation"]
      1.0
    """
    flat = np.asarray(rows, np.float64).reshape(-1, len(GENERATORS))
    powers = np.square(flat).mean(0)
    _, sizes, basis = np.linalg.svd(flat)  # all six, however few rows there are
    variances = np.zeros(len(GENERATORS))
    variances[: len(sizes)] = np.square(sizes) / len(flat)
    total = powers.mean() or 1.0  # nothing is noticed by a constant
    return LieGG(
        dict(zip(GENERATORS, (powers / total).tolist(), strict=True)),
        variances[::-1] / total,
        basis[::-1],
    )
