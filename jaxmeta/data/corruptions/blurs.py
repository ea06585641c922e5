"""Blurs: of the lens, of frosted glass, of motion, of a zoom."""

import functools
import math

import numpy as np
from jaxtyping import Float
from scipy import ndimage, sparse

from jaxmeta.data.corruptions.pixels import Images, to_bytes, to_unit

_MOST_TURN_DEG = 45.0


def gaussian_blur(images: Images, sigma: float) -> Images:
    """Convolves with a Gaussian, cut off at four sigma; the edges are continued.

    Args:
      images: `[n, side, side, 3]`.
      sigma: standard deviation in pixels, > 0.

    Example:
      >>> image = np.zeros((1, 32, 32, 3), np.uint8)
      >>> image[0, 16, 16] = 255
      >>> int(gaussian_blur(image, 1.0).max())  # 255 / (2 pi), about
      40
    """
    return to_bytes(_gaussian(to_unit(images), sigma))


def _gaussian(
    x: Float[np.ndarray, "n side side 3"], sigma: float
) -> Float[np.ndarray, "n side side 3"]:
    return ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest")


def defocus_blur(images: Images, radius: float, softness: float) -> Images:
    """Convolves with a disk, whose edge is softened.

    Args:
      images: `[n, side, side, 3]`.
      radius: of the disk in pixels, 0 to 8.
      softness: standard deviation of the Gaussian that softens its edge, in pixels.

    Example:
      >>> image = np.zeros((1, 32, 32, 3), np.uint8)
      >>> image[0, 16, 16] = 255
      >>> defocus_blur(image, 1.0, 0.1)[0, 15:18, 15:18, 0].tolist()
      [[0, 51, 0], [51, 51, 51], [0, 51, 0]]
    """
    kernel = disk(radius, softness)[None, :, :, None]
    return to_bytes(ndimage.correlate(to_unit(images), kernel, mode="mirror"))


def disk(radius: float, softness: float) -> Float[np.ndarray, "size size"]:
    """A disk, convolved with a Gaussian of 3 x 3 pixels; sums to one.

    Args:
      radius: in pixels, >= 0.
      softness: standard deviation of the Gaussian in pixels, > 0.

    Example:
      >>> disk(1.0, 0.1)[1:4, 1:4].round(3).tolist()
      [[0.0, 0.2, 0.0], [0.2, 0.2, 0.2], [0.0, 0.2, 0.0]]
    """
    reach = int(radius) + 1
    offsets = np.arange(-reach, reach + 1)
    kernel = (offsets**2 + offsets[:, None] ** 2 <= radius**2).astype(float)
    gaussian = np.exp(-0.5 * (np.arange(-1, 2) / softness) ** 2)
    for axis in (0, 1):
        kernel = ndimage.correlate1d(kernel, gaussian, axis, mode="constant")
    return kernel / kernel.sum()


def glass_blur(
    images: Images, sigma: float, reach: int, rounds: int, rng: np.random.Generator
) -> Images:
    """Blurs, replaces every pixel by one nearby, and blurs again: frosted glass.

    Pixel after pixel, from the lower right, takes the colour of one that is from -reach
    to reach - 1 rows and columns away. The authors meant to exchange the two; their
    code, and so the published sets, copies one over the other.

    Args:
      images: `[n, side, side, 3]`.
      sigma: of the Gaussian in pixels, > 0.
      reach: in pixels, >= 1.
      rounds: how often the pixels are replaced, >= 1.
      rng: of the places.

    Example:
      >>> image = np.zeros((1, 32, 32, 3), np.uint8)
      >>> image[:, ::2] = 255
      >>> rng = np.random.default_rng(0)
      >>> np.unique(glass_blur(image, 0.05, 1, 1, rng)).tolist()
      [0, 255]
    """
    n, side = images.shape[:2]
    blurred = to_bytes(_gaussian(to_unit(images), sigma))
    each = np.arange(n)
    # `origin[p, i]` is the pixel of image i whose colour p has.
    origin = np.repeat(np.arange(side * side)[:, None], n, axis=1)
    inner = np.arange(side - reach, reach, -1)
    pixels = (inner[:, None] * side + inner).ravel()
    for _ in range(rounds):
        dx, dy = rng.integers(-reach, reach, (len(pixels), 2, n)).swapaxes(0, 1)
        # One after the other: a pixel may take what another has just got.
        for pixel, sources in zip(
            pixels, pixels[:, None] + dy * side + dx, strict=True
        ):
            origin[pixel] = origin[sources, each]
    flat = blurred.reshape(n, side * side, 3)
    shuffled = np.take_along_axis(flat, origin.T[..., None], axis=1)
    x = to_unit(shuffled.reshape(images.shape))
    return to_bytes(_gaussian(x, sigma))


def motion_blur(
    images: Images, radius: int, sigma: float, rng: np.random.Generator
) -> Images:
    """Smears every image along a direction of its own, up to 45 degrees from level.

    Args:
      images: `[n, side, side, 3]`.
      radius: the trail has `2 radius + 1` pixels.
      sigma: how fast it fades, in pixels, > 0.
      rng: of the directions.

    Example:
      >>> grey = np.full((1, 32, 32, 3), 128, np.uint8)
      >>> int(motion_blur(grey, 6, 2.0, np.random.default_rng(0)).min())
      128
    """
    angles = rng.uniform(-_MOST_TURN_DEG, _MOST_TURN_DEG, len(images))
    smeared = [
        smear(image, radius, sigma, angle)
        for image, angle in zip(images.astype(float), angles, strict=True)
    ]
    return np.rint(smeared).astype(np.uint8)


def smear(
    image: Float[np.ndarray, "side side c"], radius: int, sigma: float, angle_deg: float
) -> Float[np.ndarray, "side side c"]:
    """`sum_j k_j x(p + j d)`, d the direction and k half a Gaussian that sums to one.

    This is ImageMagick's motion blur, which the published sets were made with: places
    are rounded to pixels, and the edges are continued.

    Args:
      image: `[side, side, c]`.
      radius: j goes from 0 to `2 radius`.
      sigma: of the Gaussian in pixels, > 0.
      angle_deg: 0 is to the right, 90 is down.

    Example:
      >>> image = np.eye(5)[:, :, None]
      >>> smear(image, 1, 1e6, 90.0)[:, 2, 0].round(2).tolist()
      [0.33, 0.33, 0.33, 0.0, 0.0]
    """
    side = len(image)
    steps = np.arange(2 * radius + 1)
    kernel = np.exp(-0.5 * (steps / sigma) ** 2)
    angle = math.radians(angle_deg)
    places = [
        np.clip(np.arange(side) + np.ceil(steps * d - 0.5)[:, None], 0, side - 1)
        for d in (math.sin(angle), math.cos(angle))
    ]
    rows, columns = np.array(places, int)
    shifted = image[rows[:, :, None], columns[:, None]]
    return np.tensordot(kernel / kernel.sum(), shifted, 1)


def zoom_blur(images: Images, count: int) -> Images:
    """The mean of the image and of `count` enlargements, by 1, 1.01, 1.02 and so on.

    Args:
      images: `[n, side, side, 3]`.
      count: >= 1.

    Example:
      >>> image = np.zeros((1, 32, 32, 3), np.uint8)
      >>> bool((zoom_blur(image + np.uint8(90), 7) >= 89).all())
      True
    """
    return to_bytes(_mapped(_zoom_blur_map(images.shape[1], count), to_unit(images)))


def zoom(
    x: Float[np.ndarray, "n side side c"], factor: float
) -> Float[np.ndarray, "n side side c"]:
    """Enlarges the middle of images to their full size, by linear interpolation.

    Args:
      x: `[n, side, side, c]`.
      factor: >= 1.

    Example:
      >>> x = np.arange(4.0).reshape(1, 1, 4, 1).repeat(4, axis=1)
      >>> zoom(x, 2.0)[0, 0, :, 0].round(2).tolist()
      [1.0, 1.33, 1.67, 2.0]
    """
    return _mapped(_zoom_map(x.shape[1], factor), x)


def _mapped(
    matrix: sparse.csr_array, x: Float[np.ndarray, "n side side c"]
) -> Float[np.ndarray, "n side side c"]:
    """Every pixel as a weighted sum of pixels: `matrix` is `[side^2, side^2]`."""
    n, side, _, c = x.shape
    columns = x.reshape(n, side**2, c).swapaxes(0, 1).reshape(side**2, n * c)
    mapped = (matrix @ columns).reshape(side**2, n, c).swapaxes(0, 1)
    return mapped.reshape(x.shape)


# Both maps are linear with a few weights for each pixel, and the sum of all
# enlargements has hardly more of them than one has.
@functools.cache
def _zoom_blur_map(side: int, count: int) -> sparse.csr_array:
    zooms = [_zoom_map(side, 1.0 + 0.01 * i) for i in range(count)]
    return sum(zooms, start=sparse.eye_array(side**2, format="csr")) / (count + 1)


@functools.cache
def _zoom_map(side: int, factor: float) -> sparse.csr_array:
    kept = math.ceil(side / factor)
    first = (side - kept) // 2
    size = round(kept * factor)
    trim = (size - side) // 2
    places = first + np.arange(trim, trim + side) * (kept - 1) / (size - 1)
    weights = np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(side)))
    return sparse.csr_array(sparse.kron(weights, weights))
