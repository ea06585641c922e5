"""Weather: snow, frost and fog."""

import functools
import io
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from jaxmeta.data.corruptions.blurs import smear, zoom
from jaxmeta.data.corruptions.pixels import Images, to_bytes, to_unit
from jaxmeta.data.source import DataError, load_npz, needed_file

_FROST_FILE = "frost.npz"
_NUM_TEXTURES = 5
# The file has every photo at two scales, and this is what its keys end with.
_SCALE = {32: 2, 64: 3}
_MOST_TEXTURE_SIDE = 2048

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_FALL_DEG = (-135.0, -45.0)


def snow(
    images: Images,
    mean: float,
    deviation: float,
    size: float,
    threshold: float,
    radius: int,
    sigma: float,
    colour: float,
    rng: np.random.Generator,
) -> Images:
    """Whitens the image and adds flakes that fall, and the same upside down.

    The flakes are normal noise, enlarged, of which only what is above a threshold is
    kept, smeared along a steep direction. The whitening is
    `colour x + (1 - colour) max(x, 1.5 grey(x) + 0.5)`.

    Args:
      images: `[n, side, side, 3]`.
      mean: of the noise.
      deviation: of the noise, >= 0.
      size: of the flakes, a factor >= 1.
      threshold: below it there is no flake.
      radius: a flake's trail has `2 radius + 1` pixels.
      sigma: how fast the trail fades, in pixels, > 0.
      colour: how much of its colour the image keeps, in [0, 1].
      rng: of the flakes and of their direction.

    Example:
      >>> black = np.zeros((1, 32, 32, 3), np.uint8)
      >>> rng = np.random.default_rng(0)
      >>> snowy = snow(black, 0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.9, rng)
      >>> bool(snowy.min() == 12), bool(snowy.max() > 12)  # 0.1 * 0.5 * 255
      (True, True)
    """
    n, side = images.shape[:2]
    flakes = zoom(rng.normal(mean, deviation, (n, side, side, 1)), size)
    flakes = to_bytes(np.where(flakes < threshold, 0.0, flakes)).astype(float)
    angles = rng.uniform(*_FALL_DEG, n)
    trails = [
        smear(layer, radius, sigma, angle)
        for layer, angle in zip(flakes, angles, strict=True)
    ]
    layer = np.rint(trails) / 255.0
    x = to_unit(images)
    white = np.maximum(x, 1.5 * (x @ _LUMA)[..., None] + 0.5)
    x = colour * x + (1.0 - colour) * white
    return to_bytes(x + layer + np.rot90(layer, 2, axes=(1, 2)))


def frost(
    images: Images, image_weight: float, frost_weight: float, rng: np.random.Generator
) -> Images:
    """`image_weight x + frost_weight f`, f a random piece of a photo of frost.

    Args:
      images: `[n, side, side, 3]`, side 32 or 64.
      image_weight: in [0, 1].
      frost_weight: in [0, 1].
      rng: of the photo and the piece.

    Raises:
      DataError: if the photos are not there; see `frost_textures`.

    Example:
      >>> black = np.zeros((1, 32, 32, 3), np.uint8)
      >>> from jaxmeta.data.source import find_file
      >>> if find_file("frost.npz"):
      ...     frosted = frost(black, 1.0, 0.5, np.random.default_rng(0))
      ...     assert 0 < frosted.max() <= 127
    """
    side = images.shape[1]
    textures = frost_textures(side)
    pieces = []
    for _ in images:
        texture = textures[rng.integers(len(textures))]
        row, column = (rng.integers(size - side) for size in texture.shape[:2])
        pieces.append(texture[row : row + side, column : column + side])
    mixed = image_weight * images + frost_weight * np.stack(pieces)
    return np.clip(mixed, 0.0, 255.0).astype(np.uint8)


def frost_textures(side: int) -> list[np.ndarray]:
    """The photos of frost for images of one size, from `frost.npz`.

    The file holds each of the authors' photos twice, as JPEG: `frost1_2` to `frost5_2`
    at a fifth of its size for images of 32 pixels, and `frost1_3` to `frost5_3` at
    three tenths for 64.

    Args:
      side: of the images, 32 or 64.

    Returns:
      Five photos `[height, width, 3]` of bytes, all larger than the images.

    Raises:
      ValueError: for another side.
      DataError: if the file is not in the data directory or is damaged.

    Example:
      >>> from jaxmeta.data.source import find_file
      >>> if find_file("frost.npz"):
      ...     assert len(frost_textures(32)) == 5
    """
    if side not in _SCALE:
        raise ValueError(f"side must be one of {list(_SCALE)}, got {side}.")
    path = needed_file(_FROST_FILE, otherwise="leave out the corruption 'frost'")
    return list(_read_textures(path, side))


@functools.cache
def _read_textures(path: Path, side: int) -> tuple[np.ndarray, ...]:
    keys = [f"frost{i}_{_SCALE[side]}" for i in range(1, _NUM_TEXTURES + 1)]
    file = load_npz(path, dict.fromkeys(keys, (1, "u")))
    return tuple(_decoded(path, key, file[key].tobytes(), side) for key in keys)


def _decoded(path: Path, key: str, file: bytes, side: int) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(file), formats=["JPEG"]) as image:
            width, height = image.size
            if side < min(image.size) and max(image.size) <= _MOST_TEXTURE_SIDE:
                return np.asarray(image.convert("RGB"))
    except Exception as error:
        # Pillow raises a dozen types on bytes that are not what they should be.
        raise DataError(
            f"{path}: '{key}' is not a JPEG file ({type(error).__name__}: {error}); "
            "copy it again."
        ) from error
    raise DataError(
        f"{path}: '{key}' must have sides from {side + 1} to {_MOST_TEXTURE_SIDE}, got "
        f"{width} x {height}; copy it again."
    )


def fog(
    images: Images, density: float, decay: float, rng: np.random.Generator
) -> Images:
    """`(x + density f) m / (m + density)`, f a cloud and m the largest value of x.

    Args:
      images: `[n, side, side, 3]`, side a power of two.
      density: > 0.
      decay: how much smoother the finer parts of the cloud are, > 1; see `clouds`.
      rng: of the cloud.

    Example:
      >>> black = np.zeros((1, 32, 32, 3), np.uint8)
      >>> int(fog(black, 1.0, 2.0, np.random.default_rng(0)).max())
      0
    """
    n, side = images.shape[:2]
    x = to_unit(images)
    largest = x.max(axis=(1, 2, 3), keepdims=True)
    thick = x + density * clouds(n, side, decay, rng)[..., None]
    return to_bytes(thick * largest / (largest + density))


def clouds(
    n: int, side: int, decay: float, rng: np.random.Generator
) -> Float[np.ndarray, "n side side"]:
    """Plasma fractals on a torus, by the diamond-square algorithm, from 0 to 1.

    A grid is refined again and again. A new point is the mean of its four neighbours
    plus uniform noise, whose size falls by `decay^2` with every halving.

    Args:
      n: how many.
      side: a power of two.
      decay: > 1.
      rng: of the noise.

    References:
      Fournier, Fussell, Carpenter, Computer Rendering of Stochastic Models (1982).

    Example:
      >>> cloud = clouds(1, 32, 2.0, np.random.default_rng(0))
      >>> cloud.shape, float(cloud.min()), float(cloud.max())
      ((1, 32, 32), 0.0, 1.0)
    """
    heights = np.zeros((n, side, side))
    size, step = 1.0, side
    while step >= 2:
        half = step // 2
        refine = lambda total, size=size: (
            total / 4 + size * rng.uniform(-1.0, 1.0, total.shape)
        )
        corners = heights[:, ::step, ::step]
        right, down = np.roll(corners, -1, 2), np.roll(corners, -1, 1)
        centres = refine(corners + right + down + np.roll(right, -1, 1))
        heights[:, half::step, half::step] = centres
        above, left = np.roll(centres, 1, 1), np.roll(centres, 1, 2)
        heights[:, ::step, half::step] = refine(corners + right + centres + above)
        heights[:, half::step, ::step] = refine(corners + down + centres + left)
        size, step = size / decay**2, half
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return heights / heights.max(axis=(1, 2), keepdims=True)
