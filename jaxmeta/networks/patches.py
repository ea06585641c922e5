"""Convolution as patches times a matrix, for kernels that differ between tasks.

Under `vmap` over tasks a convolution whose kernel carries the task axis becomes a
grouped convolution, which XLA runs slowly on the CPU, and slower still when it is
VALID. Here the windows of the input are laid out as rows, once, by shifted slices;
what the task axis then meets is a batched matrix product, fast on every platform,
in all orders of derivative.

The layout is fixed by two conventions that everything in this file keeps:

- inputs are channels last: `[n, *spatial, in]`;
- kernels are `[out, in, taps]` with `taps = prod(kernel_size)`, taps in row-major
  order of the window, so that `kernel.reshape(-1)` is the `vec` of the MSR paper.
"""

import itertools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer

from jaxmeta.core.types import Array, Float


def fan_in_uniform(fan_in: int) -> Initializer:
    """Uniform on `[-1/sqrt(fan_in), 1/sqrt(fan_in)]`, PyTorch's default for layers.

    It differs from `jax.nn.initializers.variance_scaling(1/3, "fan_in", "uniform")`
    only in taking the fan-in as given, so that a bias, or a weight whose shape does
    not show its fan-in, can be drawn from it too.

    Args:
      fan_in: how many inputs one output sums over, at least 1.

    Returns:
      An initializer `(key, shape, dtype) -> array`.

    Raises:
      ValueError: if `fan_in` is below 1.

    Example:
      >>> import jax
      >>> weights = fan_in_uniform(4)(jax.random.key(0), (1000,))
      >>> float(abs(weights).max()) <= 0.5
      True
    """
    if fan_in < 1:
        raise ValueError(f"fan_in must be at least 1, got {fan_in}.")
    bound = 1.0 / math.sqrt(fan_in)

    def init(key, shape, dtype=None, out_sharding=None):
        del out_sharding
        dtype = jnp.result_type(float) if dtype is None else dtype
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def check_kernel_size(kernel_size: tuple[int, ...]) -> None:
    """Refuses a kernel size that is not a tuple of one or two positive integers.

    Args:
      kernel_size: taps along each spatial axis.

    Raises:
      TypeError: if it is not a tuple. Modules are compared and hashed with it.
      ValueError: if it has no or more than two entries, or one below 1.

    Example:
      >>> check_kernel_size((3, 3))
      >>> check_kernel_size((3, 0))
      Traceback (most recent call last):
      ...
      ValueError: kernel_size must hold one or two integers >= 1, got (3, 0).
    """
    if not isinstance(kernel_size, tuple):
        raise TypeError(f"kernel_size must be a tuple, got {kernel_size!r}.")
    if len(kernel_size) not in (1, 2) or min(kernel_size) < 1:
        raise ValueError(
            f"kernel_size must hold one or two integers >= 1, got {kernel_size}."
        )


def patches(
    x: Float[Array, "n *spatial channels"], kernel_size: tuple[int, ...]
) -> Float[Array, "n *positions taps_channels"]:
    """All windows of the input, as a convolution without padding sees them.

    `patches(x, k)[i, p, t * channels + c] = x[i, p + offset(t), c]`, where `offset`
    runs through the window in row-major order.

    Args:
      x: `[n, *spatial, channels]`, as many spatial axes as `kernel_size` has entries.
      kernel_size: taps along each spatial axis, each in `1..size of the axis`.

    Returns:
      `[n, *positions, taps * channels]` with `positions = spatial - kernel_size + 1`
      and `taps = prod(kernel_size)`.

    Raises:
      TypeError: if `kernel_size` is not a tuple.
      ValueError: if the number of axes does not fit, or the window does not fit in.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.arange(4.0).reshape(1, 4, 1)
      >>> patches(x, (3,))[0].tolist()
      [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]]
    """
    check_kernel_size(kernel_size)
    if x.ndim != len(kernel_size) + 2:
        raise ValueError(
            f"kernel_size {kernel_size} needs inputs [n, *spatial, channels] with "
            f"{len(kernel_size)} spatial axes, got shape {x.shape}."
        )
    spatial = x.shape[1:-1]
    positions = tuple(
        size - taps + 1 for size, taps in zip(spatial, kernel_size, strict=True)
    )
    if min(positions) < 1:
        raise ValueError(f"kernel_size {kernel_size} exceeds the input's {spatial}.")

    def window(offset: tuple[int, ...]) -> Array:
        span = zip(offset, positions, strict=True)
        return x[(slice(None), *(slice(o, o + p) for o, p in span))]

    offsets = itertools.product(*map(range, kernel_size))
    return jnp.concatenate([window(offset) for offset in offsets], axis=-1)


def correlate(
    x: Float[Array, "n *spatial in"],
    kernel: Float[Array, "out in taps"],
    kernel_size: tuple[int, ...],
) -> Float[Array, "n *positions out"]:
    """Cross-correlation without padding, stride 1: what deep learning calls a conv.

    `y[i, p, o] = sum_{c, t} kernel[o, c, t] x[i, p + offset(t), c]`.

    Args:
      x: `[n, *spatial, in]`.
      kernel: `[out, in, taps]`, taps in row-major order of the window.
      kernel_size: taps along each spatial axis; its product is `taps`.

    Returns:
      `[n, *positions, out]` with `positions = spatial - kernel_size + 1`.

    Raises:
      TypeError: if `kernel_size` is not a tuple.
      ValueError: if the kernel is not `[out, in, taps]` for this input and size, or
        the window does not fit in the input.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.arange(4.0).reshape(1, 4, 1)
      >>> difference = jnp.array([-1.0, 1.0]).reshape(1, 1, 2)
      >>> correlate(x, difference, (2,)).reshape(-1).tolist()
      [1.0, 1.0, 1.0]
    """
    rows = patches(x, kernel_size)
    channels, taps = x.shape[-1], math.prod(kernel_size)
    if kernel.ndim != 3 or kernel.shape[1:] != (channels, taps):
        raise ValueError(
            f"kernel must be [out, {channels}, {taps}], got shape {kernel.shape}."
        )
    matrix = jnp.transpose(kernel, (2, 1, 0)).reshape(-1, kernel.shape[0])
    return rows @ matrix


class PatchConv(nn.Module):
    """A convolution without padding whose kernel may differ between tasks.

    The maths of `flax.linen.Conv(features, kernel_size, padding="VALID")`; see
    `correlate` for the equation and this module's docstring for why it exists. The
    kernel and the bias are drawn uniformly from `+-1/sqrt(in * taps)`, PyTorch's
    default, as the published experiments on learned symmetries do.

    Attributes:
      features: output channels, at least 1.
      kernel_size: taps along each of one or two spatial axes, each at least 1.
      use_bias: whether to add a bias per output channel.

    Parameters: `kernel` `[features, in, taps]`, `bias` `[features]`.

    Raises:
      TypeError: if `kernel_size` is not a tuple.
      ValueError: for a setting out of range; when called, for an input that is not
        `[n, *spatial, in]` or is smaller than the kernel.

    References:
      The MAML-Conv baseline of Zhou, Knowles & Finn, "Meta-Learning Symmetries by
      Reparameterization", ICLR 2021, section 5.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> layer = PatchConv(features=4, kernel_size=(3, 3))
      >>> x = jnp.ones((2, 8, 8, 1))
      >>> y, variables = layer.init_with_output(jax.random.key(0), x)
      >>> y.shape, variables["params"]["kernel"].shape
      ((2, 6, 6, 4), (4, 1, 9))
    """

    features: int
    kernel_size: tuple[int, ...]
    use_bias: bool = False

    def __post_init__(self) -> None:
        check_kernel_size(self.kernel_size)
        if self.features < 1:
            raise ValueError(f"features must be at least 1, got {self.features}.")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "n *spatial in"]
    ) -> Float[Array, "n *positions out"]:
        taps = math.prod(self.kernel_size)
        init = fan_in_uniform(x.shape[-1] * taps)
        kernel = self.param("kernel", init, (self.features, x.shape[-1], taps))
        y = correlate(x, kernel, self.kernel_size)
        if self.use_bias:
            bias = self.param("bias", init, (self.features,))
            y = y + jnp.broadcast_to(bias, y.shape)
        return y
