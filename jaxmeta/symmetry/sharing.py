"""How the kernels of a convolution share parameters: forms of the symmetry matrix U.

Every form writes a kernel as `vec(W) = U v`. They differ in which U can be, and so in
what can be learned and read off it:

  form        U, for n = out * in * taps weights     numbers in U
  Kronecker   A x B x C, square                      out^2 + in^2 + taps^2
  LowRank     any n x rank matrix                    n * rank
  Sinkhorn    copies of v, each with its taps mixed  copies * taps^2
              by a doubly stochastic matrix

A Kronecker product starts as the identity and cannot tie parameters unless it loses
rank, a matrix of low rank ties them from the start, and a doubly stochastic matrix is a
permutation that is not sure of itself.

References:
  Zhou, Knowles, Finn, "Meta-Learning Symmetries by Reparameterization" (2021), section
  4, for the first two.
  van der Linden, García-Castellanos, Vadgama, Kuipers, Bekkers, "Learning Symmetries
  via Weight-Sharing with Doubly Stochastic Tensors" (2024), for the third.
"""

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer, normal, orthogonal

from jaxmeta.core.types import Array, Float, PRNGKey
from jaxmeta.networks.patches import fan_in_uniform

SYMMETRY = "symmetry"
"""The Flax collection of symmetry parameters, as `"params"` is that of the rest."""

Shape: TypeAlias = tuple[int, int, int]
"""Of a kernel: out, in, taps."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sharing(abc.ABC):
    """A form of the symmetry matrix."""

    @abc.abstractmethod
    def kernel(self, layer: nn.Module, shape: Shape) -> Float[Array, "out in taps"]:
        """The kernel of a layer, whose parameters v and U it makes.

        Args:
          layer: the module that is being called.
          shape: of the kernel.

        Raises:
          ValueError: for variables that do not fit, or a shape that has no such form.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kronecker(Sharing):
    """`W[o, i, t] = sum_{o', i', t'} A[o, o'] B[i, i'] C[t, t'] v[o', i', t']`.

    Parameters: `v` `[out, in, taps]`, uniform on `+-1/sqrt(in * taps)`.

    Symmetry: `A` `[out, out]`, `B` `[in, in]`, `C` `[taps, taps]`, identities at first.

    Example:
      >>> Kronecker().learned
      True
    """

    learned: bool = True
    """Whether the outer loop moves A, B and C; if not, they are identities, and not
    there."""

    def kernel(self, layer, shape):
        out, num_in, taps = shape
        v = layer.param("v", fan_in_uniform(num_in * taps), shape)
        if not self.learned:
            return v
        sides = {"A": out, "B": num_in, "C": taps}
        a, b, c = (
            symmetry_parameter(layer, name, identity, (side, side))
            for name, side in sides.items()
        )
        # One factor at a time: the product matrix is never formed.
        kernel = jnp.einsum("op,pit->oit", a, v)
        kernel = jnp.einsum("ij,ojt->oit", b, kernel)
        return jnp.einsum("ts,ois->oit", c, kernel)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowRank(Sharing):
    """`vec(W) = U v`, U in full, with fewer columns than rows.

    At first the columns are orthonormal, and the kernel is as large as an ordinary one.

    Parameters: `v` `[rank]`, normal.

    Symmetry: `U` `[out * in * taps, rank]`.

    Raises:
      ValueError: for a rank below 1, or above the number of weights when called.

    Example:
      >>> LowRank(rank=8).rank
      8
    """

    rank: int
    """Columns of U: how many numbers a task may choose, >= 1."""

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"rank must be >= 1, got {self.rank}.")

    def kernel(self, layer, shape):
        num_weights, fan_in = math.prod(shape), math.prod(shape[1:])
        if self.rank > num_weights:
            raise ValueError(
                f"rank must be <= {num_weights}, the number of weights of a kernel of "
                f"shape {shape}, got {self.rank}."
            )
        u = symmetry_parameter(layer, "U", orthogonal(), (num_weights, self.rank))
        # Then a weight has the variance 1 / (3 fan_in) that `fan_in_uniform` gives.
        scale = math.sqrt(num_weights / (3 * fan_in * self.rank))
        v = layer.param("v", normal(scale), (self.rank,))
        return (u @ v).reshape(shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sinkhorn(Sharing):
    """`W[j * free + o, i, t] = sum_s S_j[t, s] v[o, i, s]`, S_j doubly stochastic.

    A layer has `free = out / copies` filters of its own and shows each in all copies,
    the taps of the j-th moved by S_j, which `soft_permutations` makes of free numbers.
    If the S_j are the permutations of a group, the layer is a convolution that lifts an
    image to that group; it does not move the copies that come in, as a later layer of a
    group convolution would.

    Parameters: `v` `[free, in, taps]`, uniform on `+-1/sqrt(in * taps)`.

    Symmetry: `S` `[copies, taps, taps]`, the free numbers, `N(0, 4)`.

    Raises:
      ValueError: for a number below 1, or copies that do not divide the channels.

    Example:
      >>> Sinkhorn(copies=4).iterations
      20
    """

    copies: int
    """Transformed copies of every filter, >= 1."""

    iterations: int = 20
    """Of Sinkhorn's algorithm, >= 1."""

    def __post_init__(self):
        for name in ("copies", "iterations"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be >= 1, got {value}.")

    def kernel(self, layer, shape):
        out, num_in, taps = shape
        if out % self.copies:
            raise ValueError(
                f"the number of channels must be a multiple of copies "
                f"({self.copies}), got {out}."
            )
        s = symmetry_parameter(layer, "S", normal(2.0), (self.copies, taps, taps))
        init = fan_in_uniform(num_in * taps)
        v = layer.param("v", init, (out // self.copies, num_in, taps))
        moved = soft_permutations(s, self.iterations)
        return jnp.einsum("jts,ois->joit", moved, v).reshape(shape)


def soft_permutations(
    logits: Float[Array, "*n side side"], iterations: int = 20
) -> Float[Array, "*n side side"]:
    """Doubly stochastic matrices: `exp(logits)`, its rows and columns scaled to sum 1.

    Args:
      logits: `[..., side, side]`, any numbers.
      iterations: >= 1. Columns sum to 1 exactly, rows the better the more there are.

    References:
      Sinkhorn, "A Relationship Between Arbitrary Positive Matrices and Doubly
      Stochastic Matrices" (1964); on logarithms as in Mena et al., "Learning Latent
      Permutations with Gumbel-Sinkhorn Networks" (2018).

    Example:
      >>> print(soft_permutations(jnp.array([[9.0, 0.0], [0.0, 9.0]])).round(2))
      [[1. 0.]
       [0. 1.]]
    """
    for _ in range(iterations):
        logits = jax.nn.log_softmax(logits, axis=-1)
        logits = jax.nn.log_softmax(logits, axis=-2)
    return jnp.exp(logits)


def identity(key: PRNGKey, shape: tuple[int, int]) -> Array:
    """The identity matrix, as an initializer.

    Example:
      >>> identity(jax.random.key(0), (2, 2)).tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    del key
    return jnp.eye(*shape)


def symmetry_parameter(
    module: nn.Module,
    name: str,
    init: Initializer | Callable[[PRNGKey, Any], Array],
    shape: tuple[int, ...],
) -> Array:
    """`module.param` for the symmetry collection: drawn by `init`, checked on use.

    Args:
      module: the module that is being called.
      name: of the parameter.
      init: `(key, shape) -> array`.
      shape: of the parameter.

    Raises:
      ValueError: if the variables have it in another shape.

    Example:
      >>> class Scale(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, x):
      ...         return x @ symmetry_parameter(self, "U", identity, (2, 2))
      >>> Scale().init(jax.random.key(0), jnp.ones(2))["symmetry"]["U"].shape
      (2, 2)
    """
    variable = module.variable(
        SYMMETRY, name, lambda: init(module.make_rng("params"), shape)
    )
    if variable.value.shape != shape:
        raise ValueError(
            f"{type(module).__name__} needs a symmetry parameter {name} of shape "
            f"{shape}, got {variable.value.shape}."
        )
    return variable.value
