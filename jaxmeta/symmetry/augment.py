"""Random changes of an image that a learned symmetry should not mind.

Zhou, Knowles, Finn, "Meta-Learning Symmetries by Reparameterization" (2021), section 6
and algorithm 2: the query images of a task are augmented and its support images are
not, so that what does not change has to be learned by the outer loop.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxmeta.core.types import Array, Float, PRNGKey
from jaxmeta.data.warp import rotation, warp


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
    """Crops an image and blows the crop up, mirrors it, and turns it.

    A crop has an area and a ratio of width to height drawn from their ranges (the ratio
    on a logarithmic scale, and both as far as the image allows) and lies anywhere. All
    is done in one bilinear interpolation, where torchvision makes two; what the turned
    crop does not reach is 0.

    Raises:
      ValueError: for a number outside its range, or ranges out of order.

    Example:
      >>> image = jnp.ones((28, 28, 1))
      >>> Augment()(jax.random.key(0), image).shape
      (28, 28, 1)
    """

    area: tuple[float, float] = (0.8, 1.0)
    """Of the crop, as a share of the image's, above 0 to 1."""

    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Of its width to its height, as shares of the image's, > 0."""

    mirror: float = 0.5
    """How often left and right change places, 0 to 1."""

    upend: float = 0.5
    """How often top and bottom do, 0 to 1."""

    max_turn_deg: float = 30.0
    """Either way, in degrees, 0 to 180."""

    def __post_init__(self):
        for name, most in (("area", 1.0), ("ratio", math.inf)):
            low, high = getattr(self, name)
            if not 0 < low <= high <= most:
                limit = f" and at most {most:g}" * math.isfinite(most)
                raise ValueError(
                    f"{name} must be two numbers in order, above 0{limit}, got {low} "
                    f"and {high}."
                )
        limits = {"mirror": 1.0, "upend": 1.0, "max_turn_deg": 180.0}
        for name, most in limits.items():
            if not 0 <= (value := getattr(self, name)) <= most:
                raise ValueError(f"{name} must be from 0 to {most:g}, got {value}.")

    def __call__(
        self, key: PRNGKey, image: Float[Array, "height width channel"]
    ) -> Float[Array, "height width channel"]:
        """A changed copy of one image."""
        keys = jax.random.split(key, 6)
        between = lambda key, low, high: jax.random.uniform(
            key, minval=low, maxval=high
        )
        sides = jnp.array(image.shape[:2], jnp.float32)
        area = between(keys[0], *self.area)
        low, high = map(math.log, self.ratio)
        most = -jnp.log(area)  # beyond which the crop would leave the image
        ratio = jnp.exp(
            between(keys[1], *(jnp.clip(x, -most, most) for x in (low, high)))
        )
        share = jnp.sqrt(jnp.stack([area / ratio, area * ratio]))
        room = (1.0 - share) * sides / 2  # either way
        offset = room * jax.random.uniform(keys[2], (2,), minval=-1.0, maxval=1.0)
        flips = jnp.stack(
            [
                jnp.where(jax.random.bernoulli(key, p), -1.0, 1.0)
                for key, p in zip(keys[3:5], (self.upend, self.mirror), strict=True)
            ]
        )
        bound = math.radians(self.max_turn_deg)
        turned = rotation(between(keys[5], -bound, bound))
        # Where in the crop, as large as the image again, and from there in the image.
        in_crop = flips[:, None] * turned
        seen = warp(image, share[:, None] * in_crop, offset, border="nearest")
        inside = warp(jnp.ones((*image.shape[:2], 1)), in_crop)
        return inside * seen
