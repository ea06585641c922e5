"""Loops that are compiled where this machine runs what is in them fast."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


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


def scan(
    fn: Callable[..., tuple[Any, Any]],
    carry: Any,
    xs: Any,
    *,
    length: int | None = None,
    remat: bool = False,
) -> tuple[Any, Any]:
    """`lax.scan` over the leading axis of `xs`, unrolled where it would not loop well.

    Unrolled is a Python loop here: `lax.scan(unroll=)` leaves a loop of one turn, which
    XLA removes only after it has chosen its kernels.

    Args:
      fn: `(carry, x) -> (carry, y)`.
      carry: the first one.
      xs: tree of `[time, ...]`, time >= 1, or None.
      length: of time, where `xs` is None.
      remat: whether `fn` is computed once more in the backward pass, in place of being
        remembered.

    Returns:
      The last carry, and all y as `[time, ...]`.

    Example:
      >>> carry, ys = scan(lambda c, x: (c + x, 2 * x), 0, jax.numpy.arange(3))
      >>> int(carry), ys.tolist()
      (3, [0, 2, 4])
    """
    at = lambda i: jax.tree.map(lambda leaf: leaf[i], xs)
    loops = loops_well(fn, carry, at(0))
    if remat:
        # Inside a scan XLA cannot undo the recomputation, so the costly fences that
        # prevent it elsewhere are not needed.
        fn = jax.checkpoint(fn, prevent_cse=not loops)
    if loops:
        return jax.lax.scan(fn, carry, xs, length=length)
    ys = []
    for i in range(len(jax.tree.leaves(xs)[0]) if length is None else length):
        carry, y = fn(carry, at(i))
        ys.append(y)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *ys)
