"""Rotated MNIST: a group is an angle, and most training images are hardly turned.

Zhang, Marklund, Dhawan, Gupta, Levine, Finn, Adaptive Risk Minimization (NeurIPS 2021),
section 4, with the numbers of the authors' code. Ours differs in the random draws: the
images of a split and of a group are not the very same.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np
from scipy import ndimage

from jaxmeta.core.types import Split
from jaxmeta.data import source
from jaxmeta.data.groups import Groups, GroupSource, group_points
from jaxmeta.data.image_folder import LabelledImages
from jaxmeta.data.mnist import FILE, NUM_CLASSES, Mnist, load_mnist
from jaxmeta.data.origin import OriginUsed, Places
from jaxmeta.data.source import DataError

Origin: TypeAlias = Literal["auto", "npz", "tfds"]

NUM_ANGLES = 14
"""Groups; group g is turned counter-clockwise by `10 g` degrees."""

LEAST_IMAGES = 500
"""With fewer to train on the rarest angle would have none."""

_DEGREES_APART = 10
# Of every 500 training images, how many each angle shows.
_SHARES = (70,) * 3 + (20,) * 3 + (6,) * 3 + (3,) * 3 + (1,) * 2
_NUM_TRAIN, _NUM_ALL, _NUM_TEST = 54_000, 60_000, 10_000
_PLACES = Places(
    npz=FILE,
    tfds="mnist",
    otherwise="use scikit-learn's (table arm-digits, source RotatedDigits)",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RotatedMnist(GroupSource):
    """MNIST turned by 0, 10, ... 130 degrees; a group is an angle.

    54,000 of MNIST's training images train and 6,000 validate. The 14 angles show
    3 x 7,560, 3 x 2,160, 3 x 648, 3 x 324 and 2 x 108 training images, 32,292 in all,
    drawn with replacement. Each angle has 2,000 images to validate and 3,333 to test,
    a third of what there is: as in the authors' code angle g has the thirds that come
    after those of angle g - 1, so that angles do not see the same images.

    The images come from the file `mnist_writers.npz` in `JAXMETA_DATA_DIR`, else from
    TFDS where it has MNIST (or may download it).

    Attributes:
      origin: which of the two to use; `auto` takes the first that is there.

    Raises:
      ValueError: for a number outside its range, or an unknown origin.
      DataError: if the origin asked for is not there or damaged, when it is read.

    Example:
      >>> source = RotatedMnist(points_per_set=50, sets_per_task=6)
      >>> source.num_classes, source.validation_points
      (10, 300)
    """

    origin: Origin = "auto"

    validation_points: int = 300
    """How many of its images each angle validates with, >= 1."""

    test_points: int | None = None
    """How many of its images each angle tests with, >= 1; None takes all."""

    split_seed: int = 0
    """Of the split and of which angle shows what, >= 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _PLACES.check(self.origin)
        for name in ("validation_points", "test_points"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}.")
        if self.split_seed < 0:
            raise ValueError(f"split_seed must be >= 0, got {self.split_seed}.")

    @property
    def num_classes(self) -> int:
        return NUM_CLASSES

    @functools.cached_property
    def origin_used(self) -> OriginUsed:
        """Where the images come from; decided once per object.

        Raises:
          DataError: if neither the data directory nor TFDS has MNIST.
        """
        return _PLACES.find(self.origin)

    @property
    def data_used(self) -> str:
        """One phrase saying which images these are, for logs and reports."""
        return {"npz": f"MNIST ({FILE})", "tfds": "MNIST (TFDS)"}[self.origin_used]

    def groups(self) -> dict[Split, Groups]:
        mnist = _read(self.origin_used)
        rng = np.random.default_rng(self.split_seed)
        train, validation = np.split(rng.permutation(_NUM_ALL), [_NUM_TRAIN])
        images, labels = mnist.train_images, mnist.train_labels
        return rotated_groups(
            {
                "train": LabelledImages(images[train], labels[train]),
                "validation": LabelledImages(images[validation], labels[validation]),
                "test": LabelledImages(mnist.test_images, mnist.test_labels),
            },
            rng=rng,
            most={"validation": self.validation_points, "test": self.test_points},
        )


def _read(origin: OriginUsed) -> Mnist:
    if origin == "npz":
        where = _PLACES.file()
        mnist = load_mnist(where)
    else:
        where, mnist = "TFDS data set 'mnist'", _from_tfds()
    sizes = (len(mnist.train_images), len(mnist.test_images))
    if sizes != (_NUM_ALL, _NUM_TEST):
        raise DataError(
            f"{where}: MNIST has {_NUM_ALL} images to train and {_NUM_TEST} to test, "
            f"got {sizes[0]} and {sizes[1]}; copy or prepare it again."
        )
    return mnist


def _from_tfds() -> Mnist:
    parts = []
    for split in ("train", "test"):
        examples = list(source.load_tfds("mnist", split))
        parts.append(np.stack([example["image"][..., 0] for example in examples]))
        parts.append(np.array([example["label"] for example in examples]))
    return Mnist(*parts)


def rotated_groups(
    parts: Mapping[Split, LabelledImages],
    *,
    rng: np.random.Generator,
    most: Mapping[Split, int | None],
) -> dict[Split, Groups]:
    """Turns images by 14 angles, each of which has images of its own.

    Three angles show 14 percent of the training images each, three 4, three 1.2, three
    0.6 and two 0.2, drawn with replacement. In the other splits each shows a third.

    Args:
      parts: upright images by split; at least `LEAST_IMAGES` to train.
      rng: of the draws.
      most: how many images an angle has at most, by split; None for all.

    Returns:
      Groups by split, group g turned by `10 g` degrees, inputs `[n, side, side, 1]`.

    Raises:
      ValueError: for too few images.

    Example:
      >>> blank = LabelledImages(np.zeros((500, 2, 2), np.uint8), np.zeros(500, int))
      >>> parts = {"train": blank, "test": blank}
      >>> rng = np.random.default_rng(0)
      >>> found = rotated_groups(parts, rng=rng, most={"test": 9})
      >>> found["train"].sizes.tolist()
      [70, 70, 70, 20, 20, 20, 6, 6, 6, 3, 3, 3, 1, 1]
      >>> found["test"].sizes.tolist()
      [9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]
    """
    found = {}
    for split, (images, labels) in parts.items():
        least = LEAST_IMAGES if split == "train" else 3
        if len(labels) < least:
            raise ValueError(
                f"{split}: there must be at least {least} images, got {len(labels)}."
            )
        choose = _skewed_rows if split == "train" else _thirds
        rows = [chosen[: most.get(split)] for chosen in choose(len(labels), rng)]
        turned = [
            rotate_images(images[chosen], _DEGREES_APART * group)
            for group, chosen in enumerate(rows)
        ]
        found[split] = group_points(
            np.concatenate(turned)[..., None],
            labels[np.concatenate(rows)],
            np.repeat(np.arange(NUM_ANGLES), [len(chosen) for chosen in rows]),
            where=split,
        )
    return found


def _skewed_rows(num_images: int, rng: np.random.Generator) -> list[np.ndarray]:
    sizes = [share * num_images // 500 for share in _SHARES]
    return [rng.integers(num_images, size=size) for size in sizes]


def _thirds(num_images: int, rng: np.random.Generator) -> list[np.ndarray]:
    shuffled, third = rng.permutation(num_images), num_images // 3
    places = np.arange(NUM_ANGLES * third) % num_images
    return np.split(shuffled[places], NUM_ANGLES)


def rotate_images(images: np.ndarray, degrees: int) -> np.ndarray:
    """Turns images counter-clockwise about their centre, to the nearest pixel.

    It is `scipy.ndimage.rotate(image, degrees, reshape=False, order=0)` of each, which
    is asked once where every pixel comes from.

    Args:
      images: `[n, height, width]`, paper = 0.
      degrees: of the turn.

    Returns:
      The same shape and dtype, with paper where nothing comes from.

    Example:
      >>> rotate_images(np.array([[[1, 2], [3, 4]]]), 90)
      array([[[2, 4],
              [1, 3]]])
    """
    height, width = images.shape[1:]
    # Place 0 is paper, so that what comes from outside needs no case of its own.
    upright = np.arange(1, height * width + 1).reshape(height, width)
    places = np.asarray(ndimage.rotate(upright, degrees, reshape=False, order=0), int)
    flat = np.pad(images.reshape(len(images), -1), ((0, 0), (1, 0)))
    return flat[:, places]
