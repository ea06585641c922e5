"""Supervised multi-task problems made of handwritten digits.

The images are MNIST's (`mnist_writers.npz` in the data directory) or the digits that
come with scikit-learn. Both problems have a fixed list of tasks: slot i of a batch is
task `i % num_tasks`. Training draws images at random; validation and test go through
their images in order, so that slot i always holds the same ones.
"""

import abc
import dataclasses
import functools
import logging
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.task import DeviceSource, Examples, Task
from jaxmeta.core.types import Array, Float, Int, PRNGKey, Split
from jaxmeta.data import source
from jaxmeta.data.digits import FORM_STARTS, digits_by_form
from jaxmeta.data.episodes import SPLITS
from jaxmeta.data.mnist import FILE, load_mnist
from jaxmeta.data.source import DataError, find_file, needed_file
from jaxmeta.data.warp import rotation, warp

Origin: TypeAlias = Literal["auto", "npz", "digits"]

MOST_EXAMPLES, MOST_TASKS = 10_000, 1_000
"""More would be a slip of the keyboard."""

_LOGGER = logging.getLogger(__name__)

# The last 10,000 training images validate. Of scikit-learn's digits the last five forms
# are held out, two to validate and three to test.
_MNIST_TRAIN = 50_000


class Images(NamedTuple):
    """Labelled images of one split.

    Attributes:
      images: `[n, side, side]` bytes, ink = 255 and paper = 0.
      labels: `[n]` int32, 0 to 9.
      partners: `[n]` int32, a fixed random permutation of the rows.
    """

    images: Array | np.ndarray
    labels: Array | np.ndarray
    partners: Array | np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class DigitTasks(DeviceSource):
    """A fixed list of tasks on images of digits; subclasses say what they are.

    Attributes:
      num_examples: examples of a task in a batch, >= 1.
      origin: `npz` is MNIST, `digits` is scikit-learn's; `auto` takes MNIST where the
        data directory has it, else the digits, with a warning in the log.

    Raises:
      ValueError: for too few or too many examples, or an unknown origin.
      DataError: if the file asked for is not there or damaged, when it is read.
    """

    num_examples: int = 50
    origin: Origin = "auto"

    def __post_init__(self) -> None:
        if not 1 <= self.num_examples <= MOST_EXAMPLES:
            raise ValueError(
                f"num_examples must be from 1 to {MOST_EXAMPLES}, got "
                f"{self.num_examples}."
            )
        if self.origin not in get_args(Origin):
            raise ValueError(
                f"origin must be one of {get_args(Origin)}, got {self.origin!r}."
            )

    @property
    @abc.abstractmethod
    def num_tasks(self) -> int:
        """How many tasks there are."""

    @abc.abstractmethod
    def examples_of(
        self, images: Images, rows: Int[Array, " n"], others: Int[Array, " n"], task
    ) -> Examples:
        """The examples that task `task` makes of some rows (and of some others)."""

    def read(self) -> dict[Split, Images]:
        """All images by split."""
        if settled(self.origin) == "digits":
            return _digits()
        return _mnist(
            needed_file(FILE, otherwise="use scikit-learn's: --source.origin digits")
        )

    def size(self, split: Split) -> int:
        """How many images a split has; `num_tasks * size / num_examples` slots."""
        return len(self.read()[split].labels)

    def sample_task(
        self,
        data: dict[Split, Images],
        key: PRNGKey,
        slot: Int[Array, ""],
        *,
        split: Split,
    ) -> Task:
        """Draws the batch of one task; pure and jittable.

        Args:
          data: what `load` returned.
          key: of the draw; not used for validation and test.
          slot: which task, `slot % num_tasks`, and which images of validation and
            test.
          split: which images.

        Returns:
          A task without support, whose query has `num_examples` images `[n, side,
          side, 1]` in [0, 1] and classes `[n]`.
        """
        images, task = data[split], slot % self.num_tasks
        size, count = images.labels.shape[0], self.num_examples
        if split == "train":
            rows, others = jax.random.randint(key, (2, count), 0, size)
        else:
            rows = (slot // self.num_tasks * count + jnp.arange(count)) % size
            others = images.partners[rows]
        query = self.examples_of(images, rows, others, task)
        return Task(support=(), query=query, task_id=task.astype(jnp.int32))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoDigits(DigitTasks):
    """MultiMNIST: two overlapping digits; task 0 reads the left one, task 1 the right.

    One digit lies at the upper left and one at the lower right of a square that is 9/7
    as wide, the brighter pixel is seen, and all is shrunk to the size of one digit.
    In training every task has images of its own, where the original gives all the same;
    in validation and test they are the same.

    References:
      Sabour, Frosst, Hinton, Dynamic Routing Between Capsules (2017), section 6; Sener
      and Koltun, Multi-Task Learning as Multi-Objective Optimization (2018), section
      5.2, for the two tasks.

    Example:
      >>> tasks = TwoDigits(origin="digits").sample(
      ...     jax.random.key(0), jnp.arange(2), split="train"
      ... )
      >>> tasks.query.inputs.shape, tasks.task_id.tolist()
      ((2, 50, 8, 8, 1), [0, 1])
    """

    @property
    def num_tasks(self) -> int:
        return 2

    def examples_of(self, images, rows, others, task):
        left, right = images.images[rows], images.images[others]
        shift = round(left.shape[-1] * 2 / 7)
        pad = lambda x, before, after: jnp.pad(x, ((0, 0), *((before, after),) * 2))
        both = jnp.maximum(pad(left, 0, shift), pad(right, shift, 0))
        inputs = jax.image.resize(_scaled(both), left.shape, "bilinear")
        labels = jnp.stack([images.labels[rows], images.labels[others]])
        return Examples(inputs[..., None], labels[task])


@dataclasses.dataclass(frozen=True, kw_only=True)
class TurnedDigits(DigitTasks):
    """Task t turns the digits by `t * 180 / num_tasks` degrees and renames the classes.

    Each task has a permutation of the ten labels of its own. A network with one head
    must tell from the image how it is turned, and what helps one task hurts another.
    There is no half turn, for a 0, a 1 or an 8 would be the same image with two labels.

    Attributes:
      num_tasks: from 1 to `MOST_TASKS`.

    Raises:
      ValueError: for a number outside that.

    Example:
      >>> source = TurnedDigits(num_tasks=4, origin="digits")
      >>> tasks = source.sample(jax.random.key(0), jnp.arange(8), split="test")
      >>> tasks.query.inputs.shape, tasks.task_id.tolist()
      ((8, 50, 8, 8, 1), [0, 1, 2, 3, 0, 1, 2, 3])
    """

    num_tasks: int = 8  # pyright: ignore[reportIncompatibleVariableOverride]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.num_tasks <= MOST_TASKS:
            raise ValueError(
                f"num_tasks must be from 1 to {MOST_TASKS}, got {self.num_tasks}."
            )

    @functools.cached_property
    def new_names(self) -> np.ndarray:
        """`[task, 10]` what every task calls the ten digits; task 0 leaves them."""
        draw = lambda task: np.random.default_rng(task).permutation(10)
        names = [np.arange(10), *map(draw, range(1, self.num_tasks))]
        return np.array(names, np.int32)

    def examples_of(self, images, rows, others, task):
        del others
        turned = turn(_scaled(images.images[rows]), jnp.pi * task / self.num_tasks)
        labels = jnp.asarray(self.new_names)[task, images.labels[rows]]
        return Examples(turned[..., None], labels)


def turn(
    images: Float[Array, "n side side"], angle: float | Float[Array, ""]
) -> Float[Array, "n side side"]:
    """Turns images counter-clockwise about their centre, with paper around them.

    Args:
      images: `[n, side, side]`, paper = 0.
      angle: in radians.

    Returns:
      `[n, side, side]`, interpolated bilinearly.

    Example:
      >>> image = jnp.array([[[1.0, 2.0], [3.0, 4.0]]])
      >>> print(turn(image, jnp.pi / 2)[0].round())
      [[2. 4.]
       [1. 3.]]
    """
    turned = jax.vmap(lambda image: warp(image[..., None], rotation(angle)))(images)
    return turned[..., 0]


def _scaled(images: Array) -> Array:
    return images.astype(jnp.float32) / 255.0


def settled(origin: Origin) -> Literal["npz", "digits"]:
    """What `auto` is on this machine.

    Raises:
      DataError: if the data directory is none, or has no such file.

    Example:
      >>> settled("digits")
      'digits'
    """
    if origin != "auto":
        return origin
    if find_file(FILE):
        return "npz"
    if (directory := source.data_dir()) is not None:
        raise DataError(
            f"{FILE} is not in the data directory {directory}. Name another "
            "--data-dir, or use scikit-learn's digits: --source.origin digits of "
            "`jaxmeta train`."
        )
    _LOGGER.warning(
        "MNIST was not found: using scikit-learn's digits. Point JAXMETA_DATA_DIR or "
        "--data-dir at a directory with %s.",
        FILE,
    )
    return "digits"


@source.settle.register
def _(tasks: DigitTasks) -> DigitTasks:
    return dataclasses.replace(tasks, origin=settled(tasks.origin))


@functools.cache
def _mnist(path: Path) -> dict[Split, Images]:
    mnist = load_mnist(path, least_train=_MNIST_TRAIN + 1)
    images, labels = mnist.train_images, mnist.train_labels
    return {
        "train": _split(images[:_MNIST_TRAIN], labels[:_MNIST_TRAIN]),
        "validation": _split(images[_MNIST_TRAIN:], labels[_MNIST_TRAIN:]),
        "test": _split(mnist.test_images, mnist.test_labels),
    }


@functools.cache
def _digits() -> dict[Split, Images]:
    ends = [FORM_STARTS[9], FORM_STARTS[11]]
    images, labels = digits_by_form()
    parts = map(_split, np.split(images, ends), np.split(labels, ends))
    return dict(zip(SPLITS, parts, strict=True))


def _split(images: np.ndarray, labels: np.ndarray) -> Images:
    partners = np.random.default_rng(0).permutation(len(labels))
    return Images(images, labels.astype(np.int32), partners.astype(np.int32))
