"""The file of MNIST's images and their writers.

LeCun, Bottou, Bengio, Haffner, Gradient-Based Learning Applied to Document Recognition
(1998). Who wrote which digit is known since Yadav and Bottou, Cold Case: the Lost MNIST
Digits (2019), whose ids the file gives.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmeta.data import source
from jaxmeta.data.source import DataError

FILE = "mnist_writers.npz"
"""The file in the data directory: `x_train`, `y_train`, `writer_train` and the same of
the test part, in MNIST's order."""

NUM_CLASSES = 10


class Mnist(NamedTuple):
    """The images of both parts, in MNIST's order.

    Attributes:
      train_images: `[n, side, side]` bytes, ink = 255 and paper = 0.
      train_labels: `[n]` integers, 0 to 9.
      test_images: `[m, side, side]` bytes.
      test_labels: `[m]` integers, 0 to 9.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_mnist(path: Path, *, least_train: int = 1) -> Mnist:
    """Reads the images and labels of `FILE`, checked.

    Args:
      path: the file.
      least_train: how many training images there must be.

    Raises:
      DataError: if it is damaged, or does not hold square images of one size with a
        label each.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     path = Path(directory, FILE)
      ...     x, y = np.zeros((3, 4, 4), np.uint8), np.arange(3, dtype=np.uint8)
      ...     np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
      ...     load_mnist(path).train_labels.tolist()
      [0, 1, 2]
    """
    kinds = {"x_train": (3, "u"), "y_train": (1, "u"), "x_test": (3, "u")}
    file = source.load_npz(path, {**kinds, "y_test": (1, "u")})
    side = file["x_train"].shape[1]
    for part, least in (("train", least_train), ("test", 1)):
        x, y = file[f"x_{part}"], file[f"y_{part}"]
        if len(x) < least or len(x) != len(y) or x.shape[1:] != (side, side):
            raise DataError(
                f"{path}: x_{part} must be at least {least} square images of one size, "
                f"each with a label, got {x.shape} and {y.shape}; copy it again."
            )
        if y.max() >= NUM_CLASSES or x.dtype != np.uint8:
            raise DataError(
                f"{path}: images must be bytes and labels 0 to {NUM_CLASSES - 1}, got "
                f"{x.dtype} and labels up to {y.max()}; copy it again."
            )
    return Mnist(file["x_train"], file["y_train"], file["x_test"], file["y_test"])
