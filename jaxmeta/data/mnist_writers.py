"""MNIST by the hand that wrote it: a group is a writer.

Yadav and Bottou, Cold Case: the Lost MNIST Digits (NeurIPS 2019), found out who wrote
which digit. It is the part of FEMNIST with digits only, in MNIST's own images.
"""

import dataclasses
import functools

import numpy as np

from jaxmeta.core.types import Split
from jaxmeta.data.groups import ArrayGroups, Groups, GroupSource
from jaxmeta.data.mnist import FILE, NUM_CLASSES, load_mnist
from jaxmeta.data.source import DataError, load_npz, needed_file
from jaxmeta.data.writers import split_writers

MOST_WRITERS = 10_000
"""More would be a slip of the keyboard."""

_OTHERWISE = "use scikit-learn's (source FormDigits)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MnistWriters(GroupSource):
    """The 60,000 training digits of MNIST by writer: 389 train, 50 validate, 100 test.

    The 539 writers, employees of the Census Bureau and high-school students, wrote
    19 to 131 digits each. MNIST's test part is not used: its 297 writers are others,
    but only 46 of them wrote 50 digits or more.

    The images come from the file `mnist_writers.npz` in `JAXMETA_DATA_DIR`.

    Raises:
      ValueError: for a number outside its range.
      DataError: if the file is not there or damaged, when it is read.

    Example:
      >>> source = MnistWriters(points_per_set=19)
      >>> source.num_classes, source.test_writers
      (10, 100)
    """

    validation_writers: int = 50
    """How many writers validate, from 1 to `MOST_WRITERS`."""

    test_writers: int = 100
    """How many writers test, from 1 to `MOST_WRITERS`."""

    split_seed: int = 0
    """Of the draw of the writers that are held out, >= 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("validation_writers", "test_writers"):
            if not 1 <= (value := getattr(self, name)) <= MOST_WRITERS:
                raise ValueError(
                    f"{name} must be from 1 to {MOST_WRITERS}, got {value}."
                )
        if self.split_seed < 0:
            raise ValueError(f"split_seed must be >= 0, got {self.split_seed}.")

    @property
    def num_classes(self) -> int:
        return NUM_CLASSES

    def writers(self) -> dict[Split, np.ndarray]:
        """NIST's ids of the writers of each split; the place of an id is its group."""
        return split_writers(
            self._writer_of_each_digit,
            validation=self.validation_writers,
            test=self.test_writers,
            seed=self.split_seed,
        )

    def groups(self) -> dict[Split, Groups]:
        path = needed_file(FILE, otherwise=_OTHERWISE)
        mnist = load_mnist(path)
        if len(mnist.train_labels) != len(self._writer_of_each_digit):
            raise DataError(
                f"{path}: writer_train must have one writer an image, got "
                f"{len(self._writer_of_each_digit)} for {len(mnist.train_labels)}; "
                "copy it again."
            )
        writers = self.writers()
        return ArrayGroups(
            inputs=mnist.train_images[..., None],
            targets=mnist.train_labels,
            group_ids=self._writer_of_each_digit,
            held_out=(
                tuple(writers["validation"].tolist()),
                tuple(writers["test"].tolist()),
            ),
        ).groups()

    @functools.cached_property
    def _writer_of_each_digit(self) -> np.ndarray:
        path = needed_file(FILE, otherwise=_OTHERWISE)
        return load_npz(path, {"writer_train": (1, "u")})["writer_train"]
