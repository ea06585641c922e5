"""Batch normalisation that says whose statistics it uses, and which it keeps.

A network in training or evaluation mode hides three choices in one switch. Here they
are two numbers that every call states: how much the statistics of the batch at hand
count among those that are used, and among those that are kept. Nothing is kept unless
the collection `batch_stats` is mutable.
"""

import jax
from flax import linen as nn
from flax import struct
from jax import numpy as jnp

from jaxmeta.core.types import Array, Float

STATS = "batch_stats"
"""The collection of stored means and variances."""


@struct.dataclass
class Statistics:
    """Whose mean and variance a normalisation uses, and which it stores.

    Attributes:
      use: `[]` share of the batch's own statistics in those that are used, 0 to 1; the
        rest are the stored ones.
      keep: `[]` share of the batch's own statistics in those that are stored next.
      pooled: whether two variances mix as those of the united set of points, the
        distance of their means included, or plainly, as running averages do.
      sets: of how many sets of one size, one after the other, the batch consists. Each
        has its own statistics, and their mean is what is stored.

    Example:
      >>> Statistics(use=1.0, keep=0.1) == TRAINING
      True
    """

    use: float | Float[Array, ""]
    keep: float | Float[Array, ""]
    pooled: bool = struct.field(pytree_node=False, default=False)
    sets: int = struct.field(pytree_node=False, default=1)


TRAINING = Statistics(use=1.0, keep=0.1)
"""The batch's own; a tenth of them is stored."""

STORED = Statistics(use=0.0, keep=0.0)
"""What training has stored."""

OWN = Statistics(use=1.0, keep=1.0)
"""The batch's own, and nothing else is remembered."""


def mix(
    stored: tuple[Array, Array],
    batch: tuple[Array, Array],
    share: float | Array,
    *,
    pooled: bool = False,
) -> tuple[Array, Array]:
    """`(1 - share) stored + share batch`, of means and of variances.

    Pooled, the variance is that of the mixture of the two sets,
    `(1-s) (v_1 + (m_1 - m)^2) + s (v_2 + (m_2 - m)^2)`, so that with `share = 1/t` at
    the t-th batch of one size it is exactly that of all t batches.

    Args:
      stored: mean and variance, `[channel]` each.
      batch: mean and variance, `[channel]` each.
      share: `[]`, 0 to 1.
      pooled: see above.

    Returns:
      Mean and variance, `[channel]` each.

    Example:
      >>> one, two = (jnp.zeros(1), jnp.ones(1)), (jnp.full(1, 2.0), jnp.ones(1))
      >>> [x.item() for x in mix(one, two, 0.5)]
      [1.0, 1.0]
      >>> [x.item() for x in mix(one, two, 0.5, pooled=True)]
      [1.0, 2.0]
    """
    mean, var = (between(a, b, share) for a, b in zip(stored, batch, strict=True))
    if pooled:
        var += part(share * (1.0 - share), jnp.square(batch[0] - stored[0]))
    return mean, var


def part(share: float | Array, x: Array) -> Array:
    """`share x`, and nothing of what has no share, be it nan.

    Example:
      >>> part(0.0, jnp.array(jnp.nan)).item()
      0.0
    """
    return jnp.where(share > 0, share * x, 0.0)


def between(a: Array, b: Array, share: float | Array) -> Array:
    """`(1 - share) a + share b`, each with its `part`.

    Example:
      >>> between(jnp.array(1.0), jnp.array(2.0), 0.25).item()
      1.25
    """
    return part(1.0 - share, a) + part(share, b)


class BatchNorm(nn.Module):
    """`scale (x - mean) / sqrt(var + epsilon) + bias`, one mean and var a channel.

    The statistics of a set are taken over all axes but the last, over unmasked rows;
    the variance is the biased one. Gradients flow through them, kept ones included.

    Attributes:
      epsilon: > 0.

    Parameters: `scale`, `bias` `[channel]`. `batch_stats`: `mean`, `var` `[channel]`.

    References:
      Ioffe and Szegedy, Batch Normalization (2015), algorithm 1.

    Example:
      >>> x = jnp.array([[1.0], [3.0], [100.0]])
      >>> mask = jnp.array([True, True, False])
      >>> y, _ = BatchNorm().init_with_output(jax.random.key(0), x, OWN, mask)
      >>> y[:2, 0].round(3).tolist()
      [-1.0, 1.0]
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n *spatial channel"],
        statistics: Statistics,
        mask: Array | None = None,
    ) -> Float[Array, "n *spatial channel"]:
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable(STATS, "mean", jnp.zeros, shape)
        var = self.variable(STATS, "var", jnp.ones, shape)
        split = lambda leaf: leaf.reshape((statistics.sets, -1, *leaf.shape[1:]))
        stored = (mean.value, var.value)
        normalised, kept = jax.vmap(
            lambda x, mask: _normalise(x, mask, stored, statistics, self.epsilon)
        )(split(x), None if mask is None else split(mask))
        along = lambda v: v.reshape((1,) * (x.ndim - 1) + shape)
        if self.is_mutable_collection(STATS) and not self.is_initializing():
            mean.value, var.value = (leaf.mean(0) for leaf in kept)
        return normalised.reshape(x.shape) * along(scale) + along(bias)


def _normalise(
    x: Array,
    mask: Array | None,
    stored: tuple[Array, Array],
    statistics: Statistics,
    epsilon: float,
) -> tuple[Array, tuple[Array, Array]]:
    """One set with mean 0 and variance 1 by what it uses, and what it keeps."""
    if mask is not None:  # a masked row may hold anything, nan included
        x = jnp.where(_rows(mask, x), x, 0.0)
    mean, var, seen = _moments(x, mask)
    # Of a batch without a point nothing is known.
    use, keep = (jnp.where(seen, s, 0.0) for s in (statistics.use, statistics.keep))
    used = mix(stored, (mean, var), use, pooled=statistics.pooled)
    kept = mix(stored, (mean, var), keep, pooled=statistics.pooled)
    along = lambda v: v.reshape((1,) * (x.ndim - 1) + v.shape)
    return (x - along(used[0])) * along(jax.lax.rsqrt(used[1] + epsilon)), kept


def _rows(mask: Array, x: Array) -> Array:
    """The mask of rows, with as many axes as x."""
    return mask.reshape(mask.shape + (1,) * (x.ndim - 1))


def _moments(x: Array, mask: Array | None) -> tuple[Array, Array, Array]:
    """Mean and variance of every channel over unmasked rows, and if there are any."""
    axes = tuple(range(x.ndim - 1))
    if mask is None:
        return x.mean(axes), x.var(axes), jnp.array(True)
    rows, count = _rows(mask, x), mask.sum() * (x.size // (x.shape[0] * x.shape[-1]))
    average = lambda values: (
        jnp.where(rows, values, 0.0).sum(axes) / jnp.maximum(count, 1)
    )
    mean = average(x)
    centred = x - mean.reshape((1,) * (x.ndim - 1) + mean.shape)
    return mean, average(jnp.square(centred)), count > 0
