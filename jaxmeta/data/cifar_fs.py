"""CIFAR-FS: the 100 classes of CIFAR-100 for few-shot learning.

Bertinetto, Henriques, Torr, Vedaldi, Meta-learning with Differentiable Closed-form
Solvers (2019): 64 classes train, 16 validate and 20 test.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from jaxmeta.core.types import Split
from jaxmeta.data import source
from jaxmeta.data.cifar import SIDE, read_differences
from jaxmeta.data.episodes import ClassImages, EpisodeSource
from jaxmeta.data.image_classes import join_classes, read_class
from jaxmeta.data.image_folder import class_names
from jaxmeta.data.origin import Origin, OriginUsed, Places
from jaxmeta.data.source import DataError

FILE = "cifar100_subset.npz"
"""The file in the data directory: `x_train_dd`, `y_train` and the same of the test
part, see `data.cifar`. Classes are in alphabetical order."""

_PLACES = Places(
    npz=FILE,
    tfds="cifar100",
    directory="cifar100",
    otherwise="put its images there, as cifar100/train/CLASS and cifar100/test/CLASS, "
    "or run again with --download, which has TFDS fetch CIFAR-100",
)
_NUM_CLASSES = 100

NAMES: dict[Split, str] = {
    "train": """
        apple aquarium_fish bear bee bottle bowl boy bridge bus can castle
        caterpillar chair clock cloud cockroach couch cup dinosaur dolphin
        elephant forest girl hamster house kangaroo keyboard lawn_mower lion
        lizard lobster mountain mouse mushroom oak_tree orange orchid palm_tree
        pear pine_tree plate porcupine possum rabbit raccoon ray road seal shrew
        skunk skyscraper snake spider squirrel streetcar sunflower tank tiger
        train trout tulip turtle willow_tree wolf
    """,
    "validation": """
        beaver beetle butterfly camel cattle crab crocodile flatfish lamp
        maple_tree motorcycle otter sea shark television tractor
    """,
    "test": """
        baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy
        rocket rose snail sweet_pepper table telephone wardrobe whale woman worm
    """,
}
"""The classes of each split; in alphabetical order they are those of CIFAR-100."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CifarFs(EpisodeSource):
    """Episodes over CIFAR-FS, 32 x 32; the two parts of CIFAR-100 make 600 a class.

    The images come from a directory with `train/CLASS/*.png` and `test/CLASS/*.png`, if
    `path` names one or `JAXMETA_DATA_DIR` holds one as `cifar100`; else from the file
    `cifar100_subset.npz` in `JAXMETA_DATA_DIR`, which holds 60 a class; else from TFDS
    where it has `cifar100` (or may download it).

    Attributes:
      origin: which of the three to use; `auto` takes the first that is there.
      path: the directory, if it is not `cifar100` in the data directory.

    Raises:
      ValueError: for an unknown origin, or a path that it would ignore.
      DataError: if the origin asked for is not there or damaged, when it is read.

    Example:
      >>> CifarFs(origin="npz").data_used
      'CIFAR-FS (cifar100_subset.npz)'
    """

    rotations: bool = False
    origin: Origin = "auto"
    path: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _PLACES.check(self.origin, self.path)

    @functools.cached_property
    def origin_used(self) -> OriginUsed:
        """Where the images come from; decided once per object.

        Raises:
          DataError: if there are none.
        """
        return _PLACES.find(self.origin, self.path)

    @property
    def data_used(self) -> str:
        where = {"npz": FILE, "tfds": "TFDS", "directory": "a directory"}
        return f"CIFAR-FS ({where[self.origin_used]})"

    def classes(self) -> ClassImages:
        if self.origin_used == "directory":
            return _from_directory(_PLACES.root(self.path))
        return _from_npz() if self.origin_used == "npz" else _from_tfds()


def _classes() -> dict[str, int]:
    """The split of every class, in the order of their labels."""
    split = {
        name: i for i, names in enumerate(NAMES.values()) for name in names.split()
    }
    return dict(sorted(split.items()))


def _from_npz() -> ClassImages:
    path = _PLACES.file()
    parts = read_differences(path, least={"train": _NUM_CLASSES, "test": _NUM_CLASSES})
    images = np.concatenate([part.images for part in parts.values()])
    labels = np.concatenate([part.labels for part in parts.values()])
    return _by_label(images, labels, str(path))


def _from_tfds() -> ClassImages:
    examples = list(source.load_tfds("cifar100", "all"))
    images = np.stack([example["image"] for example in examples])
    labels = np.array([example["label"] for example in examples])
    return _by_label(images, labels, "TFDS data set 'cifar100'")


def _by_label(images: np.ndarray, labels: np.ndarray, where: str) -> ClassImages:
    by_class = [list(images[labels == label]) for label in range(_NUM_CLASSES)]
    names = [f"{where}: {name}" for name in _classes()]
    return join_classes(by_class, list(_classes().values()), names)


def _from_directory(root: Path) -> ClassImages:
    for part in ("train", "test"):
        found = class_names(root / part, _NUM_CLASSES)
        if unknown := set(found) - set(_classes()):
            raise DataError(
                f"{root / part}: {min(unknown)} is no class of CIFAR-100; its folders "
                "must have the names of the classes, as in apple and aquarium_fish."
            )
    by_class = [
        [
            image
            for part in ("train", "test")
            for image in read_class(root / part / name, SIDE)
        ]
        for name in _classes()
    ]
    names = [f"{root}: {name}" for name in _classes()]
    return join_classes(by_class, list(_classes().values()), names)
