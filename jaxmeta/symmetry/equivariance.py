"""How far the layers of a network are from equivariant.

A layer whose features are `phi(x)` `[height, width, channel]` is equivariant to a
motion g of the image if `phi(g x) = P g phi(x)`: it does not matter, but for a change P
of the channels, whether the image moves or what is seen in it. P is not known, so the
best one is fitted, and the error is the share of the features that it does not explain.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jax import numpy as jnp

from jaxmeta.core.types import Array, Float, PyTree
from jaxmeta.networks.conv import Conv4
from jaxmeta.networks.norm import BatchNorm

MOTIONS: Mapping[str, Callable[[Array], Array]] = {
    "left-right flip": lambda x: jnp.flip(x, 2),
    "up-down flip": lambda x: jnp.flip(x, 1),
    "quarter turn": lambda x: jnp.rot90(x, axes=(1, 2)),
    "half turn": lambda x: jnp.rot90(x, 2, axes=(1, 2)),
}
"""Motions of images `[n, side, side, channel]` that move pixels onto pixels."""


def unexplained_share(
    features: Float[Array, "n side side channel"],
    moved: Float[Array, "n side side channel"],
    motion: Callable[[Array], Array],
) -> float:
    """`min_P |phi(g x) - P g phi(x)|^2 / |phi(g x) - mean|^2`, from 0 to 1.

    Args:
      features: `phi(x)` of some images.
      moved: `phi(g x)` of the same.
      motion: g, one of `MOTIONS`.

    Example:
      >>> x = jnp.arange(18.0).reshape(1, 3, 3, 2)
      >>> flip = MOTIONS["up-down flip"]
      >>> round(unexplained_share(x, 2 * flip(x), flip), 6)
      0.0
    """
    channels = features.shape[-1]
    flat = lambda x: np.asarray(x, np.float64).reshape(-1, channels)
    seen, wanted = flat(motion(features)), flat(moved)
    ones = np.ones((len(seen), 1))
    fitted, *_ = np.linalg.lstsq(np.hstack([seen, ones]), wanted, rcond=None)
    left = wanted - np.hstack([seen, ones]) @ fitted
    return float(np.square(left).sum() / np.square(wanted - wanted.mean(0)).sum())


def layer_features(
    network: Conv4, variables: PyTree, images: Float[Array, "n side side channel"]
) -> list[Array]:
    """The normalised output of every convolution of `Conv4`, the first first.

    Args:
      network: `Conv4` or a subclass.
      variables: all of them but statistics, which are those of the images.
      images: `[n, side, side, channel]`.

    Returns:
      `[n, side, side, channel]` each, of its own side and channels.
    """
    # The head is left out: it is made for images of one side.
    found: Any = network.clone(num_classes=None).apply(
        variables,
        images,
        capture_intermediates=lambda module, _: isinstance(module, BatchNorm),
        mutable=True,
    )[1]
    layers = found["intermediates"]
    return [layers[f"BatchNorm_{i}"]["__call__"][0] for i in range(len(layers))]


def _framed(images: Array, multiple: int) -> Array:
    missing = -images.shape[1] % multiple
    around = (missing // 2, missing - missing // 2)
    return jnp.pad(images, ((0, 0), around, around, (0, 0)))


def layer_errors(
    network: Conv4, variables: PyTree, images: Float[Array, "n side side channel"]
) -> dict[str, list[float]]:
    """The error of every layer under each of `MOTIONS`.

    Images are framed with zeros to a side that all poolings divide. Pooling an odd side
    leaves a row out, which no motion of the image commutes with, whatever is learned.

    Args:
      network: `Conv4` or a subclass.
      variables: all of them but statistics, which are those of the images.
      images: `[n, side, side, channel]`, many more than a layer has channels.

    Example:
      >>> import jax
      >>> images = jax.random.normal(jax.random.key(0), (8, 16, 16, 1))
      >>> network = Conv4(features=4)
      >>> variables = network.init(jax.random.key(1), images)
      >>> len(layer_errors(network, variables, images)["half turn"])
      4
    """
    images = _framed(images, 2**network.num_blocks)
    still = layer_features(network, variables, images)
    return {
        name: [
            unexplained_share(features, moved, motion)
            for features, moved in zip(
                still,
                layer_features(network, variables, motion(images)),
                strict=True,
            )
        ]
        for name, motion in MOTIONS.items()
    }
