"""ResNet-50 with explicit normalisation statistics.

He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition (2016), table 1, with
the stride in the 3x3 convolution of a block, as is usual since.
"""

from typing import Any

from flax import linen as nn

from jaxmeta.core.types import Array, Float
from jaxmeta.networks.convnet import Outputs
from jaxmeta.networks.norm import TRAINING, BatchNorm, Statistics
from jaxmeta.networks.patches import fan_in_uniform

_he = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class _Normalised(nn.Module):
    """A convolution without bias, then normalisation."""

    features: int
    side: int = 1
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array, statistics: Statistics, mask: Array | None) -> Array:
        edge, sides = self.side // 2, (self.side, self.side)
        x = nn.Conv(
            self.features,
            sides,
            strides=self.stride,
            padding=edge,
            use_bias=False,
            kernel_init=_he,
        )(x)
        return BatchNorm()(x, statistics, mask)


class _Bottleneck(nn.Module):
    """1x1 down to `width`, 3x3, 1x1 up to `4 width`, added to what came in."""

    width: int
    stride: int

    @nn.compact
    def __call__(self, x: Array, statistics: Statistics, mask: Array | None) -> Array:
        y = nn.relu(_Normalised(self.width)(x, statistics, mask))
        y = nn.relu(_Normalised(self.width, 3, self.stride)(y, statistics, mask))
        y = _Normalised(4 * self.width)(y, statistics, mask)
        if x.shape != y.shape:
            x = _Normalised(4 * self.width, 1, self.stride)(x, statistics, mask)
        return nn.relu(x + y)


class ResNet50(nn.Module):
    """A 7x7 convolution, pooling, 3 + 4 + 6 + 3 bottleneck blocks, mean, logits.

    Attributes:
      num_classes: >= 1.
      width: of the first blocks, >= 1; 64 in the paper.

    Raises:
      ValueError: for a number below 1.

    References:
      He et al. (2016), table 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> network = ResNet50(num_classes=10, width=2)
      >>> outputs, _ = jax.eval_shape(
      ...     network.init_with_output, jax.random.key(0), jnp.ones((2, 64, 64, 3))
      ... )
      >>> outputs.logits.shape, outputs.features.shape
      ((2, 10), (2, 64))
    """

    num_classes: int
    width: int = 64

    def __post_init__(self) -> None:
        for name in ("num_classes", "width"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be >= 1, got {value}.")
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n height width channel"],
        statistics: Statistics = TRAINING,
        mask: Array | None = None,
    ) -> Outputs:
        x = nn.relu(_Normalised(self.width, 7, 2)(x, statistics, mask))
        edge: Any = ((1, 1), (1, 1))
        x = nn.max_pool(x, (3, 3), (2, 2), edge)
        for stage, num_blocks in enumerate((3, 4, 6, 3)):
            for block in range(num_blocks):
                stride = 2 if stage and not block else 1
                x = _Bottleneck(self.width * 2**stage, stride)(x, statistics, mask)
        features = x.mean((1, 2))
        init = fan_in_uniform(features.shape[-1])
        head = nn.Dense(self.num_classes, kernel_init=init, bias_init=init)
        return Outputs(head(features), features)
