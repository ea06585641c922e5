"""Small random changes of an image that leave its label, as functions of a key."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxmeta.core.types import Array, Float, PRNGKey
from jaxmeta.data.warp import rotation, warp


@dataclasses.dataclass(frozen=True, kw_only=True)
class Jitter:
    """Shifts, turns and scales an image at random, and may mirror it.

    All at once, about the centre, interpolated bilinearly; the border is continued.
    Every number is uniform within its bounds. The defaults leave a digit what it is.

    Raises:
      ValueError: for a number outside its range.

    Example:
      >>> image = jnp.zeros((8, 8, 1)).at[3:5, 3:5].set(1.0)
      >>> Jitter()(jax.random.key(0), image).shape
      (8, 8, 1)
    """

    max_shift: float = 0.1
    """In each direction, as a share of the side, 0 to 1."""

    max_turn_deg: float = 10.0
    """Either way, in degrees, 0 to 180."""

    max_scale: float = 0.1
    """Larger or smaller by at most this share, 0 to below 1."""

    mirror: bool = False
    """Whether half of the images are mirrored left to right; not for digits."""

    def __post_init__(self):
        for name, most in (("max_shift", 1.0), ("max_turn_deg", 180.0)):
            if not 0 <= (value := getattr(self, name)) <= most:
                raise ValueError(f"{name} must be from 0 to {most:g}, got {value}.")
        if not 0 <= self.max_scale < 1:
            raise ValueError(f"max_scale must be in [0, 1), got {self.max_scale}.")

    def __call__(
        self, key: PRNGKey, image: Float[Array, "height width channel"]
    ) -> Float[Array, "height width channel"]:
        """A changed copy of one image `[height, width, channel]`."""
        shift_key, turn_key, scale_key, mirror_key = jax.random.split(key, 4)
        between = lambda key, bound, shape=(): jax.random.uniform(
            key, shape, minval=-bound, maxval=bound
        )
        sides = jnp.array(image.shape[:2])
        shift = sides * between(shift_key, self.max_shift, (2,))
        turn = between(turn_key, math.radians(self.max_turn_deg))
        scale = 1.0 + between(scale_key, self.max_scale)
        chosen = jax.random.bernoulli(mirror_key) if self.mirror else False
        mirror = jnp.array([1.0, jnp.where(chosen, -1.0, 1.0)])
        # Where every pixel comes from: back through all that is done to the image.
        matrix = mirror[:, None] * rotation(turn) / scale
        return warp(image, matrix, -matrix @ shift, border="nearest")
