"""Spatter: drops of water or mud on the lens."""

import itertools
import math

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from jaxmeta.data.corruptions.pixels import Images, to_bytes, to_unit

_WATER = np.array([175, 238, 238]) / 255.0
_MUD = np.array([63, 42, 20]) / 255.0
_LEAST_MUD = 0.8

_WEAK_EDGE, _STRONG_EDGE = 50, 150
_FARTHEST = 20.0
# A drop is lit from one side.
_RELIEF = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
# Borgefors' distance of two pixels, by the steps of a path: straight, diagonal, and
# one of a knight in chess.
_STEPS = {1: 1.0, 2: 1.4, 5: 2.1969}


def spatter(
    images: Images,
    mean: float,
    deviation: float,
    blur: float,
    threshold: float,
    amount: float,
    mud: bool,
    rng: np.random.Generator,
) -> Images:
    """Drops of water, which are pale turquoise, or of mud, which is brown.

    The liquid is where smoothed normal noise is above a threshold. Water is added,
    brightest where a drop is thick and lit; mud covers.

    Args:
      images: `[n, side, side, 3]`.
      mean: of the noise.
      deviation: of the noise, >= 0.
      blur: of the noise, a standard deviation in pixels, > 0.
      threshold: below it there is no liquid.
      amount: of water, how much its brightest pixel adds, in [0, 1]; of mud, the
        standard deviation that softens its edge, in pixels, > 0.
      mud: rather than water.
      rng: of the noise.

    Example:
      >>> white = np.full((1, 32, 32, 3), 255, np.uint8)
      >>> rng = np.random.default_rng(0)
      >>> muddy = spatter(white, 0.65, 0.1, 2.0, 0.65, 0.5, True, rng)
      >>> muddy.min(axis=(0, 1, 2)).tolist()
      [63, 42, 20]
    """
    noise = rng.normal(mean, deviation, images.shape[:3])
    noise = ndimage.gaussian_filter(noise, (0, blur, blur), mode="nearest")
    x = to_unit(images)
    if mud:
        cover = (noise > threshold).astype(float)
        cover = ndimage.gaussian_filter(cover, (0, amount, amount), mode="nearest")
        cover = np.where(cover < _LEAST_MUD, 0.0, cover)[..., None]
        return to_bytes(x * (1.0 - cover) + _MUD * cover)
    liquid = np.where(noise < threshold, 0.0, noise)
    # Above 255 it starts again at 0, as in the published sets.
    liquid = (liquid * 255.0).astype(int).astype(np.uint8)
    light = liquid * _relief(liquid)
    brightest = light.max(axis=(1, 2), keepdims=True)
    # Without a drop there is nothing to scale.
    light = amount * light / np.where(brightest > 0, brightest, 1.0)
    return to_bytes(x + light[..., None] * _WATER)


def _relief(liquid: UInt8[np.ndarray, "n h w"]) -> Float[np.ndarray, "n h w"]:
    """How strongly every pixel is lit: the slope of the distance to a drop's edge."""
    distance = _box_blur(_distance(_edges(liquid))).astype(np.uint8)
    distance = np.stack([_equalized(image) for image in distance])
    slope = ndimage.correlate(distance.astype(int), _RELIEF[None], mode="mirror")
    return np.rint(_box_blur(np.clip(slope, 0, 255).astype(float)))


def _box_blur(x: Float[np.ndarray, "n h w"]) -> Float[np.ndarray, "n h w"]:
    # Not `uniform_filter`, whose running sums turn 20 into 19.99.
    return ndimage.correlate(x, np.ones((1, 3, 3)), mode="mirror") / 9.0


def _edges(images: UInt8[np.ndarray, "n h w"]) -> Bool[np.ndarray, "n h w"]:
    """Canny's edges: thinned along the gradient, kept where they reach a strong one.

    References:
      Canny, A Computational Approach to Edge Detection (1986). As in OpenCV the size of
      the gradient is `|gx| + |gy|`, its direction one of four, and what is outside the
      image has no gradient.
    """
    gx, gy = _sobel(images.astype(int), 2, 1), _sobel(images.astype(int), 1, 2)
    strength = np.abs(gx) + np.abs(gy)
    candidates = _is_peak(strength, gx, gy) & (strength > _WEAK_EDGE)
    within_image = np.zeros((3, 3, 3), int)
    within_image[1] = 1
    labels = np.zeros(images.shape, np.int32)
    ndimage.label(candidates, within_image, output=labels)
    strong = np.zeros(labels.max(initial=0) + 1, bool)
    strong[labels[candidates & (strength > _STRONG_EDGE)]] = True
    return strong[labels]


def _sobel(
    x: Int[np.ndarray, "n h w"], along: int, across: int
) -> Int[np.ndarray, "n h w"]:
    differences = ndimage.correlate1d(x, [-1, 0, 1], along, mode="nearest")
    return ndimage.correlate1d(differences, [1, 2, 1], across, mode="nearest")


def _is_peak(
    strength: Int[np.ndarray, "n h w"],
    gx: Int[np.ndarray, "n h w"],
    gy: Int[np.ndarray, "n h w"],
) -> Bool[np.ndarray, "n h w"]:
    """Whether a pixel is stronger than its two neighbours across the edge."""
    h, w = strength.shape[1:]
    padded = np.pad(strength, ((0, 0), (1, 1), (1, 1)))
    at = lambda dy, dx: padded[:, 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]
    level = np.abs(gy) < math.tan(math.pi / 8) * np.abs(gx)
    steep = np.abs(gy) > math.tan(3 * math.pi / 8) * np.abs(gx)
    opposite = (gx < 0) != (gy < 0)
    return np.select(
        [level, steep, opposite],
        [
            # Of two equal pixels side by side the first is the peak.
            (strength > at(0, -1)) & (strength >= at(0, 1)),
            (strength > at(-1, 0)) & (strength >= at(1, 0)),
            (strength > at(-1, 1)) & (strength > at(1, -1)),
        ],
        (strength > at(-1, -1)) & (strength > at(1, 1)),
    )


def _distance(edges: Bool[np.ndarray, "n h w"]) -> Float[np.ndarray, "n h w"]:
    """The length of the shortest path to an edge, at most 20.

    References:
      Borgefors, Distance Transformations in Digital Images (1986), for 5 x 5 steps.
    """
    h, w = edges.shape[1:]
    distance = np.where(edges, 0.0, _FARTHEST)
    while True:
        padded = np.pad(distance, ((0, 0), (2, 2), (2, 2)), constant_values=_FARTHEST)
        nearer = distance
        for dy, dx in itertools.product(range(-2, 3), repeat=2):
            if length := _STEPS.get(dy * dy + dx * dx):
                there = padded[:, 2 + dy : 2 + dy + h, 2 + dx : 2 + dx + w]
                nearer = np.minimum(nearer, there + length)
        if (nearer == distance).all():
            return distance
        distance = nearer


def _equalized(image: UInt8[np.ndarray, "h w"]) -> Int[np.ndarray, "h w"]:
    """Levels by rank: the share of the other pixels that are not brighter, in bytes."""
    counts = np.bincount(image.ravel(), minlength=256)
    lowest = counts[image.min()]
    if lowest == image.size:
        return image.astype(int)
    # In single precision, as OpenCV has it: many ranks lie half way between two bytes.
    scale = np.float32(255.0) / np.float32(image.size - lowest)
    ranks = (np.cumsum(counts) - lowest).astype(np.float32) * scale
    return np.rint(ranks).astype(int)[image]
