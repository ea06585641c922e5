"""FEMNIST: 62 kinds of characters by the hand that drew them; a group is a writer.

Caldas et al., LEAF: A Benchmark for Federated Settings (2018, arXiv 1812.01097). Zhang
et al., Adaptive Risk Minimization (NeurIPS 2021) drew a tenth of it and split that by
writer into 262, 50 and 35. Their draw was not published as a list, so ours, by rule,
has as many writers but not the same ones: `Femnist.writers` says which.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from jaxmeta.core.types import Split
from jaxmeta.data import source
from jaxmeta.data.femnist_files import NUM_CLASSES, Part, find_parts
from jaxmeta.data.groups import Groups, GroupSource, group_points
from jaxmeta.data.source import DataError
from jaxmeta.data.writers import split_writers

MOST_WRITERS = 10_000
"""NIST had 3,600."""

_DIRECTORY = "femnist"
_NUM_WRITERS, _NUM_VALIDATION, _NUM_TEST = 347, 50, 35


@dataclasses.dataclass(frozen=True, kw_only=True)
class Femnist(GroupSource):
    """Characters by writer: 262 writers train, 50 validate and 35 test.

    Of the writers with 100 drawings or more, 347 are drawn and split at random; with
    fewer or more the proportions stay. Ink = 1 and paper = 0.

    The file is TensorFlow Federated's (`fed_emnist_train.h5`, which needs the package
    h5py: `pip install 'jaxmeta[femnist]'`, or `emnist_all.sqlite`), FedJAX's
    (`federated_emnist_train.sqlite`) or LEAF's (`all_data_0.json`). Nothing is
    downloaded.

    Raises:
      ValueError: for a number outside its range.
      DataError: if there are no files, or they are damaged or hold too few writers,
        when they are read.

    Example:
      >>> source = Femnist(path="~/data/femnist", points_per_set=50)
      >>> source.num_classes, source.num_writers
      (62, 347)
    """

    path: str | None = None
    """A file, or a directory with files of one kind: all of them are read, and what one
    writer drew is put together. None is `femnist` in `JAXMETA_DATA_DIR`."""

    least_drawings: int = 100
    """Who drew fewer is left out; >= 1."""

    num_writers: int | None = _NUM_WRITERS
    """How many writers are drawn, from 3 to `MOST_WRITERS`; fewer if there are not as
    many. None takes all."""

    split_seed: int = 0
    """Of the draw and the split, >= 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least_drawings < 1:
            raise ValueError(f"least_drawings must be >= 1, got {self.least_drawings}.")
        if self.num_writers is not None and not 3 <= self.num_writers <= MOST_WRITERS:
            raise ValueError(
                f"num_writers must be from 3 to {MOST_WRITERS}, or None for all, got "
                f"{self.num_writers}."
            )
        if self.split_seed < 0:
            raise ValueError(f"split_seed must be >= 0, got {self.split_seed}.")

    @property
    def num_classes(self) -> int:
        return NUM_CLASSES

    def writers(self) -> dict[Split, np.ndarray]:
        """The ids of the writers of each split; the place of an id is its group."""
        return self._split[0]

    def groups(self) -> dict[Split, Groups]:
        writers, parts = self._split
        return {split: _load(parts, ids, split) for split, ids in writers.items()}

    @functools.cached_property
    def _split(self) -> tuple[dict[Split, np.ndarray], dict[str, list[Part]]]:
        path = self._found_path()
        parts: dict[str, list[Part]] = {}
        for part in find_parts(path):
            parts.setdefault(part.writer, []).append(part)
        sizes = {writer: sum(p.size for p in found) for writer, found in parts.items()}
        writers = sorted(w for w, size in sizes.items() if size >= self.least_drawings)
        if len(writers) < 3:
            raise DataError(
                f"{path}: needs 3 writers with {self.least_drawings} drawings or more, "
                f"has {len(writers)}; copy all files, or lower least_drawings."
            )
        draw = np.random.default_rng(self.split_seed).permutation(writers)
        drawn = draw[: self.num_writers]
        held_out = lambda number: max(1, round(number * len(drawn) / _NUM_WRITERS))
        split = split_writers(
            drawn,
            validation=held_out(_NUM_VALIDATION),
            test=held_out(_NUM_TEST),
            seed=self.split_seed,
        )
        return split, parts

    def _found_path(self) -> Path:
        if self.path is None:
            path = source.find_directory(_DIRECTORY)
        else:
            path = Path(self.path).expanduser()
        if path is None or not path.exists():
            raise DataError(
                f"{path or _DIRECTORY}: not found; put the files of FEMNIST "
                f"into {_DIRECTORY} in the data directory (JAXMETA_DATA_DIR or "
                "--data-dir): unpack TensorFlow Federated's fed_emnist.tar.bz2 there; "
                "or use MNIST's writers (table arm-mnist-writers, source MnistWriters)."
            )
        return path


def _load(parts: dict[str, list[Part]], writers: np.ndarray, split: Split) -> Groups:
    found = [
        (writer, part.load()) for writer in writers.tolist() for part in parts[writer]
    ]
    return group_points(
        np.concatenate([drawn.images for _, drawn in found]),
        np.concatenate([drawn.labels for _, drawn in found]),
        np.repeat([w for w, _ in found], [len(drawn.labels) for _, drawn in found]),
        where=f"FEMNIST, {split}",
    )
