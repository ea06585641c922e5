"""mini-ImageNet: 100 classes of ImageNet at 84 x 84, 600 images each.

Vinyals et al., Matching Networks for One Shot Learning (2016); the split is that of
Ravi and Larochelle, Optimization as a Model for Few-Shot Learning (2017): 64 classes
train, 16 validate and 20 test.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from jaxmeta.core.types import Split
from jaxmeta.data import source
from jaxmeta.data.episodes import SPLITS, ClassImages, EpisodeSource
from jaxmeta.data.image_classes import join_classes, read_class
from jaxmeta.data.image_folder import read_packed
from jaxmeta.data.origin import OriginUsed, Places
from jaxmeta.data.source import DataError

Origin: TypeAlias = Literal["auto", "npz", "directory"]

FILE = "miniimagenet_subset.npz"
"""The file in the data directory: `jpeg`, the bytes of JPEG files one after the other,
`offsets` of where each begins and the last ends, `label` of each, and of each class
`class_split`, an index into `SPLITS`."""

_PLACES = Places(
    npz=FILE,
    directory="miniimagenet",
    otherwise="put its images there, as miniimagenet/n01532829/*.jpg and so on",
)
_SIDE = 84

WORDNET_IDS: dict[Split, str] = {
    "train": """
        n01532829 n01558993 n01704323 n01749939 n01770081 n01843383 n01910747
        n02074367 n02089867 n02091831 n02101006 n02105505 n02108089 n02108551
        n02108915 n02111277 n02113712 n02120079 n02165456 n02457408 n02606052
        n02687172 n02747177 n02795169 n02823428 n02966193 n03017168 n03047690
        n03062245 n03207743 n03220513 n03337140 n03347037 n03400231 n03476684
        n03527444 n03676483 n03838899 n03854065 n03888605 n03908618 n03924679
        n03998194 n04067472 n04243546 n04251144 n04258138 n04275548 n04296562
        n04389033 n04435653 n04443257 n04509417 n04515003 n04596742 n04604644
        n04612504 n06794110 n07584110 n07697537 n07747607 n09246464 n13054560
        n13133613
    """,
    "validation": """
        n01855672 n02091244 n02114548 n02138441 n02174001 n02950826 n02971356
        n02981792 n03075370 n03417042 n03535780 n03584254 n03770439 n03773504
        n03980874 n09256479
    """,
    "test": """
        n01930112 n01981276 n02099601 n02110063 n02110341 n02116738 n02129165
        n02219486 n02443484 n02871525 n03127925 n03146219 n03272010 n03544143
        n03775546 n04146614 n04149813 n04418357 n04522168 n07613480
    """,
}
"""The classes of each split, by their ids in WordNet."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MiniImageNet(EpisodeSource):
    """Episodes over mini-ImageNet.

    The images come from a directory with a folder for each class, named by its WordNet
    id, at any depth, or with several (`train/ID` and `val/ID`) whose images are put
    together; if `path` names one or `JAXMETA_DATA_DIR` holds one as
    `miniimagenet`. Otherwise from the file `miniimagenet_subset.npz` there, which may
    hold fewer images a class.

    Attributes:
      origin: which of the two to use; `auto` takes the first that is there.
      path: the directory, if it is not `miniimagenet` in the data directory.

    Raises:
      ValueError: for an unknown origin, or a path that it would ignore.
      DataError: if the origin asked for is not there or damaged, when it is read.

    Example:
      >>> MiniImageNet(origin="npz").data_used
      'mini-ImageNet (miniimagenet_subset.npz)'
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
        where = FILE if self.origin_used == "npz" else "a directory"
        return f"mini-ImageNet ({where})"

    def classes(self) -> ClassImages:
        if self.origin_used == "npz":
            return _from_npz()
        return _from_directory(_PLACES.root(self.path))


def _from_directory(root: Path) -> ClassImages:
    folders: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("n*")):
        # A folder in one of the same name is a part of it.
        if path.is_dir() and path.name not in [above.name for above in path.parents]:
            folders.setdefault(path.name, []).append(path)
    found, splits, names = [], [], []
    for split, split_name in enumerate(SPLITS):
        for wnid in WORDNET_IDS[split_name].split():
            if wnid not in folders:
                raise DataError(
                    f"{root}: must hold a folder {wnid}, and one for every class of "
                    "mini-ImageNet; name the directory that it was unpacked to."
                )
            parts = [read_class(folder, _SIDE) for folder in folders[wnid]]
            found.append([image for part in parts for image in part])
            splits.append(split)
            names.append(", ".join(map(str, folders[wnid])))
    return join_classes(found, splits, names)


def _from_npz() -> ClassImages:
    path = _PLACES.file()
    names = ("jpeg", "offsets", "label", "class_split")
    file = source.load_npz(path, dict.fromkeys(names, (1, "u")))
    jpeg, offsets, label, class_split = (file[name] for name in names)
    if set(label) != set(range(len(class_split))) or set(class_split) != {0, 1, 2}:
        raise DataError(
            f"{path}: label must name each of the {len(class_split)} classes of "
            "class_split, which must be 0, 1 or 2, all of them; copy the file again."
        )
    images = read_packed(jpeg, offsets, len(label), _SIDE, where=f"{path}: jpeg")
    order = np.argsort(label, kind="stable")
    counts = np.bincount(label).astype(np.int32)
    return ClassImages(images[order], counts, class_split.astype(np.int32))
