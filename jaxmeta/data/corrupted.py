"""Corrupted images: a group is one corruption at one severity.

The benchmarks of Zhang, Marklund, Dhawan, Gupta, Levine, Finn, Adaptive Risk
Minimization (NeurIPS 2021), section 4, train on some corruptions and test on others.
Their images to train and validate were not published, so they are made here, once, and
kept on disk.
"""

import abc
import dataclasses
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax.numpy as jnp
import joblib
import numpy as np
from tqdm import tqdm

from jaxmeta.core.types import Array, Split
from jaxmeta.data.corruptions import SEVERITIES, corrupt, frost_textures
from jaxmeta.data.disk_cache import kept_bytes
from jaxmeta.data.groups import Groups, GroupSource, check_classes, group_points
from jaxmeta.data.image_folder import LabelledImages
from jaxmeta.data.source import DataError

Group: TypeAlias = tuple[str, int]
"""A corruption and a severity, 1 to 5."""

# Raise it whenever the same settings would make other images: what is kept then is
# made again.
_VERSION = 1
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# So few are corrupted in the seconds that it takes to start processes.
_FEW_PIXELS = 2**23
_IDLE_SECONDS = 5
_NO_IMAGES = np.zeros((0, 32, 32, 3), np.uint8)


def severities(*names: str, of: Sequence[int] = SEVERITIES) -> tuple[Group, ...]:
    """Some corruptions at some severities, all of them by default.

    Example:
      >>> severities("snow", "fog", of=(1, 2))
      (('snow', 1), ('snow', 2), ('fog', 1), ('fog', 2))
    """
    return tuple((name, severity) for name in names for severity in of)


class Draw(NamedTuple):
    """What one group shows.

    Attributes:
      name: of its corruption.
      severity: 1 to 5.
      rows: `[point]` which clean images.
      rng: of the corruption.
    """

    name: str
    severity: int
    rows: np.ndarray
    rng: np.random.Generator


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorruptedImages(GroupSource):
    """Images whose groups are corruptions; subclasses say of what, and which.

    Every group draws its points without replacement from the clean images of its split,
    and corrupts them once, before training. Groups of one split share images; those of
    different splits do not. What is drawn depends on the seed, the split and the group,
    not on the other groups or on how many processes share the work.

    The corrupted images are kept in `JAXMETA_CACHE_DIR`, else in `~/.cache/jaxmeta`;
    the directory may be deleted at any time. They are made by as many processes as
    there are cores; the environment variable `LOKY_MAX_CPU_COUNT` lowers the number.
    A split of 8,192 images of 32 pixels or fewer is made without either.

    Raises:
      ValueError: for a number outside its range, or an unknown corruption or severity
        in the table.
      DataError: if the images are not there or damaged, when they are read.

    Example:
      >>> class Noisy(CorruptedImages):
      ...     table = {
      ...         "train": severities("gaussian_noise"),
      ...         "validation": severities("shot_noise", of=(1,)),
      ...         "test": severities("impulse_noise", of=(5,)),
      ...     }
      ...     num_classes = 2
      ...     data_used = "grey squares"
      ...     def pools(self):
      ...         grey = np.full((4, 32, 32, 3), 128, np.uint8)
      ...         images = LabelledImages(grey, np.array([0, 1, 0, 1]))
      ...         return dict.fromkeys(self.table, images)
      >>> source = Noisy(train_points=3)
      >>> source.sizes("train").tolist(), source.group_names("test")
      ([3, 3, 3, 3, 3], ['impulse_noise 5'])
    """

    table: ClassVar[Mapping[Split, tuple[Group, ...]]]
    """The groups of each split; the place of a group is its id."""

    train_points: int = 1_000
    """Images of each group to train on, >= 1; as many as there are, if that is fewer.
    """

    validation_points: int = 1_000
    """The same, to validate on."""

    test_points: int = 3_000
    """The same, to test on."""

    seed: int = 0
    """Of what each group draws and of its noise, >= 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("train_points", "validation_points", "test_points"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be >= 1, got {value}.")
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}.")
        rng = np.random.default_rng(0)
        for groups in self.table.values():
            for name, severity in groups:
                # It knows what there is, and what a misspelt name should be.
                corrupt(_NO_IMAGES, name, severity, rng)

    @property
    @abc.abstractmethod
    def data_used(self) -> str:
        """One phrase saying which images these are, for logs and reports."""

    @abc.abstractmethod
    def pools(self) -> dict[Split, LabelledImages | Iterable[LabelledImages]]:
        """The clean images of each split, 32 or 64 pixels wide.

        Where corrupted images are published, it is those of each group instead, in the
        order of the table.
        """

    def prepare(self, inputs: Array) -> Array:
        """Images with ImageNet's mean and deviation of each colour made 0 and 1."""
        shape = (1,) * (inputs.ndim - 1) + (3,)
        mean, deviation = (
            jnp.reshape(jnp.array(x), shape) for x in (_MEAN, _DEVIATION)
        )
        return (super().prepare(inputs) - mean) / deviation

    def group_names(self, split: Split) -> list[str]:
        """The corruption and severity of each group, such as `gaussian_noise 3`."""
        return [f"{name} {severity}" for name, severity in self.table[split]]

    def groups(self) -> dict[Split, Groups]:
        found: dict[Split, Groups] = {}
        for split, pool in self.pools().items():
            if isinstance(pool, LabelledImages):
                # Before hours go into corrupting them.
                where = f"{self.data_used}, {split}"
                check_classes(pool.labels, self.num_classes, where=where)
                draws = [
                    self._choose(split, group, len(pool.labels))
                    for group in self.table[split]
                ]
                inputs = self._corrupted(split, pool.images, draws)
                labels = [pool.labels[draw.rows] for draw in draws]
            else:
                drawn = [
                    _rows(images, self._choose(split, group, len(images.labels)).rows)
                    for group, images in zip(self.table[split], pool, strict=True)
                ]
                inputs = np.concatenate([images.images for images in drawn])
                labels = [images.labels for images in drawn]
            found[split] = group_points(
                inputs,
                np.concatenate(labels),
                np.repeat(np.arange(len(labels)), [len(part) for part in labels]),
                where=f"{type(self).__name__}, {split}",
            )
        return found

    def _choose(self, split: Split, group: Group, num_images: int) -> Draw:
        name, severity = group
        # Of its name, so that a group stays the same beside other groups.
        entropy = f"{split} {name} {severity}".encode()
        rng = np.random.default_rng([self.seed, *entropy])
        rows = rng.permutation(num_images)[: getattr(self, f"{split}_points")]
        return Draw(name, severity, rows, rng)

    def _corrupted(
        self, split: Split, images: np.ndarray, draws: list[Draw]
    ) -> np.ndarray:
        shape = (sum(len(draw.rows) for draw in draws), *images.shape[1:])
        if math.prod(shape[:3]) <= _FEW_PIXELS:
            return corrupt_groups(images, draws)
        decides = {
            "version": _VERSION,
            "groups": self.table[split],
            "points": shape[0],
            "seed": self.seed,
            "split": split,
            "images": _digest([images]),
        }
        if any(name == "frost" for name, _ in self.table[split]):
            decides["frost"] = _digest(frost_textures(images.shape[1]))
        key = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:32]
        return kept_bytes(
            f"{type(self).__name__}-{split}-{key}",
            shape,
            lambda: corrupt_groups(
                images,
                draws,
                num_processes=joblib.cpu_count(),
                label=f"corrupting, {split}",
            ),
        )


def _rows(pool: LabelledImages, rows: np.ndarray) -> LabelledImages:
    return LabelledImages(pool.images[rows], pool.labels[rows])


def _digest(arrays: Iterable[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def corrupt_groups(
    images: np.ndarray,
    draws: Sequence[Draw],
    *,
    num_processes: int = 1,
    label: str = "corrupting",
) -> np.ndarray:
    """Corrupts the images of some groups, several groups at a time.

    Args:
      images: `[n, side, side, 3]` clean bytes, side 32 or 64.
      draws: what each group shows; its generator may be used up.
      num_processes: >= 1; it does not matter to the result.
      label: of the progress bar, which is shown on a terminal.

    Returns:
      `[sum of rows, side, side, 3]` bytes, group after group.

    Raises:
      ValueError: as `corrupt` does.
      DataError: as `corrupt` does, or if a process is killed.

    Example:
      >>> grey = np.full((4, 32, 32, 3), 128, np.uint8)
      >>> draw = Draw("brightness", 5, np.array([0, 2]), np.random.default_rng(0))
      >>> corrupt_groups(grey, [draw])[:, 0, 0].tolist()
      [[204, 204, 204], [204, 204, 204]]
    """
    num_images = sum(len(draw.rows) for draw in draws)
    corrupted = np.empty((num_images, *images.shape[1:]), np.uint8)
    jobs = (
        joblib.delayed(corrupt)(images[draw.rows], draw.name, draw.severity, draw.rng)
        for draw in draws
    )
    start = 0
    terminal = sys.stderr is not None and sys.stderr.isatty()
    results = _results(jobs, num_processes)
    for part in tqdm(results, label, len(draws), unit="group", disable=not terminal):
        corrupted[start : start + len(part)] = part
        start += len(part)
    return corrupted


def _results(
    jobs: Iterable[tuple[Callable, tuple, dict]], num_processes: int
) -> Iterable[Any]:
    # Idle processes end by themselves, and arrays go through pipes (`max_nbytes`), so
    # that there is nothing to clean up.
    with joblib.parallel_config("loky", idle_worker_timeout=_IDLE_SECONDS):
        parallel = joblib.Parallel(
            num_processes, return_as="generator", max_nbytes=None
        )
    try:
        yield from parallel(jobs)
    except BrokenProcessPool as error:
        raise DataError(
            "A process that corrupts images was killed, most likely for want of "
            "memory; set LOKY_MAX_CPU_COUNT=1 and run again."
        ) from error


def hold_out(pool: LabelledImages, one_in: int, *, where: str) -> list[LabelledImages]:
    """Splits images into those to train on and the last of each class, to validate on.

    Args:
      pool: the images.
      one_in: of every so many, one is held out, and at least one of a class.
      where: what the images are of, for messages.

    Returns:
      The two parts, each in the order of the images.

    Raises:
      DataError: for a class with one image only.

    Example:
      >>> images, labels = np.zeros((5, 2, 2, 3), np.uint8), np.array([0, 1, 1, 0, 1])
      >>> pool = LabelledImages(images, labels)
      >>> [part.labels.tolist() for part in hold_out(pool, 3, where="five")]
      [[0, 1, 1], [0, 1]]
    """
    held_out = np.zeros(len(pool.labels), bool)
    for label in np.unique(pool.labels):
        rows = np.flatnonzero(pool.labels == label)
        if len(rows) < 2:
            raise DataError(
                f"{where}: class {label} must have 2 images or more, to train and to "
                "validate on, got 1; copy the data set again."
            )
        held_out[rows[-max(1, len(rows) // one_in) :]] = True
    return [_rows(pool, ~held_out), _rows(pool, held_out)]
