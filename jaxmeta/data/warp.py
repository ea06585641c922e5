"""Images seen through an affine map."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from jaxmeta.core.types import Array, Float

Border = Literal["constant", "nearest"]


def rotation(angle: float | Float[Array, ""]) -> Float[Array, "2 2"]:
    """The matrix that shows an image turned counter-clockwise; rows count downwards.

    Args:
      angle: in radians.

    Example:
      >>> print(rotation(jnp.pi / 6).round(2))
      [[ 0.87  0.5 ]
       [-0.5   0.87]]
    """
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return jnp.array([[cosine, sine], [-sine, cosine]])


def warp(
    image: Float[Array, "height width channel"],
    matrix: Float[Array, "2 2"],
    shift: Float[Array, "2"] | tuple[float, float] = (0.0, 0.0),
    *,
    border: Border = "constant",
) -> Float[Array, "height width channel"]:
    """`y[p] = x[matrix (p - centre) + centre + shift]`, interpolated bilinearly.

    Args:
      image: `[height, width, channel]`.
      matrix: from where a place, (row, column) from the centre, is seen.
      shift: in pixels.
      border: what is seen outside: 0, or the nearest pixel.

    Example:
      >>> image = jnp.array([[1.0, 2.0], [3.0, 4.0]])[..., None]
      >>> print(warp(image, rotation(jnp.pi / 2))[..., 0].round())
      [[2. 4.]
       [1. 3.]]
    """
    centre = [(size - 1) / 2 for size in image.shape[:2]]
    places = jnp.meshgrid(
        *(jnp.arange(size) - c for size, c in zip(image.shape, centre, strict=False)),
        indexing="ij",
    )
    where = [
        sum(m * place for m, place in zip(row, places, strict=True)) + c + s
        for row, c, s in zip(matrix, centre, shift, strict=True)
    ]
    one = lambda channel: map_coordinates(channel, where, order=1, mode=border)
    return jax.vmap(one, in_axes=-1, out_axes=-1)(image)
