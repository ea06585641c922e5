"""Tiny ImageNet-C as a benchmark of adaptation: 51 groups train, 17 validate, 22 test.

Zhang, Marklund, Dhawan, Gupta, Levine, Finn, Adaptive Risk Minimization (NeurIPS 2021),
section 4, with the groups of the authors' code. All images are corrupted here; theirs
to train and validate on were not published.

Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations (ICLR 2019). Tiny ImageNet is of the course CS231n at Stanford.
"""

import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

import numpy as np

from jaxmeta.core.types import Split
from jaxmeta.data import source
from jaxmeta.data.corrupted import CorruptedImages, hold_out, severities
from jaxmeta.data.image_folder import (
    LabelledImages,
    class_names,
    read_classes,
    read_images,
    read_packed,
)
from jaxmeta.data.origin import OriginUsed, Places
from jaxmeta.data.source import DataError

Origin: TypeAlias = Literal["auto", "npz", "directory"]

FILE = "tinyimagenet_subset.npz"
"""The file in the data directory: `jpeg_train`, the JPEG files one after the other,
`offsets_train`, where each begins and where the last ends, `y_train`, their classes,
and the same of `val`."""

_PLACES = Places(
    npz=FILE,
    directory="tiny-imagenet-200",
    otherwise="put the unpacked tiny-imagenet-200 there",
)
_SIDE, _NUM_CLASSES = 64, 200
# Of every so many training images one validates.
_HELD_OUT = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyImageNetC(CorruptedImages):
    """Tiny ImageNet, corrupted; a group is a corruption and a severity.

    Frost and JPEG are split by severity; of the others nine corruptions train, three
    validate and four test, at all five severities. A group has 2,000 images to train or
    validate on, and 3,000 to test on, as in the paper.

    The clean images come from the directory `tiny-imagenet-200` as it is published, if
    `path` names it or `JAXMETA_DATA_DIR` holds it; else from the file
    `tinyimagenet_subset.npz` in `JAXMETA_DATA_DIR`.
    A fifth of the training images is the pool to validate from, and `val` is the one to
    test from, as the test images have no labels: 80,000, 20,000 and 10,000, or 1,600,
    400 and 1,000 of the file. Groups of a split share images, as 51 groups of 2,000
    must.

    The corruption `frost` needs the photos in the file `frost.npz`; see
    `jaxmeta.data.corruptions.frost_textures`.

    Attributes:
      origin: which of the two to use; `auto` takes the first that is there.

    Raises:
      ValueError: for a number outside its range, or an unknown origin.
      DataError: if the origin asked for is not there or damaged, when it is read.

    Example:
      >>> source = TinyImageNetC(path="~/data/tiny-imagenet-200")
      >>> [len(source.group_names(split)) for split in source.table]
      [51, 17, 22]
      >>> source.origin_used, source.train_points
      ('directory', 2000)
    """

    table: ClassVar = {
        "train": (
            *severities("frost", "jpeg_compression", of=(1, 2, 3)),
            *severities("gaussian_noise", "shot_noise", "defocus_blur", "glass_blur"),
            *severities("zoom_blur", "snow", "brightness", "contrast", "pixelate"),
        ),
        "validation": (
            ("frost", 4),
            ("jpeg_compression", 5),
            *severities("speckle_noise", "gaussian_blur", "saturate"),
        ),
        "test": (
            ("frost", 5),
            ("jpeg_compression", 4),
            *severities("impulse_noise", "motion_blur", "fog", "elastic_transform"),
        ),
    }

    train_points: int = 2_000
    """Images of each group to train on, >= 1; as many as there are, if that is fewer.
    """

    validation_points: int = 2_000
    """The same, to validate on."""

    origin: Origin = "auto"

    path: str | None = None
    """The directory `tiny-imagenet-200`, if it is not in the data directory."""

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
          DataError: if no directory is named and the data directory has neither.
        """
        return _PLACES.find(self.origin, self.path)

    @property
    def data_used(self) -> str:
        clean = {
            "npz": f"a subset of Tiny ImageNet ({FILE})",
            "directory": "Tiny ImageNet (a directory)",
        }[self.origin_used]
        return f"{clean}, corrupted here; groups share images"

    def pools(self) -> dict[Split, LabelledImages | Iterable[LabelledImages]]:
        if self.origin_used == "npz":
            where, (train, test) = FILE, _from_npz()
        else:
            root = _PLACES.root(self.path)
            where, (train, test) = str(root), _from_directory(root)
        train, validation = hold_out(train, _HELD_OUT, where=where)
        return {"train": train, "validation": validation, "test": test}


def _from_npz() -> list[LabelledImages]:
    path, found = _PLACES.file(), []
    for part in ("train", "val"):
        names = [f"jpeg_{part}", f"offsets_{part}", f"y_{part}"]
        file = source.load_npz(path, dict.fromkeys(names, (1, "u")))
        jpeg, offsets, labels = (file[name] for name in names)
        images = read_packed(
            jpeg, offsets, len(labels), _SIDE, where=f"{path}: jpeg_{part}"
        )
        found.append(LabelledImages(images, labels))
    return found


def _from_directory(root: Path) -> list[LabelledImages]:
    classes = class_names(root / "train", _NUM_CLASSES)
    train = read_classes(root / "train", classes, _SIDE, "images/*.JPEG")
    names, labels = _annotations(root / "val" / "val_annotations.txt", classes)
    paths = [root / "val" / "images" / name for name in names]
    return [train, LabelledImages(read_images(paths, _SIDE), labels)]


def _annotations(path: Path, classes: list[str]) -> tuple[list[str], np.ndarray]:
    """The names of the images in `val` and their classes."""
    labels = {name: label for label, name in enumerate(classes)}
    found = []
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); unpack the "
            "data set again."
        ) from error
    for number, line in enumerate(lines, 1):
        name, wnid, *_ = [*line.split("\t"), "", ""]
        # A name with a folder in it could be any file of this machine.
        if wnid not in labels or name in ("", "..") or Path(name).name != name:
            raise DataError(
                f"{path}: line {number} must begin with an image's name and one of the "
                f"{len(classes)} classes, got {line[:80]!r}; unpack the data set again."
            )
        found.append((name, labels[wnid]))
    if not found:
        raise DataError(f"{path}: names no images; unpack the data set again.")
    names, numbers = zip(*found, strict=True)
    return list(names), np.array(numbers, np.int32)
