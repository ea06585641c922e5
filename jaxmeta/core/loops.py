"""Whether a compiled loop is the fast way to repeat a computation on this machine."""

from collections.abc import Callable
from typing import Any

import jax


def loops_well(fn: Callable[..., Any], *args: Any) -> bool:
    """Whether `lax.scan` and `lax.map` run `fn` as fast as a call of its own.

    A compiled loop saves the dispatch of every step. But XLA on the CPU runs a
    convolution inside a loop without its fast kernels: 17 times slower for the step of
    a small network (300 images of 28 x 28, 16 channels, jax 0.10.1).

    Args:
      fn: a traceable function.
      args: its arguments, arrays or their shapes.

    Returns:
      False on the CPU for a function with a convolution in it, else True.

    Example:
      >>> import jax.numpy as jnp
      >>> loops_well(jnp.sin, jnp.ones(3))
      True
      >>> image, kernel = jnp.ones((1, 1, 4, 4)), jnp.ones((1, 1, 3, 3))
      >>> convolve = lambda x, k: jax.lax.conv(x, k, (1, 1), "SAME")
      >>> loops_well(convolve, image, kernel) == (jax.default_backend() != "cpu")
      True
    """
    if jax.default_backend() != "cpu":
        return True
    return "conv_general_dilated" not in str(jax.make_jaxpr(fn)(*args))
