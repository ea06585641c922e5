"""The four-block convolutional network of the few-shot literature.

Vinyals et al., Matching Networks for One Shot Learning (2016), section 4.1; Finn,
Abbeel and Levine, Model-Agnostic Meta-Learning (2017), section 5.2.

Convolutions are matrix products over patches, because a kernel adapted to each task
turns an ordinary convolution into a grouped one under `vmap`; `LoopConv4` is for tasks
that a CPU takes one by one. One MAML step (value and gradient, second order, one inner
step, 4 blocks of 32 channels, 28x28, 5-way, 1 shot, 5 queries per class, 4 tasks) took
this much processor time, in ms per step, on two shared CPU cores (jax 0.10.1, variants
interleaved, medians of 7 and of 3):

  convolution, pooling      vmap over tasks   in a scan   one task at a time
  nn.Conv, nn.max_pool                 1048        1129                    -
  nn.Conv, max_pool_2x2                 950        1088                  786
  Conv3x3, nn.max_pool                  264         191                    -
  Conv3x3, max_pool_2x2                 180         137                  130
"""

from typing import Literal, TypeAlias, get_args

from flax import linen as nn
from jax import numpy as jnp

from jaxmeta.core.types import Array, Float
from jaxmeta.networks.convolution import convolve
from jaxmeta.networks.norm import OWN, BatchNorm, Statistics
from jaxmeta.networks.patches import fan_in_uniform, patches

Drawn: TypeAlias = Literal["flax", "torch"]
"""Weights normal with variance `1 / fan_in` and biases 0, or both uniform with variance
`1 / (3 fan_in)`. Before a normalisation the size of a kernel does not show, but a step
of a given rate turns a smaller one further."""


class Conv3x3(nn.Module):
    """A 3x3 convolution of stride 1 that keeps the size of the image.

    `y[i, p, o] = sum_{t, c} kernel[t, c, o] x[i, p + t - 1, c]`, with zeros outside
    the image: `flax.linen.Conv(features, (3, 3), use_bias=False)`, parameters
    included.

    Attributes:
      features: output channels, >= 1.
      drawn: how the kernel is drawn, see `Drawn`.
      patched: whether it is one matrix product over patches, or `convolve`, which is
        faster on a CPU where tasks come one by one.

    Parameters: `kernel` `[3, 3, in, features]`.

    Raises:
      ValueError: if `features` is below 1.

    Example:
      >>> import jax
      >>> y, variables = Conv3x3(features=4).init_with_output(
      ...     jax.random.key(0), jnp.ones((2, 8, 8, 1))
      ... )
      >>> y.shape, variables["params"]["kernel"].shape
      ((2, 8, 8, 4), (3, 3, 1, 4))
    """

    features: int
    drawn: Drawn = "flax"
    patched: bool = True

    def __post_init__(self) -> None:
        if self.features < 1:
            raise ValueError(f"features must be >= 1, got {self.features}.")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "n height width in"]
    ) -> Float[Array, "n height width out"]:
        shape = (3, 3, x.shape[-1], self.features)
        flax, torch = nn.initializers.lecun_normal(), fan_in_uniform(9 * x.shape[-1])
        kernel = self.param("kernel", flax if self.drawn == "flax" else torch, shape)
        if not self.patched:
            return convolve(x, kernel, "SAME")
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return patches(padded, (3, 3)) @ kernel.reshape(-1, self.features)


def max_pool_2x2(
    x: Float[Array, "n height width channels"],
) -> Float[Array, "n half_height half_width channels"]:
    """The maximum of each 2x2 window; an odd last row or column is dropped.

    `flax.linen.max_pool(x, (2, 2), (2, 2))` by a reshape, whose derivatives XLA runs
    faster on the CPU. Where pixels tie, the gradient goes to one of them.

    Args:
      x: `[n, height, width, channels]`.

    Returns:
      `[n, height // 2, width // 2, channels]`.

    Example:
      >>> max_pool_2x2(jnp.arange(6.0).reshape(1, 2, 3, 1)).ravel().tolist()
      [4.0]
    """
    n, height, width, channels = x.shape
    height, width = height // 2, width // 2
    x = x[:, : 2 * height, : 2 * width]
    x = x.reshape(n, height, 2, width, 2, channels)
    rows = _larger(x[:, :, 0], x[:, :, 1])
    return _larger(rows[:, :, :, 0], rows[:, :, :, 1])


def _larger(a: Array, b: Array) -> Array:
    """The larger of two numbers, or nan.

    `max` finds who gets the gradient by `x == max(x)`. XLA computes x again for that,
    and where it rounds otherwise the second time, after a normalisation say, nobody
    does.
    """
    return jnp.where((a >= b) | jnp.isnan(a), a, b)


class Conv4(nn.Module):
    """Blocks of convolution, normalisation, relu and pooling, then a linear head.

    Each block halves the image; what is left after the last is flattened.

    Every call says whose statistics normalise (`networks.norm`), by default those of
    all its images. So the answer for one query image depends on the others: the
    *transductive* evaluation of published MAML results, to be compared with nothing
    else. Learners choose by `norm_stats`.

    A subclass may make other convolutions and another head.

    Attributes:
      features: channels of every block, >= 1.
      num_classes: outputs, >= 1; None leaves out the head and returns what it would
        be given.
      drawn: how kernels and head are drawn, see `Drawn`.
      num_blocks: >= 1. Images must be at least `2**num_blocks` pixels high and wide.

    Raises:
      ValueError: for a number below its limit; when called, for inputs that are not
        `[n, height, width, channel]` or too small.

    References:
      Vinyals et al., Matching Networks for One Shot Learning (2016), section 4.1.
      Finn, Abbeel and Levine, Model-Agnostic Meta-Learning (2017), section 5.2.

    Example:
      >>> import jax
      >>> network = Conv4(features=8, num_classes=5)
      >>> logits, _ = network.init_with_output(
      ...     jax.random.key(0), jnp.ones((3, 28, 28, 1))
      ... )
      >>> logits.shape
      (3, 5)
    """

    features: int = 32
    num_classes: int | None = 5
    num_blocks: int = 4
    drawn: Drawn = "flax"

    def __post_init__(self) -> None:
        for name in ("features", "num_classes", "num_blocks"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}.")
        if self.drawn not in get_args(Drawn):
            raise ValueError(
                f"drawn must be one of {get_args(Drawn)}, got {self.drawn!r}."
            )
        super().__post_init__()

    def convolution(self) -> nn.Module:
        """A convolution of stride 1 to `features` channels that keeps the size."""
        return Conv3x3(features=self.features, drawn=self.drawn)

    def head(self, num_classes: int, num_in: int) -> nn.Module:
        """From `num_in` flat features to logits."""
        if self.drawn == "flax":
            return nn.Dense(num_classes)
        init = fan_in_uniform(num_in)
        return nn.Dense(num_classes, kernel_init=init, bias_init=init)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n height width channel"],
        statistics: Statistics = OWN,
    ) -> Float[Array, "n out"]:
        side = 2**self.num_blocks
        if x.ndim != 4 or min(x.shape[1:3]) < side:
            raise ValueError(
                f"inputs must be [n, height, width, channel] with sides >= {side} for "
                f"{self.num_blocks} blocks, got shape {x.shape}."
            )
        for _ in range(self.num_blocks):
            x = BatchNorm()(self.convolution()(x), statistics)
            x = max_pool_2x2(nn.relu(x))
        features = x.reshape(x.shape[0], -1)
        if self.num_classes is None:
            return features
        return self.head(self.num_classes, features.shape[-1])(features)


class LoopConv4(Conv4):
    """`Conv4`, number for number, for tasks that are gone through in a Python loop.

    With `Parallel(backend="loop")` a step of MAML of 8 tasks and one inner step takes
    .54 of the time that `Conv4` takes under `vmap` on two CPU cores, and compiles 1.2
    times as long. Several inner steps are unrolled, as XLA's convolutions are slow in a
    compiled loop: with five it takes .73 of the time and compiles twice as long.

    Example:
      >>> import jax
      >>> images = jnp.ones((3, 16, 16, 1))
      >>> network = LoopConv4(features=4)
      >>> network.init_with_output(jax.random.key(0), images)[0].shape
      (3, 5)
    """

    def convolution(self) -> nn.Module:
        return Conv3x3(features=self.features, drawn=self.drawn, patched=False)
