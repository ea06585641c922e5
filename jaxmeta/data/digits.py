"""Few-shot episodes from the digits that come with scikit-learn.

A stand-in that is always there, for tests, examples and machines without data. Ten
digits are few classes, so quarter turns make forty of them. It is not a benchmark:
two digits are held out for validation and two for testing.
"""

import dataclasses

import numpy as np

from jaxmeta.data.episodes import (
    SPLITS,
    ClassImages,
    EpisodeSource,
    equal_classes,
)

# A handwritten 0, 1, 4 or 8 hardly changes under a half turn, so its turned copies
# are one class with two labels: those digits train. A turned 6 is nearly a 9: they
# stay in one split. The digits that differ most from their turned copies test
# (nearest neighbour in pixels, 5-way 1-shot: 0.91 on 3 and 7, 0.70 on 8 and 9).
_DIGITS = {"train": (0, 1, 2, 4, 5, 8), "validation": (6, 9), "test": (3, 7)}
_SIDE = 8

FORM_STARTS = (0, 130, 256, 386, 516, 646, 776, 915, 1029, 1157, 1287, 1415, 1545, 1667)
"""The first image of each of the 14 filled-in forms that the file goes through. A form
is one person's; the same person may have filled in two. (INRIA, scikit-learn course,
"Sample grouping".)"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Digits(EpisodeSource):
    """Episodes over scikit-learn's 8x8 handwritten digits (1797 images).

    With `rotations` there are 24 training classes (digits 0, 1, 2, 4, 5, 8), 8 for
    validation (6, 9) and 8 for testing (3, 7), each of 174 examples; without, a
    quarter of that, and at most 2-way episodes.

    Attributes:
      image_size: side of the images, >= 8. Pixels are repeated by the largest whole
        factor that fits, and the rest is a margin of paper.

    Raises:
      ValueError: if `image_size` is below 8, when the data are read.

    References:
      Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
      Learning Repository (1998).

    Example:
      >>> task = Digits(image_size=28).example
      >>> task.support.inputs.shape, task.query.inputs.shape
      ((5, 28, 28, 1), (75, 28, 28, 1))
    """

    image_size: int = 28

    @property
    def data_used(self) -> str:
        return "scikit-learn digits"

    def classes(self) -> ClassImages:
        return digit_classes(self.image_size)


def digits_by_form(image_size: int = _SIDE) -> tuple[np.ndarray, np.ndarray]:
    """All digits in the order of the file, which is form by form (`FORM_STARTS`).

    Args:
      image_size: side of the images, >= 8. Pixels are repeated by the largest whole
        factor that fits, and the rest is a margin of paper.

    Returns:
      Images `[1797, image_size, image_size]`, bytes with ink = 255 and paper = 0, and
      labels `[1797]`.

    Raises:
      ValueError: if `image_size` is below 8.

    Example:
      >>> images, labels = digits_by_form(28)
      >>> images.shape, labels[:4].tolist()
      ((1797, 28, 28), [0, 1, 2, 3])
    """
    if image_size < _SIDE:
        raise ValueError(f"image_size must be >= {_SIDE}, got {image_size}.")
    from sklearn.datasets import load_digits

    flat, labels = load_digits(return_X_y=True)
    # The original grey levels are 0 to 16.
    images = np.round(np.asarray(flat).reshape(-1, _SIDE, _SIDE) * (255 / 16))
    scale, margin = divmod(image_size, _SIDE)
    images = images.astype(np.uint8).repeat(scale, axis=1).repeat(scale, axis=2)
    sides = (margin // 2, margin - margin // 2)
    return np.pad(images, ((0, 0), sides, sides)), np.asarray(labels)


def digit_classes(image_size: int) -> ClassImages:
    """The ten digits as classes, cut to the count of the rarest.

    Args:
      image_size: side of the images, as in `digits_by_form`.

    Returns:
      Images `[10 * 174, image_size, image_size, 1]`, ink = 255 and paper = 0.

    Raises:
      ValueError: if `image_size` is below 8.

    Example:
      >>> digit_classes(28).images.shape
      (1740, 28, 28, 1)
    """
    images, labels = digits_by_form(image_size)
    count = int(np.bincount(labels).min())
    by_class = np.stack([images[labels == digit][:count] for digit in range(10)])
    class_split = np.empty(10, np.int32)
    for i, split in enumerate(SPLITS):
        class_split[list(_DIGITS[split])] = i
    return equal_classes(by_class[..., None], class_split)
