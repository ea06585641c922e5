"""Layers whose parameter sharing is itself a parameter.

Every layer here writes its weights as `vec(W) = U v`. The filter parameters `v` say
what the layer computes and change with the task; the symmetry matrix `U` says which
weights move together and is common to all tasks. The two live in different Flax
collections:

    variables = layer.init(key, x)      # {"params": {v ...}, "symmetry": {U ...}}
    y = layer.apply(variables, x)

so "what may the inner loop touch" is answered by a branch of the tree,
`variables["params"]`, and never by a name. Biases are ordinary parameters: they are
adapted, and not shared through `U`.

The file also has what the experiments compare with: locally connected and plain dense
layers, with PyTorch's initialisation, as in the published comparison.

References:
  Zhou, Knowles & Finn, "Meta-Learning Symmetries by Reparameterization", ICLR 2021
  (arXiv:2007.02933), sections 4 and 5. Differences: the sigmoid-squashed variants of
  the authors' release are left out, and convolutions are computed from patches.
"""

import math
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import normal

from jaxmeta.core.types import Array, Float
from jaxmeta.networks.patches import (
    check_kernel_size,
    correlate,
    fan_in_uniform,
    patches,
)
from jaxmeta.symmetry.sharing import (
    Kronecker,
    Sharing,
    identity,
    symmetry_parameter,
)
from jaxmeta.symmetry.structure import weight_matrix

Padding: TypeAlias = Literal["VALID", "SAME"]


class MSRDense(nn.Module):
    """A dense layer with a learned symmetry matrix, in full.

    `y = W x + b` with `vec(W) = U v`, `vec` row-major. At the start `U` and `v` are
    small and random: there is no symmetry yet, and hardly any output.

    Attributes:
      features: outputs, at least 1.
      inner_dim: length `k` of `v`, at least 1: how many parameters a task may choose.
      use_bias: whether to add a bias per output.

    Parameters: `v` `[inner_dim]`, drawn from `N(0, 1/features^2)`; `bias`
    `[features]`, uniform on `+-1/sqrt(in)`.

    Symmetry: `U` `[features * in, inner_dim]`, drawn from `N(0, 0.01^2)`.

    Raises:
      ValueError: for a setting out of range; when applied, for variables that do not
        fit the input.

    References:
      Section 4 of the MSR paper (the "MSR-FC" of its experiments).

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> layer = MSRDense(features=4, inner_dim=2)
      >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 6)))
      >>> jax.tree.map(jnp.shape, variables)
      {'params': {'v': (2,)}, 'symmetry': {'U': (24, 2)}}
      >>> layer.apply(variables, jnp.ones((5, 6))).shape
      (5, 4)
    """

    features: int
    inner_dim: int
    use_bias: bool = False

    def __post_init__(self) -> None:
        _require_positive(features=self.features, inner_dim=self.inner_dim)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "*n in"]) -> Float[Array, "*n out"]:
        num_in = x.shape[-1]
        u = symmetry_parameter(
            self, "U", normal(0.01), (self.features * num_in, self.inner_dim)
        )
        v = self.param("v", normal(1.0 / self.features), (self.inner_dim,))
        y = x @ weight_matrix(u, v, self.features, num_in).T
        return _plus_bias(self, y, fan_in=num_in) if self.use_bias else y


class KroneckerMSRDense(nn.Module):
    """A dense layer whose symmetry matrix is a Kronecker product.

    `y = V (W (U x) + b)`. Without the bias this is a dense layer with weights
    `V W U`, and `vec(V W U) = (V x U^T) vec(W)`: the symmetry matrix `V x U^T`, of
    `(out * in)^2` entries, is held in `out^2 + in^2`. It is square: it cannot tie
    parameters exactly unless it loses rank, but it can make tied directions the fast
    ones. At the start it is the identity, hence the layer an ordinary dense layer.

    Attributes:
      features: outputs, at least 1.
      use_bias: whether to add the bias, which `V` then mixes.

    Parameters: `W` `[features, in]` and `bias` `[features]`, uniform on
    `+-1/sqrt(in)`.

    Symmetry: `U` `[in, in]` and `V` `[features, features]`, identities at the start.

    Raises:
      ValueError: if `features` is below 1; when applied, for variables that do not fit
        the input.

    References:
      The Kronecker-factorised symmetry matrix of the MSR paper, for dense layers.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> layer = KroneckerMSRDense(features=2)
      >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 3)))
      >>> jax.tree.map(jnp.shape, variables["symmetry"])
      {'U': (3, 3), 'V': (2, 2)}
    """

    features: int
    use_bias: bool = False

    def __post_init__(self) -> None:
        _require_positive(features=self.features)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "*n in"]) -> Float[Array, "*n out"]:
        num_in = x.shape[-1]
        u = symmetry_parameter(self, "U", identity, (num_in, num_in))
        v = symmetry_parameter(self, "V", identity, (self.features, self.features))
        w = self.param("W", fan_in_uniform(num_in), (self.features, num_in))
        y = x @ u.T @ w.T
        if self.use_bias:
            y = _plus_bias(self, y, fan_in=num_in)
        return y @ v.T


class MSRConv(nn.Module):
    """A convolution with a learned symmetry matrix.

    `vec(W) = U v`, `vec` row-major over (out, in, taps), then a cross-correlation.
    Translation is built in by the convolution; `U` learns what else the kernels share,
    such as being rotations of each other. In the form that it has by default, a
    Kronecker product, the layer is at the start a `PatchConv`.

    Attributes:
      features: output channels, at least 1.
      kernel_size: taps along each of one or two spatial axes, each at least 1.
      padding: `VALID`, none, or `SAME`, zeros that keep the size, for odd kernels.
      sharing: the form of `U`, which says what parameters there are.
      use_bias: whether to add a bias per output channel, `bias` `[features]`, drawn
        uniformly from `+-1/sqrt(in * taps)` with `taps = prod(kernel_size)`.

    Raises:
      TypeError: if `kernel_size` is not a tuple.
      ValueError: for a setting out of range; when applied, for an input that is not
        `[n, *spatial, in]` or smaller than the kernel, or variables that do not fit.

    References:
      The MSR-Conv layers of the MSR paper's experiments with rotations and
      reflections, section 5.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> layer = MSRConv(features=4, kernel_size=(3, 3))
      >>> x = jnp.ones((2, 8, 8, 1))
      >>> variables = layer.init(jax.random.key(0), x)
      >>> jax.tree.map(jnp.shape, variables["symmetry"])
      {'A': (4, 4), 'B': (1, 1), 'C': (9, 9)}
      >>> layer.apply(variables, x).shape
      (2, 6, 6, 4)
    """

    features: int
    kernel_size: tuple[int, ...]
    padding: Padding = "VALID"
    sharing: Sharing = Kronecker()
    use_bias: bool = False

    def __post_init__(self) -> None:
        _require_positive(features=self.features)
        check_kernel_size(self.kernel_size)
        if self.padding not in get_args(Padding):
            raise ValueError(
                f"padding must be one of {get_args(Padding)}, got {self.padding!r}."
            )
        if self.padding == "SAME" and not all(taps % 2 for taps in self.kernel_size):
            raise ValueError(
                f"kernel_size must be odd with padding SAME, got {self.kernel_size}."
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "n *spatial in"]
    ) -> Float[Array, "n *positions out"]:
        num_in, taps = x.shape[-1], math.prod(self.kernel_size)
        kernel = self.sharing.kernel(self, (self.features, num_in, taps))
        if self.padding == "SAME":
            around = [(side // 2, side // 2) for side in self.kernel_size]
            x = jnp.pad(x, ((0, 0), *around, (0, 0)))
        y = correlate(x, kernel, self.kernel_size)
        return _plus_bias(self, y, fan_in=num_in * taps) if self.use_bias else y


class LocallyConnected(nn.Module):
    """A 1-D convolution that has a kernel of its own at every position.

    `y[p, o] = sum_{t, c} kernel[p, t * in + c, o] x[p + t, c]`, without padding: local
    like a convolution, but with no parameter sharing at all. A baseline.

    Attributes:
      features: output channels, at least 1.
      kernel_size: taps, at least 1.
      use_bias: whether to add a bias per position and output channel.

    Parameters: `kernel` `[positions, kernel_size * in, features]` and `bias`
    `[positions, features]`, uniform on `+-1/sqrt(in * kernel_size)`.

    Raises:
      ValueError: for a setting out of range; when called, for an input that is not
        `[n, length, in]` or shorter than the kernel.

    References:
      The MAML-LC baseline of the MSR paper, section 5.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> layer = LocallyConnected(features=1, kernel_size=3)
      >>> y, variables = layer.init_with_output(jax.random.key(0), jnp.ones((2, 70, 1)))
      >>> y.shape, variables["params"]["kernel"].shape
      ((2, 68, 1), (68, 3, 1))
    """

    features: int
    kernel_size: int
    use_bias: bool = False

    def __post_init__(self) -> None:
        _require_positive(features=self.features, kernel_size=self.kernel_size)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "n length in"]
    ) -> Float[Array, "n position out"]:
        windows = patches(x, (self.kernel_size,))
        positions, fan_in = windows.shape[1:]
        init = fan_in_uniform(fan_in)
        kernel = self.param("kernel", init, (positions, fan_in, self.features))
        y = jnp.einsum("npf,pfo->npo", windows, kernel)
        if self.use_bias:
            bias = self.param("bias", init, (positions, self.features))
            y = y + jnp.broadcast_to(bias, y.shape)
        return y


class Signal(nn.Module):
    """A layer on one-channel signals, given and returned without the channel axis.

    `[n, length] -> [n, length, 1] -> layer -> [n, length', 1] -> [n, length']`: lets
    convolutions and locally connected layers take the data of dense ones.

    Attributes:
      layer: a module from `[n, length, 1]` to `[n, length', 1]`.

    Its variables are those of `layer`, under the name `layer` in each collection.

    Raises:
      ValueError: when called, if the layer returns more than one channel.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> net = Signal(MSRConv(features=1, kernel_size=(3,)))
      >>> y, variables = net.init_with_output(jax.random.key(0), jnp.ones((2, 70)))
      >>> y.shape, sorted(variables)
      ((2, 68), ['params', 'symmetry'])
    """

    layer: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Float[Array, "n length"]) -> Float[Array, "n length_out"]:
        y = self.layer(x[..., None])
        if y.shape[-1] != 1:
            raise ValueError(f"layer must return one channel, got shape {y.shape}.")
        return y[..., 0]


def _plus_bias(module: nn.Module, y: Array, *, fan_in: int) -> Array:
    bias = module.param("bias", fan_in_uniform(fan_in), (y.shape[-1],))
    return y + jnp.broadcast_to(bias, y.shape)


def _require_positive(**settings: int) -> None:
    for name, value in settings.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
