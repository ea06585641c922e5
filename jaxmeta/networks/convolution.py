"""A convolution whose derivatives, of every order, are fast convolutions too.

XLA runs a convolution on the CPU at full speed in two forms only: with zeros around the
image so that it keeps its size, and as the product of an image and an error that gives
the kernel's gradient. Automatic differentiation makes others, with dilations and
one-sided padding, which run up to twenty times slower. But the three bilinear maps

  y  = forward(x, k)      x' = backward(y, k)      k' = correlate(x, y)

with `<forward(x, k), y> = <x, backward(y, k)> = <k, correlate(x, y)>` are closed under
differentiation: the derivative of each is made of the other two. In the second order
step of ARM-LL (6 sets of 50 images of 28 x 28, 16 channels) they take 1.1 s of CPU time
where `lax.conv` cropped takes 2.7 and the plain VALID one longer.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from jaxmeta.core.types import Array, Float

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(
    x: Float[Array, "n height width in"],
    kernel: Float[Array, "side side in out"],
    padding: Literal["SAME", "VALID"],
) -> Float[Array, "n height_out width_out out"]:
    """Cross-correlation of stride 1 with a square kernel of an odd side.

    `y[p] = sum_t x[p + t] kernel[t]`. VALID is cropped from SAME on the CPU.

    Args:
      x: `[n, height, width, in]`.
      kernel: `[side, side, in, out]`.
      padding: SAME keeps the size, VALID takes `side - 1` off.

    Raises:
      ValueError: for a kernel that is not square or has an even side.

    Example:
      >>> x, kernel = jnp.ones((1, 5, 5, 1)), jnp.ones((3, 3, 1, 1))
      >>> convolve(x, kernel, "SAME")[0, 0, :, 0].tolist()
      [4.0, 6.0, 6.0, 6.0, 4.0]
      >>> convolve(x, kernel, "VALID").shape
      (1, 3, 3, 1)
    """
    side = kernel.shape[0]
    if kernel.shape[1] != side or side % 2 == 0:
        raise ValueError(
            f"the kernel must be square with an odd side, got {kernel.shape[:2]}."
        )
    if padding == "SAME" or side == 1:
        return _forward(x, kernel)
    edge = side // 2
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _forward(x, kernel)[:, edge:-edge, edge:-edge],
        default=lambda x, kernel: _direct(x, kernel, "VALID"),
    )


def _direct(x: Array, kernel: Array, padding: str) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=_LAYOUT
    )


@jax.custom_vjp
def _forward(x: Array, kernel: Array) -> Array:
    return _direct(x, kernel, "SAME")


def _backward(y: Array, kernel: Array) -> Array:
    """The transpose of `_forward` in x: again one, with the kernel turned around."""
    return _forward(y, jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2))


@jax.custom_vjp
def _correlate(x: Array, y: Array, like: Array) -> Array:
    """The transpose of `_forward` in the kernel, which has the shape of `like`."""
    edge = like.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x,
        y,
        (1, 1),
        ((edge, edge), (edge, edge)),
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
    )


def _forward_fwd(x, kernel):
    return _forward(x, kernel), (x, kernel)


def _forward_bwd(saved, y):
    x, kernel = saved
    return _backward(y, kernel), _correlate(x, y, kernel)


def _correlate_fwd(x, y, like):
    return _correlate(x, y, like), (x, y, like)


def _correlate_bwd(saved, kernel):
    x, y, like = saved
    return _backward(y, kernel), _forward(x, kernel), jnp.zeros_like(like)


_forward.defvjp(_forward_fwd, _forward_bwd)
_correlate.defvjp(_correlate_fwd, _correlate_bwd)
