"""Noise: of a sensor, of few photons, of broken pixels."""

import numpy as np

from jaxmeta.data.corruptions.pixels import Images, to_bytes, to_unit


def gaussian_noise(images: Images, sigma: float, rng: np.random.Generator) -> Images:
    """`x + sigma z`, z standard normal: low light.

    Args:
      images: `[n, side, side, 3]`.
      sigma: standard deviation, in units of the full range, >= 0.
      rng: of the noise.

    Example:
      >>> grey = np.full((1, 32, 32, 3), 128, np.uint8)
      >>> noisy = gaussian_noise(grey, 0.1, np.random.default_rng(0))
      >>> bool(abs(noisy.std() - 25.5) < 1)
      True
    """
    x = to_unit(images)
    return to_bytes(x + rng.normal(scale=sigma, size=x.shape))


def shot_noise(images: Images, photons: float, rng: np.random.Generator) -> Images:
    """`Poisson(photons x) / photons`: the discreteness of light.

    Args:
      images: `[n, side, side, 3]`.
      photons: how many of them a white pixel receives, > 0; fewer is noisier.
      rng: of the noise.

    Example:
      >>> black = np.zeros((1, 32, 32, 3), np.uint8)
      >>> int(shot_noise(black, 50.0, np.random.default_rng(0)).max())
      0
    """
    return to_bytes(rng.poisson(to_unit(images) * photons) / photons)


def impulse_noise(images: Images, amount: float, rng: np.random.Generator) -> Images:
    """Salt and pepper: some values are 0 or 1, each as often.

    Args:
      images: `[n, side, side, 3]`.
      amount: the share of values that is lost, channel by channel, in [0, 1].
      rng: of the noise.

    Example:
      >>> grey = np.full((1, 32, 32, 3), 128, np.uint8)
      >>> noisy = impulse_noise(grey, 0.1, np.random.default_rng(0))
      >>> np.unique(noisy).tolist()
      [0, 128, 255]
    """
    lost = rng.random(images.shape) <= amount
    salt = rng.random(images.shape) <= 0.5
    return np.where(lost, np.where(salt, 255, 0), images).astype(np.uint8)


def speckle_noise(images: Images, sigma: float, rng: np.random.Generator) -> Images:
    """`x + sigma x z`, z standard normal: noise that grows with the light.

    Args:
      images: `[n, side, side, 3]`.
      sigma: standard deviation of the factor on each value, >= 0.
      rng: of the noise.

    Example:
      >>> black = np.zeros((1, 32, 32, 3), np.uint8)
      >>> int(speckle_noise(black, 0.2, np.random.default_rng(0)).max())
      0
    """
    x = to_unit(images)
    return to_bytes(x + x * rng.normal(scale=sigma, size=x.shape))
