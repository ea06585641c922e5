"""CIFAR-10-C as a benchmark of adaptation: 56 groups train, 17 validate and 22 test.

Zhang, Marklund, Dhawan, Gupta, Levine, Finn, Adaptive Risk Minimization (NeurIPS 2021),
section 4, with the groups of the authors' code. The images to train and validate on are
ours, as theirs were not published; those to test on can be the published ones.

Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations (ICLR 2019). Krizhevsky, Learning Multiple Layers of Features from
Tiny Images (2009).
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from jaxmeta.core.types import Split
from jaxmeta.data import source
from jaxmeta.data.cifar import SIDE, read_differences
from jaxmeta.data.corrupted import CorruptedImages, hold_out, severities
from jaxmeta.data.image_folder import LabelledImages, class_names, read_classes
from jaxmeta.data.origin import Origin, OriginUsed, Places

FILE = "cifar10_subset.npz"
"""The file in the data directory: `x_train_dd`, `y_train` and the same of the test
part, see `data.cifar`."""

_PLACES = Places(
    npz=FILE,
    tfds="cifar10",
    directory="cifar10",
    otherwise="put its images there, as cifar10/train/CLASS and cifar10/test/CLASS, or "
    "run again with --download, which has TFDS fetch CIFAR-10",
)
_NUM_CLASSES = 10
# Of every so many training images one validates: of the file's 6,000, and of all.
_HELD_OUT_OF_FILE, _HELD_OUT = 6, 10
# Where TFDS has a name of its own.
_TFDS_NAMES = {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cifar10C(CorruptedImages):
    """CIFAR-10, corrupted; a group is a corruption and a severity.

    Spatter and JPEG are split by severity; of the others ten corruptions train, three
    validate and four test, at all five severities. A group has 1,000 images to train or
    validate on, and 3,000 to test on, as in the paper.

    The clean images come from a directory with `train/CLASS/*.png` and
    `test/CLASS/*.png`, if `path` names one or `JAXMETA_DATA_DIR` holds one as
    `cifar10`; else from the file `cifar10_subset.npz` in `JAXMETA_DATA_DIR`; else from
    TFDS where it has `cifar10` (or may download it).
    A tenth of the training images, in the file its last sixth, is the pool to validate
    from: 45,000 train, 5,000 validate and 10,000 test, or 5,000, 1,000 and 2,000 of the
    file. Groups of a split share images, as 56 groups of 1,000 must.

    The corruption `frost` needs the photos in the file `frost.npz`; see
    `jaxmeta.data.corruptions.frost_textures`.

    Attributes:
      origin: which of the three to use; `auto` takes the first that is there.

    Raises:
      ValueError: for a number outside its range, or an unknown origin.
      DataError: if the origin asked for is not there or damaged, when it is read.

    Example:
      >>> source = Cifar10C(points_per_set=100, sets_per_task=3)
      >>> [len(source.group_names(split)) for split in source.table]
      [56, 17, 22]
      >>> source.group_names("validation")[:3]
      ['spatter 4', 'jpeg_compression 5', 'speckle_noise 1']
    """

    table: ClassVar = {
        "train": (
            *severities("spatter", "jpeg_compression", of=(1, 2, 3)),
            *severities("gaussian_noise", "shot_noise", "defocus_blur", "glass_blur"),
            *severities("zoom_blur", "snow", "frost"),
            *severities("brightness", "contrast", "pixelate"),
        ),
        "validation": (
            ("spatter", 4),
            ("jpeg_compression", 5),
            *severities("speckle_noise", "gaussian_blur", "saturate"),
        ),
        "test": (
            ("spatter", 5),
            ("jpeg_compression", 4),
            *severities("impulse_noise", "motion_blur", "fog", "elastic_transform"),
        ),
    }

    origin: Origin = "auto"

    path: str | None = None
    """The directory, if it is not `cifar10` in the data directory."""

    official_test: bool = False
    """Test on the published images, from TFDS (`cifar10_corrupted`), not on our own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _PLACES.check(self.origin, self.path)

    @property
    def num_classes(self) -> int:
        return _NUM_CLASSES

    @functools.cached_property
    def origin_used(self) -> OriginUsed:
        """Where the clean images come from; decided once per object.

        Raises:
          DataError: if no directory is named and neither the data directory nor TFDS
            has CIFAR-10.
        """
        return _PLACES.find(self.origin, self.path)

    @property
    def data_used(self) -> str:
        clean = {
            "npz": f"a subset of CIFAR-10 ({FILE})",
            "tfds": "CIFAR-10 (TFDS)",
            "directory": "CIFAR-10 (a directory)",
        }[self.origin_used]
        ours = f"{clean}, corrupted here; groups share images"
        return f"{ours}; test: CIFAR-10-C (TFDS)" if self.official_test else ours

    def pools(self) -> dict[Split, LabelledImages | Iterable[LabelledImages]]:
        root = _PLACES.root(self.path)
        read = {
            "npz": _from_npz,
            "tfds": _from_tfds,
            "directory": lambda: _from_directory(root),
        }
        train, validation, test = read[self.origin_used]()
        if self.official_test:
            test = _published()
        return {"train": train, "validation": validation, "test": test}


def _from_npz() -> list[LabelledImages]:
    path = _PLACES.file()
    least = {"train": _HELD_OUT_OF_FILE, "test": 1}
    (images, labels), test = read_differences(path, least=least).values()
    # The file is shuffled.
    last = len(labels) - len(labels) // _HELD_OUT_OF_FILE
    train = LabelledImages(images[:last], labels[:last])
    return [train, LabelledImages(images[last:], labels[last:]), test]


def _from_tfds() -> list[LabelledImages]:
    train, test = (
        _stacked(source.load_tfds("cifar10", part)) for part in ("train", "test")
    )
    return [*hold_out(train, _HELD_OUT, where="TFDS data set 'cifar10'"), test]


def _from_directory(root: Path) -> list[LabelledImages]:
    classes = class_names(root / "train", _NUM_CLASSES)
    train, test = (
        read_classes(root / part, classes, SIDE, "*.png") for part in ("train", "test")
    )
    return [*hold_out(train, _HELD_OUT, where=f"{root / 'train'}"), test]


def _published() -> Iterator[LabelledImages]:
    for name, severity in Cifar10C.table["test"]:
        config = f"{_TFDS_NAMES.get(name, name)}_{severity}"
        yield _stacked(source.load_tfds(f"cifar10_corrupted/{config}", "test"))


def _stacked(examples: Iterable[dict]) -> LabelledImages:
    found = list(examples)
    images = np.stack([example["image"] for example in found])
    return LabelledImages(images, np.array([example["label"] for example in found]))
