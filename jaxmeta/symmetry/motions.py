"""Affine motions of the plane by their generators."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core.types import Array, Float
from jaxmeta.data.warp import warp

GENERATORS = {
    "rotation": ((0.0, 1.0, 0.0), (-1.0, 0.0, 0.0)),
    "scaling": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "stretching": ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
    "shearing": ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    "shift down": ((0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),
    "shift right": ((0.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
}
"""A basis: rows of `[matrix | shift]`, where places are (row, column) from the centre
and shifts are in half sides of the image. All move the pixels of a square image by
about as much; one unit of rotation is a radian."""


class Motion(NamedTuple):
    """From where a place is seen: `matrix place + shift`.

    Attributes:
      matrix: `[2, 2]`.
      shift: `[2]` in half sides of the image.
    """

    matrix: Float[Array, "2 2"]
    shift: Float[Array, "2"]


def exponential(coefficients: Float[Array, "generator"]) -> Motion:
    """`exp(sum_k c_k G_k)`: the motion that goes that far along the generators.

    Args:
      coefficients: `[6]`, in the order of `GENERATORS`.

    Example:
      >>> quarter = exponential(jnp.array([jnp.pi / 2, 0.0, 0.0, 0.0, 0.0, 0.0]))
      >>> print(quarter.matrix.round(3) + 0.0)
      [[ 0.  1.]
       [-1.  0.]]
    """
    rows = jnp.tensordot(coefficients, jnp.array(list(GENERATORS.values())), 1)
    whole = jax.scipy.linalg.expm(jnp.concatenate([rows, jnp.zeros((1, 3))]))
    return Motion(whole[:2, :2], whole[:2, 2])


def move(
    image: Float[Array, "side side channel"], motion: Motion
) -> Float[Array, "side side channel"]:
    """A square image moved; 0 is seen outside.

    Args:
      image: `[side, side, channel]`.
      motion: from where each place is seen.

    Example:
      >>> image = jnp.arange(9.0).reshape(3, 3, 1)
      >>> still = exponential(jnp.zeros(6))
      >>> bool(jnp.allclose(move(image, still), image))
      True
    """
    return warp(image, motion.matrix, motion.shift * image.shape[0] / 2)
