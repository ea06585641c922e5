"""Fully connected networks."""

from collections.abc import Callable

from flax import linen as nn

from jaxmeta.core.types import Array, Float


class MLP(nn.Module):
    """Dense layers with an activation between them; the last one is linear.

    `x_{i+1} = activation(W_i x_i + b_i)`, without the activation at the end. It acts
    on the last axis and flattens nothing.

    Attributes:
      features: widths of the layers, the last being the number of outputs; at least
        one, each >= 1.
      activation: applied elementwise after every layer but the last.
      use_bias: whether the layers have biases.

    Raises:
      TypeError: if `features` is not a tuple. Modules are compared and hashed by it.
      ValueError: if `features` is empty or a width is below 1.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> network = MLP(features=(16, 2))
      >>> y, _ = network.init_with_output(jax.random.key(0), jnp.ones((5, 3)))
      >>> y.shape
      (5, 2)
    """

    features: tuple[int, ...]
    activation: Callable[[Array], Array] = nn.relu
    use_bias: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.features, tuple):
            raise TypeError(f"features must be a tuple, got {self.features!r}.")
        if not self.features or min(self.features) < 1:
            raise ValueError(
                f"features must be one or more widths >= 1, got {self.features}."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        *hidden, out = self.features
        for width in hidden:
            x = self.activation(nn.Dense(width, use_bias=self.use_bias)(x))
        return nn.Dense(out, use_bias=self.use_bias)(x)


class Encoder(nn.Module):
    """Flattens every example, then dense layers with an activation after each.

    Attributes:
      features: widths of the layers, the last being the number of features; as in
        `MLP`.
      activation: applied elementwise after every layer.

    Raises:
      TypeError: as `MLP`.
      ValueError: as `MLP`.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> network = Encoder(features=(16, 4))
      >>> y, _ = network.init_with_output(jax.random.key(0), jnp.ones((5, 8, 8, 1)))
      >>> y.shape, bool((y >= 0).all())
      ((5, 4), True)
    """

    features: tuple[int, ...]
    activation: Callable[[Array], Array] = nn.relu

    def setup(self) -> None:
        self.layers = MLP(features=self.features, activation=self.activation)

    def __call__(self, x: Float[Array, "n *shape"]) -> Float[Array, "n features"]:
        return self.activation(self.layers(x.reshape(x.shape[0], -1)))
