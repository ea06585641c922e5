"""Augerino: the ranges of augmentations as parameters.

Benton, Finzi, Izmailov, Wilson, "Learning Invariances in Neural Networks" (NeurIPS
2020). A network is averaged over motions of its input, drawn uniformly from ranges that
are trained with it; a reward for wide ranges keeps them from vanishing, and the loss
from covering motions that matter.
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmeta.core.types import Array, Float, Params, PRNGKey
from jaxmeta.meta.maml import Maml
from jaxmeta.networks.norm import OWN, Statistics
from jaxmeta.symmetry.motions import GENERATORS, exponential, move
from jaxmeta.symmetry.sharing import SYMMETRY, symmetry_parameter

RANGES = "ranges"
"""The name of what is learned, before its softplus."""

_MOTIONS, _DRAWN = "motions", "drawn"


class Averaged(nn.Module):
    """A network averaged over moved copies of its images.

    `y = mean_j network(exp(sum_k u_jk r_k G_k) x)` with `u` uniform on `+-1` and the
    ranges `r` positive. All images of a set share the motions, so that nothing tells an
    image by its place in the set. `u` is the same in every call, as answers repeat, but
    `Augerino` draws another for every task that it learns from.

    Attributes:
      network: from images and `Statistics` to outputs `[n, ...]`.
      copies: moved copies of every image, >= 1.
      start: of all ranges, > 0: radians for the rotation, half sides for the shifts.

    Symmetry: `ranges` `[6]` before their softplus, in the order of `GENERATORS`.

    Raises:
      ValueError: for a number outside its range.

    Example:
      >>> from jaxmeta.networks.conv import Conv4
      >>> network = Averaged(network=Conv4(features=4), copies=2)
      >>> variables = network.init(jax.random.key(0), jnp.ones((3, 16, 16, 1)))
      >>> variables["symmetry"]["ranges"].shape
      (6,)
    """

    network: nn.Module
    copies: int = 4
    start: float = 0.1

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise ValueError(f"copies must be >= 1, got {self.copies}.")
        if not self.start > 0:
            raise ValueError(f"start must be > 0, got {self.start}.")
        super().__post_init__()

    @nn.nowrap
    def draw(self, key: PRNGKey) -> Float[Array, "copy generator"]:
        """The motions of every copy as shares of the ranges, uniform on `+-1`."""
        return jax.random.uniform(key, (self.copies, len(GENERATORS)), minval=-1.0)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n side side channel"],
        statistics: Statistics = OWN,
    ) -> Float[Array, "n *out"]:
        before = math.log(math.expm1(self.start))
        full = lambda key, shape: jnp.full(shape, before, jnp.float32)
        raw = symmetry_parameter(self, RANGES, full, (len(GENERATORS),))
        u = self.get_variable(_MOTIONS, _DRAWN, self.draw(jax.random.key(0)))
        motions = jax.vmap(exponential)(u * jax.nn.softplus(raw)[None])
        of_set = jax.vmap(move, (0, None))
        copies = jax.vmap(of_set, (None, 0))(x, motions).reshape(-1, *x.shape[1:])
        outputs = self.network(copies, statistics)
        return outputs.reshape(self.copies, len(x), *outputs.shape[1:]).mean(0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augerino(Maml):
    """MAML whose outer loop learns the ranges of an `Averaged` network.

    The outer loss is MAML's minus `reward * sum(ranges)`, at motions that are drawn
    anew for every task.

    Raises:
      ValueError: for a network that is not `Averaged`, or a negative reward.

    Example:
      >>> from jaxmeta.networks.conv import Conv4
      >>> learner = Augerino(network=Averaged(network=Conv4(features=8)))
    """

    reward: float = 0.01
    """For wide ranges, >= 0."""

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.network, Averaged):
            raise ValueError(
                "network must be Averaged, whose ranges are learned, got "
                f"{type(self.network).__name__}."
            )
        if not self.reward >= 0:
            raise ValueError(f"reward must be >= 0, got {self.reward}.")

    @staticmethod
    def ranges(params: Params) -> Float[Array, "generator"]:
        """What was learned, `[6]` in the order of `GENERATORS`."""
        return jax.nn.softplus(params["slow"][SYMMETRY][RANGES])

    def loss(self, params, model_state, task, key):
        assert isinstance(self.network, Averaged)
        drawn = {_MOTIONS: {_DRAWN: self.network.draw(key)}}
        moved = {**params, "slow": {**params["slow"], **drawn}}
        loss, aux = super().loss(moved, model_state, task, key)
        return loss - self.reward * self.ranges(params).sum(), aux
