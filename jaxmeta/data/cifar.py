"""The files of CIFAR-10 and CIFAR-100 in the data directory.

Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
"""

from pathlib import Path

import numpy as np

from jaxmeta.data import source
from jaxmeta.data.image_folder import LabelledImages
from jaxmeta.data.source import DataError

SIDE = 32
"""Of the images."""


def read_differences(path: Path, *, least: dict[str, int]) -> dict[str, LabelledImages]:
    """Reads the parts of a file whose images are kept as second differences.

    A part has `x_PART_dd`, `[3, image, 32, 32]` bytes, and `y_PART`, `[image]`.

    Args:
      path: the file.
      least: the parts, and how many images each must have.

    Raises:
      DataError: if it is missing, damaged or not as described.
    """
    keys = {f"x_{part}_dd": (4, "u") for part in least}
    keys |= {f"y_{part}": (1, "u") for part in least}
    file, parts = source.load_npz(path, keys), {}
    for part, count in least.items():
        x, y = file[f"x_{part}_dd"], file[f"y_{part}"]
        if x.shape != (3, len(y), SIDE, SIDE) or x.dtype != np.uint8:
            raise DataError(
                f"{path}: x_{part}_dd must be bytes of shape (3, {len(y)}, {SIDE}, "
                f"{SIDE}), one image for each of y_{part}, got {x.dtype} {x.shape}; "
                "copy it again."
            )
        if len(y) < count:
            raise DataError(
                f"{path}: y_{part} must have {count} classes or more, got {len(y)}; "
                "copy it again."
            )
        parts[part] = LabelledImages(_from_differences(x), y)
    return parts


def _from_differences(planes: np.ndarray) -> np.ndarray:
    """Images of the second differences of green, red - green and blue - green.

    All of it wraps around at 256, so nothing is lost.
    """
    sums = np.cumsum(np.cumsum(planes, axis=2, dtype=np.uint8), axis=3, dtype=np.uint8)
    green, red, blue = sums
    return np.stack([red + green, green, blue + green], axis=-1)
