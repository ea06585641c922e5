"""A multilayer perceptron with explicit normalisation statistics, for vectors."""

from flax import linen as nn

from jaxmeta.core.types import Array, Float
from jaxmeta.networks.convnet import Outputs
from jaxmeta.networks.norm import TRAINING, BatchNorm, Statistics


class NormMLP(nn.Module):
    """Layers of a linear map, batch normalisation and relu, then logits.

    What `ConvNet` is for images this is for vectors; inputs of more axes are flattened.

    Attributes:
      features: units of each hidden layer, at least one layer, each >= 1.
      num_classes: >= 1.

    Raises:
      ValueError: for a number below 1 or no layer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> network = NormMLP(features=(8,), num_classes=3)
      >>> outputs, _ = network.init_with_output(jax.random.key(0), jnp.ones((5, 4)))
      >>> outputs.logits.shape, outputs.features.shape
      ((5, 3), (5, 8))
    """

    features: tuple[int, ...]
    num_classes: int

    def __post_init__(self) -> None:
        if not self.features or min(*self.features, self.num_classes) < 1:
            raise ValueError(
                "features must be one number >= 1 a layer and num_classes >= 1, got "
                f"{self.features} and {self.num_classes}."
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n *point"],
        statistics: Statistics = TRAINING,
        mask: Array | None = None,
    ) -> Outputs:
        x = x.reshape(x.shape[0], -1)
        for features in self.features:
            x = nn.relu(BatchNorm()(nn.Dense(features)(x), statistics, mask))
        return Outputs(nn.Dense(self.num_classes)(x), x)
