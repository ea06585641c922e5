"""Few-shot episodes over any classes of images: folders of files, or a TFDS data set.

The classes of a folder are the folders in it. If these are `train`, `val` (or
`validation`) and `test`, the classes are in them, split as they are; otherwise, and for
TFDS, 64 % of the classes train, 16 % validate and 20 % test, drawn once for all.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxmeta.data import source
from jaxmeta.data.episodes import ClassImages, EpisodeSource
from jaxmeta.data.image_folder import read_resized, resized
from jaxmeta.data.source import DataError

_NAMES = {"train": 0, "val": 1, "validation": 1, "test": 2}
_SHARES = (0.64, 0.16)
_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageClasses(EpisodeSource):
    """Episodes over the classes of a folder of images, or of a TFDS data set.

    Images are resized to a square. All are grey, or all are coloured.

    Attributes:
      path: the folder; images are `*.png`, `*.jpg` and `*.jpeg` at any depth below a
        class.
      tfds: in place of it, the name of a TFDS data set with `image` and `label`, of
        which all splits are read.
      image_size: side of the square, >= 1.

    Raises:
      ValueError: for both or none of `path` and `tfds`, or a number out of range.
      DataError: if there are no such images, when they are read.

    Example:
      >>> ImageClasses(path="birds", image_size=84).data_used
      'images of birds'
    """

    rotations: bool = False
    path: str | None = None
    tfds: str | None = None
    image_size: int = 84

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.path is None) == (self.tfds is None):
            raise ValueError(
                "one of path and tfds must be given, got "
                f"{self.path!r} and {self.tfds!r}."
            )
        if self.image_size < 1:
            raise ValueError(f"image_size must be >= 1, got {self.image_size}.")

    @property
    def data_used(self) -> str:
        return f"images of {self.path or f'TFDS data set {self.tfds!r}'}"

    def classes(self) -> ClassImages:
        if self.tfds is not None:
            return _from_tfds(self.tfds, self.image_size)
        assert self.path is not None
        return read_class_folders(Path(self.path).expanduser(), self.image_size)


def read_class_folders(root: Path, side: int) -> ClassImages:
    """Reads the classes of a folder, as `ImageClasses` describes them.

    Args:
      root: the folder.
      side: of the squares that images are resized to.

    Raises:
      DataError: if it is missing or holds no classes, one class has fewer than two
        images, grey and coloured images are mixed, or a file is damaged; names it.
    """
    folders = _folders(root)
    names = {folder.name for folder in folders}
    if names & {"train", "test"}:
        if names not in ({"train", "val", "test"}, {"train", "validation", "test"}):
            raise DataError(
                f"{root}: beside train or test there must be train, val and test, and "
                f"nothing else, got {', '.join(sorted(names))}; add or remove folders."
            )
        pairs = [
            (folder, _NAMES[part.name]) for part in folders for folder in _folders(part)
        ]
        _check_apart(root, pairs)
    else:
        pairs = list(zip(folders, split_classes(len(folders)).tolist(), strict=True))
    found = [read_class(folder, side) for folder, _ in pairs]
    return join_classes(
        found, [split for _, split in pairs], [str(folder) for folder, _ in pairs]
    )


def _check_apart(root: Path, pairs: Sequence[tuple[Path, int]]) -> None:
    """Raises DataError for a class in several splits, which would then be none."""
    seen: dict[str, Path] = {}
    for folder, _ in pairs:
        other = seen.setdefault(folder.name, folder)
        if other != folder:
            raise DataError(
                f"{root}: the class {folder.name} is in {other.parent.name} and "
                f"{folder.parent.name}, and a class belongs to one split; name "
                f"{root / 'train'}, whose classes are then split."
            )


def split_classes(num_classes: int) -> np.ndarray:
    """Which split each of a number of classes belongs to, drawn once for all.

    Args:
      num_classes: >= 0.

    Returns:
      `[class]` index into `SPLITS`: 64 % train, 16 % validate, 20 % test.

    Example:
      >>> np.bincount(split_classes(100)).tolist()
      [64, 16, 20]
    """
    train, validation = (round(share * num_classes) for share in _SHARES)
    split = np.full(num_classes, 2, np.int32)
    split[:train], split[train : train + validation] = 0, 1
    return np.random.default_rng(0).permutation(split)


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder; name one that holds a folder a class."
        )
    found = sorted(
        entry
        for entry in root.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )
    if not found:
        raise DataError(
            f"{root}: holds no folders; name one that holds a folder a class."
        )
    return found


def read_class(folder: Path, side: int) -> list[np.ndarray]:
    """The images of a class's folder, sorted by path.

    Args:
      folder: with `*.png`, `*.jpg` and `*.jpeg` at any depth; hidden ones are left out.
      side: of the squares that they are resized to.

    Returns:
      `[side, side, 1 or 3]` bytes each.

    Raises:
      DataError: for a file that is no such image or damaged.
    """
    hidden = lambda p: any(s.startswith(".") for s in p.relative_to(folder).parts)
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES)
    files = [path for path in found if not (path.is_dir() or hidden(path))]
    return [read_resized(path, side) for path in files]


def join_classes(
    classes: Sequence[Sequence[np.ndarray]], splits: Sequence[int], names: Sequence[str]
) -> ClassImages:
    """Classes of images as one array.

    Args:
      classes: the `[side, side, channel]` images of each.
      splits: index into `SPLITS` of the split of each.
      names: of each, for messages.

    Raises:
      DataError: for a class of fewer than two images, or grey and coloured ones.

    Example:
      >>> image = np.zeros((2, 2, 1), np.uint8)
      >>> join_classes([[image] * 3, [image] * 2], [0, 1], ["a", "b"]).counts.tolist()
      [3, 2]
    """
    kinds: dict[int, str] = {}
    for images, name in zip(classes, names, strict=True):
        if len(images) < 2:
            raise DataError(
                f"{name}: a class must have 2 images or more, to learn from and to be "
                f"asked about, got {len(images)}; add some, or remove the class."
            )
        for image in images:
            kinds.setdefault(image.shape[-1], name)
    if len(kinds) > 1:
        raise DataError(
            f"{kinds[1]} holds grey images and {kinds[3]} coloured ones; make all of "
            "one kind."
        )
    return ClassImages(
        np.stack([image for images in classes for image in images]),
        np.array([len(images) for images in classes], np.int32),
        np.asarray(splits, np.int32),
    )


def _from_tfds(name: str, side: int) -> ClassImages:
    by_label: dict[int, list[np.ndarray]] = {}
    for example in source.load_tfds(name, "all"):
        if not {"image", "label"} <= example.keys():
            raise DataError(
                f"TFDS data set {name!r}: examples must have image and label, got "
                f"{', '.join(sorted(example))}; name another."
            )
        image = resized(np.asarray(example["image"]), side)
        by_label.setdefault(int(example["label"]), []).append(image)
    labels = sorted(by_label)
    return join_classes(
        [by_label[label] for label in labels],
        split_classes(len(labels)).tolist(),
        [f"TFDS data set {name!r}: class {label}" for label in labels],
    )
