"""What a camera or a file does: colours, compression, resolution, geometry."""

import io

import numpy as np
from jaxtyping import Float, Int
from PIL import Image
from scipy import ndimage

from jaxmeta.data.corruptions.pixels import Images, to_bytes, to_unit


def brightness(images: Images, shift: float) -> Images:
    """Adds to the value of hue, saturation and value: `V <- min(V + shift, 1)`.

    V is the largest channel. Hue and saturation stay, so every channel is scaled by the
    same factor; black becomes grey.

    Args:
      images: `[n, side, side, 3]`.
      shift: in [0, 1].

    Example:
      >>> pixel = np.array([[[[102, 51, 0]]]], np.uint8)  # V = 0.4
      >>> brightness(pixel, 0.4).tolist()
      [[[[204, 102, 0]]]]
    """
    x = to_unit(images)
    value = x.max(axis=-1, keepdims=True)
    brighter = np.clip(value + shift, 0.0, 1.0)
    scaled = x / np.where(value > 0, value, 1.0) * brighter
    return to_bytes(np.where(value > 0, scaled, brighter))


def contrast(images: Images, factor: float) -> Images:
    """`m + factor (x - m)`, m the mean of a channel over the image.

    Args:
      images: `[n, side, side, 3]`.
      factor: in [0, 1].

    Example:
      >>> image = np.array([[[[0] * 3, [200] * 3]] * 2], np.uint8)
      >>> contrast(image, 0.5)[0, 0, :, 0].tolist()
      [50, 150]
    """
    x = to_unit(images)
    means = x.mean(axis=(1, 2), keepdims=True)
    return to_bytes((x - means) * factor + means)


def saturate(images: Images, factor: float, shift: float) -> Images:
    """Changes the saturation of hue, saturation and value: `S <- factor S + shift`.

    Grey has no hue; it counts as red, as is usual, so that a shift reddens it.

    Args:
      images: `[n, side, side, 3]`.
      factor: >= 0; below 1 the colours fade.
      shift: in [0, 1].

    Example:
      >>> pixel = np.array([[[[200, 100, 150]]]], np.uint8)  # S = 0.5
      >>> saturate(pixel, 0.5, 0.0).tolist()
      [[[[200, 150, 175]]]]
    """
    x = to_unit(images)
    value = x.max(axis=-1, keepdims=True)
    below = value - x
    depth = below.max(axis=-1, keepdims=True)
    saturation = depth / np.where(value > 0, value, 1.0)
    # What the hue says: how far each channel lies below the largest, of 1 at most.
    hue = np.where(depth > 0, below / np.where(depth > 0, depth, 1.0), [0.0, 1.0, 1.0])
    changed = np.clip(saturation * factor + shift, 0.0, 1.0)
    return to_bytes(value * (1.0 - changed * hue))


def pixelate(images: Images, factor: float) -> Images:
    """Shrinks by averaging and enlarges again without smoothing.

    Args:
      images: `[n, side, side, 3]`.
      factor: of the side, which becomes `floor(factor side)`, in (0, 1].

    Example:
      >>> image = np.zeros((1, 4, 4, 3), np.uint8)
      >>> image[0, 0, 0] = 200
      >>> pixelate(image, 0.5)[0, :2, :3, 0].tolist()
      [[50, 50, 0], [50, 50, 0]]
    """
    side = images.shape[1]
    small = int(side * factor)
    coarse = []
    for image in images:
        shrunk = Image.fromarray(image).resize((small, small), Image.Resampling.BOX)
        coarse.append(np.asarray(shrunk.resize((side, side), Image.Resampling.BOX)))
    return np.stack(coarse)


def jpeg_compression(images: Images, quality: int) -> Images:
    """What is left after a JPEG file of a low quality.

    Args:
      images: `[n, side, side, 3]`.
      quality: Pillow's, 1 to 95.

    Example:
      >>> grey = np.full((1, 32, 32, 3), 128, np.uint8)
      >>> int(jpeg_compression(grey, 40).max())
      128
    """
    decoded = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        decoded.append(np.asarray(Image.open(file)))
    return np.stack(decoded)


def elastic_transform(
    images: Images, alpha: float, sigma: float, jitter: float, rng: np.random.Generator
) -> Images:
    """A random affine map, then a random smooth displacement of every pixel.

    The affine map is the one that moves three corners of a square about the centre by
    uniform amounts. The displacement is `alpha G * u` in each direction, u uniform in
    [-1, 1] and G a Gaussian.

    Args:
      images: `[n, side, side, 3]`.
      alpha: size of the displacement before smoothing, in sides, >= 0.
      sigma: of the Gaussian, in sides, >= 0.
      jitter: the corners move by up to this much, in sides, >= 0.
      rng: of both.

    References:
      Simard, Steinkraus, Platt, Best Practices for Convolutional Neural Networks
      (2003), section 2, for the displacement.

    Example:
      >>> image = np.zeros((1, 32, 32, 3), np.uint8)
      >>> image[:, :, 16:] = 255
      >>> still = elastic_transform(image, 0.0, 0.0, 0.0, np.random.default_rng(0))
      >>> bool((still == image).all())
      True
    """
    n, side = images.shape[:2]
    y, x = np.mgrid[:side, :side]
    maps = _affine_maps(n, side, jitter * side, rng)
    from_x, from_y = np.moveaxis(np.stack([x, y, np.ones_like(x)], -1) @ maps, -1, 0)
    moved = _sample(to_unit(images), from_y, from_x, repeat_edge=False)
    dx, dy = (_displacement(n, side, alpha, sigma, rng) for _ in range(2))
    return to_bytes(_sample(moved, y + dy, x + dx, repeat_edge=True))


def _affine_maps(
    n: int, side: int, jitter: float, rng: np.random.Generator
) -> Float[np.ndarray, "n 1 3 2"]:
    """Maps from (x, y, 1) of a pixel to the (x, y) of where it comes from."""
    middle, reach = side // 2, side // 3
    corners = middle + reach * np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    targets = corners + rng.uniform(-jitter, jitter, (n, 3, 2))
    ones = np.ones((n, 3, 1))
    return np.linalg.solve(np.concatenate([targets, ones], -1), corners)[:, None]


def _displacement(
    n: int, side: int, alpha: float, sigma: float, rng: np.random.Generator
) -> Float[np.ndarray, "n side side"]:
    width = (0, sigma * side, sigma * side)
    noise = rng.uniform(-1.0, 1.0, (n, side, side))
    return alpha * side * ndimage.gaussian_filter(noise, width, truncate=3.0)


def _sample(
    images: Float[np.ndarray, "n side side c"],
    rows: Float[np.ndarray, "n side side"],
    columns: Float[np.ndarray, "n side side"],
    *,
    repeat_edge: bool,
) -> Float[np.ndarray, "n side side c"]:
    """Linear interpolation at any place; outside, the image is mirrored."""
    n, side = images.shape[:2]
    pixels = images.reshape(n * side * side, -1)
    first = side * np.arange(n)[:, None, None]
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    sampled = np.zeros_like(images)
    for i in (0, 1):
        for j in (0, 1):
            weight = (1 - np.abs(rows - top - i)) * (1 - np.abs(columns - left - j))
            row = _mirrored(top + i, side, repeat_edge)
            column = _mirrored(left + j, side, repeat_edge)
            sampled += weight[..., None] * pixels[(first + row) * side + column]
    return sampled


def _mirrored(
    index: Int[np.ndarray, "..."], side: int, repeat_edge: bool
) -> Int[np.ndarray, "..."]:
    """Indices in [0, side) of `d c b a | a b c d` or, without repeating, `d c b | a`"""
    repeat = int(repeat_edge)
    period = 2 * side - 2 + 2 * repeat
    index = index % period
    return np.minimum(index, period - repeat - index)
