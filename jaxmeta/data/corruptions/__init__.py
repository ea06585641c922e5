"""The 19 common image corruptions, at the strengths of CIFAR-10-C and Tiny ImageNet-C.

The definitions and the strengths are the published ones, the images are not: the
random draws differ. The published files of 64 pixels were also stored as JPEG of
quality 85, which is not done here.

References:
  Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions
  and Perturbations, ICLR 2019 (arXiv 1903.12261); the authors' code is
  hendrycks/robustness.
"""

from collections.abc import Callable

import numpy as np

from jaxmeta.core.names import did_you_mean
from jaxmeta.data.corruptions.blurs import (
    defocus_blur,
    gaussian_blur,
    glass_blur,
    motion_blur,
    zoom_blur,
)
from jaxmeta.data.corruptions.digital import (
    brightness,
    contrast,
    elastic_transform,
    jpeg_compression,
    pixelate,
    saturate,
)
from jaxmeta.data.corruptions.liquid import spatter
from jaxmeta.data.corruptions.noise import (
    gaussian_noise,
    impulse_noise,
    shot_noise,
    speckle_noise,
)
from jaxmeta.data.corruptions.strengths import STRENGTHS
from jaxmeta.data.corruptions.weather import fog, frost, snow
from jaxmeta.data.corruptions.weather import frost_textures as frost_textures

_RANDOM: dict[str, Callable[..., np.ndarray]] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "speckle_noise": speckle_noise,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "elastic_transform": elastic_transform,
    "spatter": spatter,
}
_FIXED: dict[str, Callable[..., np.ndarray]] = {
    "gaussian_blur": gaussian_blur,
    "defocus_blur": defocus_blur,
    "zoom_blur": zoom_blur,
    "brightness": brightness,
    "contrast": contrast,
    "saturate": saturate,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
}

CORRUPTIONS: tuple[str, ...] = tuple(STRENGTHS[32])
"""The names of all corruptions, as in CIFAR-10-C."""

SEVERITIES: tuple[int, ...] = (1, 2, 3, 4, 5)
"""From the weakest to the strongest."""

# At once: as numbers, images take eight times their space, several times over.
_BLOCK = 256


def corrupt(
    images: np.ndarray, name: str, severity: int, rng: np.random.Generator
) -> np.ndarray:
    """Corrupts images as CIFAR-10-C (32 pixels) or Tiny ImageNet-C (64) would.

    Args:
      images: `[n, side, side, 3]` bytes, side 32 or 64.
      name: one of `CORRUPTIONS`.
      severity: 1 to 5.
      rng: of everything random, drawn afresh for every image; the same state gives the
        same images. Some corruptions draw nothing.

    Returns:
      `[n, side, side, 3]` bytes, a new array.

    Raises:
      ValueError: for an unknown corruption or severity, or images of another shape or
        type.
      DataError: for `frost` without its photos; see `frost_textures`.

    Example:
      >>> grey = np.full((2, 32, 32, 3), 128, np.uint8)
      >>> corrupt(grey, "brightness", 5, np.random.default_rng(0))[0, 0, 0].tolist()
      [204, 204, 204]
    """
    _check(images, name, severity)
    strength = STRENGTHS[images.shape[1]][name][severity - 1]
    corrupted = np.empty_like(images)
    for start in range(0, len(images), _BLOCK):
        block = slice(start, start + _BLOCK)
        if name in _RANDOM:
            corrupted[block] = _RANDOM[name](images[block], *strength, rng)
        else:
            corrupted[block] = _FIXED[name](images[block], *strength)
    return corrupted


def _check(images: np.ndarray, name: str, severity: int) -> None:
    if name not in CORRUPTIONS:
        hint = did_you_mean(name, CORRUPTIONS, f"known: {', '.join(CORRUPTIONS)}.")
        raise ValueError(f"There is no corruption {name!r}; {hint}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be from 1 to 5, got {severity}.")
    if images.dtype != np.uint8:
        raise ValueError(f"images must be uint8, got {images.dtype}.")
    sides = images.shape[1:3]
    if images.ndim != 4 or images.shape[3] != 3 or sides not in {(32, 32), (64, 64)}:
        raise ValueError(
            "images must be [n, 32, 32, 3] or [n, 64, 64, 3], got "
            f"{list(images.shape)}."
        )
