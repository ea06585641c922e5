"""The convolutional networks of Adaptive Risk Minimization.

Zhang, Marklund, Dhawan, Gupta, Levine, Finn, Adaptive Risk Minimization (arXiv
2007.02931), appendix, and the authors' code. They return logits and features, and are
told with every call whose normalisation statistics to use (`networks.norm`).
"""

from typing import Literal, NamedTuple, TypeAlias

from flax import linen as nn

from jaxmeta.core.types import Array, Float
from jaxmeta.networks.conv import max_pool_2x2
from jaxmeta.networks.convolution import convolve
from jaxmeta.networks.norm import TRAINING, BatchNorm, Statistics
from jaxmeta.networks.patches import fan_in_uniform

Normalisation: TypeAlias = Literal["batch", "group"]

NUM_FEATURES = 200
"""Units of the layer before the last."""

_SIDE = 5


class Outputs(NamedTuple):
    """What a classifier says about its inputs.

    Attributes:
      logits: `[n, num_classes]`.
      features: `[n, f]`, of the layer before the last.
    """

    logits: Float[Array, "n classes"]
    features: Float[Array, "n f"]


class Conv5x5(nn.Module):
    """A 5x5 convolution, with zeros around the image (SAME) or without (VALID).

    Attributes:
      features: output channels, >= 1.
      padding: SAME or VALID.

    Parameters: `kernel` `[5, 5, in, features]`, `bias` `[features]`, drawn uniformly
    from `+-1/sqrt(25 in)`, PyTorch's default.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> y, _ = Conv5x5(features=3, padding="VALID").init_with_output(
      ...     jax.random.key(0), jnp.ones((2, 8, 8, 1))
      ... )
      >>> y.shape
      (2, 4, 4, 3)
    """

    features: int
    padding: Literal["SAME", "VALID"]

    @nn.compact
    def __call__(
        self, x: Float[Array, "n height width in"]
    ) -> Float[Array, "n height_out width_out out"]:
        init = fan_in_uniform(x.shape[-1] * _SIDE**2)
        shape = (_SIDE, _SIDE, x.shape[-1], self.features)
        kernel = self.param("kernel", init, shape)
        bias = self.param("bias", init, (self.features,))

        return convolve(x, kernel, self.padding) + bias.reshape(1, 1, 1, -1)


class _Block(nn.Module):
    """Convolution, normalisation, relu."""

    features: int
    padding: Literal["SAME", "VALID"]
    norm: Normalisation

    @nn.compact
    def __call__(self, x, statistics: Statistics, mask: Array | None):
        x = Conv5x5(self.features, self.padding)(x)
        if self.norm == "batch":
            return nn.relu(BatchNorm()(x, statistics, mask))
        groups = next(g for g in (8, 4, 2, 1) if self.features % g == 0)
        return nn.relu(nn.GroupNorm(num_groups=groups)(x))


class ConvNet(nn.Module):
    """Two or three 5x5 convolutions, an average over the image, two linear layers.

    `[conv0 SAME,] conv1 VALID, pool, conv2 VALID, pool, mean, 200 units, logits`, each
    convolution followed by normalisation and relu.

    Attributes:
      num_classes: >= 1.
      width: channels of every convolution, >= 1; 128 in the paper.
      large: whether conv0 is there. The network that also reads a context does
        without, so that with its context network it is smaller than the others.
      norm: `batch`, or `group`, which looks at one image at a time.

    Raises:
      ValueError: for a number below 1, an unknown norm; when called, for images that
        are not `[n, height, width, channel]` of 16 pixels or more.

    References:
      Zhang et al. (2021), appendix; the authors' `models.py`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> network = ConvNet(num_classes=10, width=4)
      >>> outputs, _ = network.init_with_output(
      ...     jax.random.key(0), jnp.ones((3, 28, 28, 1))
      ... )
      >>> outputs.logits.shape, outputs.features.shape
      ((3, 10), (3, 200))
    """

    num_classes: int
    width: int = 128
    large: bool = True
    norm: Normalisation = "batch"

    def __post_init__(self) -> None:
        for name in ("num_classes", "width"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be >= 1, got {value}.")
        _check_norm(self.norm)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n height width channel"],
        statistics: Statistics = TRAINING,
        mask: Array | None = None,
    ) -> Outputs:
        if x.ndim != 4 or min(x.shape[1:3]) < 16:
            raise ValueError(
                "images must be [n, height, width, channel] of 16 pixels or more, got "
                f"shape {x.shape}."
            )
        if self.large:
            x = _Block(self.width, "SAME", self.norm)(x, statistics, mask)
        for _ in range(2):
            x = _Block(self.width, "VALID", self.norm)(x, statistics, mask)
            x = max_pool_2x2(x)
        features = nn.relu(_linear(NUM_FEATURES, self.width)(x.mean((1, 2))))
        logits = _linear(self.num_classes, NUM_FEATURES)(features)
        return Outputs(logits, features)


class ContextNet(nn.Module):
    """Three 5x5 convolutions that keep the size of the image.

    Attributes:
      channels: of its output, >= 1: 12 for MNIST, 1 for FEMNIST, 3 for CIFAR-10-C.
      width: channels between, >= 1; 64 in the paper.
      norm: as in `ConvNet`.

    References:
      Zhang et al. (2021), section 4.1 and appendix.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> y, _ = ContextNet(channels=2, width=4).init_with_output(
      ...     jax.random.key(0), jnp.ones((3, 16, 16, 1))
      ... )
      >>> y.shape
      (3, 16, 16, 2)
    """

    channels: int
    width: int = 64
    norm: Normalisation = "batch"

    def __post_init__(self) -> None:
        for name in ("channels", "width"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be >= 1, got {value}.")
        _check_norm(self.norm)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n height width channel"],
        statistics: Statistics = TRAINING,
        mask: Array | None = None,
    ) -> Float[Array, "n height width channels"]:
        for _ in range(2):
            x = _Block(self.width, "SAME", self.norm)(x, statistics, mask)
        return Conv5x5(self.channels, "SAME")(x)


def _check_norm(norm: str) -> None:
    if norm not in ("batch", "group"):
        raise ValueError(f"norm must be 'batch' or 'group', got {norm!r}.")


def _linear(features: int, fan_in: int) -> nn.Dense:
    init = fan_in_uniform(fan_in)
    return nn.Dense(features, kernel_init=init, bias_init=init)
