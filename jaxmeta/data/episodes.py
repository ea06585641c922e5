"""N-way K-shot episodes, drawn on the device from one resident array.

An episode is a small classification problem: N classes that the learner has not met
together before, K labelled examples of each to learn from (support), and others of
the same classes to be measured on (query). See Vinyals et al., Matching Networks for
One Shot Learning (2016), section 2.2.

The images stay on the device as bytes; a task gathers its few, and only those become
floats. So a training step needs no host, and thousands run in one `lax.scan`.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from jaxmeta.core.task import DeviceSource, Examples, Task
from jaxmeta.core.types import Array, Int, PRNGKey, Split

SPLITS: tuple[Split, ...] = get_args(Split)
"""The splits in the order of the numbers in `ClassImages.class_split`."""


class ClassImages(NamedTuple):
    """A data set as classes of images, on the host.

    Attributes:
      images: `[image, height, width, channel]` bytes, one class after the other.
      counts: `[class]` how many of them belong to each class.
      class_split: `[class]` index into `SPLITS` of the split each class belongs to.
    """

    images: UInt8[np.ndarray, "image height width channel"]
    counts: Int[np.ndarray, " class"]
    class_split: Int[np.ndarray, " class"]


def equal_classes(
    images: UInt8[np.ndarray, "class example height width channel"],
    class_split: Int[np.ndarray, " class"],
) -> ClassImages:
    """Classes of equally many images.

    Args:
      images: `[class, example, height, width, channel]` bytes.
      class_split: as in `ClassImages`.

    Example:
      >>> images = np.zeros((3, 20, 28, 28, 1), np.uint8)
      >>> equal_classes(images, np.array([0, 1, 2])).counts.tolist()
      [20, 20, 20]
    """
    num_classes, num_examples = images.shape[:2]
    counts = np.full(num_classes, num_examples, np.int32)
    return ClassImages(images.reshape(-1, *images.shape[2:]), counts, class_split)


class EpisodeData(NamedTuple):
    """What episodes are drawn from, on the host or on the device.

    Attributes:
      images: `[image, height, width, channel]` bytes, one class after the other.
      counts: `[class]` how many of them belong to each class.
      pools: for each split, `[pool]` the indices of its classes.
    """

    images: UInt8[Array | np.ndarray, "image height width channel"]
    counts: Int[Array | np.ndarray, " class"]
    pools: dict[Split, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeSource(DeviceSource):
    """Few-shot episodes over the classes of a data set.

    A task draws `ways` distinct classes of its split and `shots + queries` distinct
    examples of each, all uniformly and without replacement. Labels 0 to `ways - 1`
    follow the order in which the classes were drawn, which is random, so a class has
    no lasting label. The examples of a class are adjacent: row `i` of a set has the
    label `i // shots` (or `i // queries`).

    Subclasses say where the images come from (`classes`).

    Attributes:
      ways: classes per episode, N >= 2.
      shots: support examples per class, K >= 1.
      queries: query examples per class, >= 1.
      augment: changes every query image, `(key, image) -> image`; the support is never
        changed, so that what does not matter has to be learned between tasks
        (Zhou et al., Meta-Learning Symmetries by Reparameterization, 2021, algorithm
        2). `jaxmeta.symmetry.augment.Augment` is theirs.
      rotations: whether each class turned by 90, 180 and 270 degrees counts as three
        further classes of the same split (Santoro et al., One-shot Learning with
        Memory-Augmented Neural Networks, 2016, section 4.1). Images must be square.

    Raises:
      ValueError: if a number is below its limit.

    Example:
      >>> from jaxmeta.data.digits import Digits
      >>> source = Digits(ways=5, shots=1, queries=2, image_size=8)
      >>> task = source.sample(jax.random.key(0), jnp.arange(3), split="test")
      >>> task.support.inputs.shape, task.query.targets[0].tolist()
      ((3, 5, 8, 8, 1), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    """

    ways: int = 5
    shots: int = 1
    queries: int = 15
    rotations: bool = True
    augment: Callable[[PRNGKey, Array], Array] | None = None

    def __post_init__(self) -> None:
        limits = {"ways": 2, "shots": 1, "queries": 1}
        for name, low in limits.items():
            if (value := getattr(self, name)) < low:
                raise ValueError(f"{name} must be >= {low}, got {value}.")

    @property
    @abc.abstractmethod
    def data_used(self) -> str:
        """One phrase saying which images these are, for logs and reports."""

    @abc.abstractmethod
    def classes(self) -> ClassImages:
        """Reads the images on the host; called once per object."""

    def validate(self) -> None:
        """Reads the data and checks, on the host alone, that the episodes fit it.

        Raises:
          ValueError: if `ways` exceeds the classes of a split, `shots + queries` the
            examples of the smallest class, `rotations` is set and the images are not
            square, or `augment` does not turn an image into another.
          DataError: if the data cannot be read.
        """
        images, counts, class_split = self._on_host
        for i, split in enumerate(SPLITS):
            num_classes = self._turns * int(np.sum(class_split == i))
            if self.ways > num_classes:
                raise ValueError(
                    f"ways must be <= {num_classes}, the number of {split} classes of "
                    f"{self.data_used}, got {self.ways}."
                )
        if self.shots + self.queries > counts.min():
            which = "every" if counts.min() == counts.max() else "the smallest"
            raise ValueError(
                f"shots + queries must be <= {counts.min()}, the number of examples of "
                f"{which} class of {self.data_used}, got {self.shots} + "
                f"{self.queries}."
            )
        height, width = images.shape[1:3]
        if self.rotations and height != width:
            raise ValueError(
                "rotations must be False unless images are square, got images of "
                f"{height}x{width}."
            )
        if self.augment is not None:
            self._check_augment(self.augment, images.shape[1:])

    @staticmethod
    def _check_augment(augment: Callable, shape: tuple[int, ...]) -> None:
        """Raises ValueError unless it makes an image of an image."""
        image = jax.ShapeDtypeStruct(shape, jnp.float32)
        name = getattr(augment, "__name__", augment)
        try:
            made = jax.eval_shape(augment, jax.random.key(0), image)
        except Exception as error:  # whatever a function that is none of ours raises
            raise ValueError(
                f"augment must be a function of a key and an image, got {name} "
                f"({error})."
            ) from error
        if made != image:
            raise ValueError(
                f"augment must make an image of {shape} and float32 of one, got {name},"
                f" which makes {made}."
            )

    def read(self) -> EpisodeData:
        """The images and the classes of each split.

        Raises:
          ValueError: as `validate`.
        """
        self.validate()
        images, counts, class_split = self._on_host
        pools: dict[Split, Any] = {
            split: np.flatnonzero(class_split == i).astype(np.int32)
            for i, split in enumerate(SPLITS)
        }
        return EpisodeData(images, counts.astype(np.int32), pools)

    def sample_task(
        self, data: EpisodeData, key: PRNGKey, slot: Int[Array, ""], *, split: Split
    ) -> Task:
        """Draws one episode; pure and jittable.

        Args:
          data: what `load` returned.
          key: this task's own key.
          slot: not used; all tasks are drawn alike.
          split: which classes to draw from.

        Returns:
          A task whose sets are `Examples(inputs [n, height, width, channel] float32
          in [0, 1], targets [n] int32)` with n = `ways * shots` and `ways * queries`.
          An episode has no identity beyond itself: every `task_id` is 0.

        Raises:
          ValueError: if the split is unknown.
        """
        del slot
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {split!r}.")
        pool = data.pools[split]
        class_key, example_key, augment_key = jax.random.split(key, 3)
        chosen = _distinct(class_key, pool.size * self._turns, self.ways)
        classes, turns = pool[chosen // self._turns], chosen % self._turns
        first = jnp.cumsum(data.counts) - data.counts
        draw = lambda key, limit: _distinct(
            key, self._most_examples, self.shots + self.queries, below=limit
        )
        keys = jax.random.split(example_key, self.ways)
        examples = jax.vmap(draw)(keys, data.counts[classes])
        images = data.images[first[classes][:, None] + examples]
        if self.rotations:
            turned = [jnp.rot90(images, k, axes=(2, 3)) for k in range(self._turns)]
            images = jnp.stack(turned)[turns, jnp.arange(self.ways)]
        images = images.astype(jnp.float32) / 255.0
        query = _examples(images[:, self.shots :])
        if self.augment is not None:
            keys = jax.random.split(augment_key, len(query.inputs))
            query = query._replace(inputs=jax.vmap(self.augment)(keys, query.inputs))
        return Task(
            support=_examples(images[:, : self.shots]),
            query=query,
            task_id=jnp.zeros((), jnp.int32),
        )

    @property
    def _turns(self) -> int:
        return 4 if self.rotations else 1

    @functools.cached_property
    def _on_host(self) -> ClassImages:
        return self.classes()

    @property
    def _most_examples(self) -> int:
        """Of any class."""
        return int(self._on_host.counts.max())


def _distinct(
    key: PRNGKey, limit: int, count: int, *, below: int | Int[Array, ""] | None = None
) -> Int[Array, " count"]:
    """`count` distinct numbers below both limits, uniform and in random order.

    The places of the largest of `limit` random numbers, those not below `below` apart.
    XLA finds a few largest much faster than it sorts, on the CPU only among floats
    (0.05 ms against 0.9 ms for 5 of 4112 integers, and about 2 ms for a permutation).
    Equal floats, which go to the lower place, are one pair in 8 million.
    """
    scores = jax.random.uniform(key, (limit,))
    if below is not None:
        scores = jnp.where(jnp.arange(limit) < below, scores, -1.0)
    return jax.lax.top_k(scores, count)[1]


def _examples(images: Array) -> Examples:
    """`[way, example, ...]` images as one set, labelled by way."""
    ways, count = images.shape[:2]
    targets = jnp.repeat(jnp.arange(ways, dtype=jnp.int32), count)
    return Examples(images.reshape(ways * count, *images.shape[2:]), targets)
