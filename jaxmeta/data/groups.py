"""Data that come in groups: users, angles, corruptions. A group is a task.

In training a task is a stack of *sets* of points. Who shares a set is the sampler's
choice: points of one group, which is what a method that adapts wants to see, or of all.
So any method can be trained with any sampler, and a comparison of two methods need not
compare two samplers. In validation and test a task is one set of one group; the last
set of a group may be smaller, and is padded and masked. The harness adds the sets of a
group up, so that what is reported is a figure a group.
"""

import abc
import dataclasses
import functools
import math
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.task import DeviceSource, Task
from jaxmeta.core.types import Array, Bool, Int, PRNGKey, Split
from jaxmeta.data.source import DataError, data_dir

Sampler: TypeAlias = Literal[
    "group", "group_by_size", "client", "point", "point_balanced"
]
"""Who shares a set of a training task.

group: points of one group; every group is equally likely.
group_by_size: points of one group; a group is as likely as it is large.
client: all sets of a task are of one group, with each of its points once, as far as
  they fit in; every group is equally likely.
point: any points, drawn anew every time (the plain shuffle, but with replacement).
point_balanced: any points, each of an equally likely group (up-weighting).
"""

MOST_POINTS = 10_000
"""More points in a set would be a slip of the keyboard."""


_LARGEST = np.iinfo(np.int32).max
"""Classes are kept in four bytes."""


class Points(NamedTuple):
    """Sets of labelled points: the query of a task.

    Attributes:
      inputs: `[set, point, ...]`.
      targets: `[set, point]` classes.
      groups: `[set, point]` the group of each point.
      mask: `[set, point]` False for padding.
    """

    inputs: Array
    targets: Int[Array, "*sets point"]
    groups: Int[Array, "*sets point"]
    mask: Bool[Array, "*sets point"]


class Groups(NamedTuple):
    """The points of one split, and who belongs to which group.

    Attributes:
      inputs: `[n, ...]`; images are bytes.
      targets: `[n]` int32 classes.
      groups: `[n]` int32, 0 to the number of groups - 1.
      members: `[group, longest]` int32 rows of each group, shuffled once; after the
        last of a smaller group they begin again.
      sizes: `[group]` int32.
    """

    inputs: Any
    targets: Any
    groups: Any
    members: Any
    sizes: Any


def group_points(
    inputs: np.ndarray, targets: np.ndarray, groups: np.ndarray, *, where: str = "data"
) -> Groups:
    """Sorts points into groups; group ids are renumbered in ascending order.

    Args:
      inputs: `[n, ...]`.
      targets: `[n]` integers >= 0.
      groups: `[n]` anything that can be sorted, such as writer ids.
      where: what the points are of, for messages.

    Raises:
      DataError: if there is no point, lengths differ, or a class is negative.

    Example:
      >>> targets, groups = np.array([0, 1, 1]), np.array([7, 9, 7])
      >>> found = group_points(np.zeros((3, 2)), targets, groups)
      >>> found.sizes.tolist(), sorted(found.members[0].tolist())
      ([2, 1], [0, 2])
    """
    inputs = _of_one_shape(inputs, where)
    targets, groups = map(np.asarray, (targets, groups))
    lengths = (len(inputs), targets.size, groups.size)
    if not lengths[0] or len(set(lengths)) > 1:
        raise DataError(
            f"{where}: inputs, targets and groups must be equally many and at least "
            f"one, got {lengths}; give every input its class and its group."
        )
    whole = targets.ndim == 1 and targets.dtype.kind in "iu"
    if not whole or not 0 <= targets.min() <= targets.max() <= _LARGEST:
        raise DataError(
            f"{where}: targets must be one class from 0 to {_LARGEST} a point, got "
            f"{targets.dtype} {targets.shape} from {targets.min()} to {targets.max()}."
        )
    _, ids, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(0).permutation(len(ids))
    by_group = order[np.argsort(ids[order], kind="stable")]
    starts = np.cumsum(sizes) - sizes
    members = [
        np.resize(by_group[start : start + size], sizes.max())
        for start, size in zip(starts, sizes, strict=True)
    ]
    return Groups(
        inputs,
        targets.astype(np.int32),
        ids.astype(np.int32),
        np.stack(members).astype(np.int32),
        sizes.astype(np.int32),
    )


def _of_one_shape(inputs: Any, where: str) -> np.ndarray:
    try:
        inputs = np.asarray(inputs)
        kind = str(inputs.dtype)
    except ValueError:  # of a list of arrays of several shapes
        kind = "several shapes"
    if kind == "several shapes" or inputs.dtype.kind not in "biuf":
        raise DataError(
            f"{where}: inputs must be numbers of one shape, got {kind}; are there "
            "images of several sizes?"
        )
    return inputs


def check_classes(targets: np.ndarray, num_classes: int, *, where: str) -> None:
    """Raises DataError for a class that is none.

    Args:
      targets: `[n]`.
      num_classes: classes are below it.
      where: what the points are of, for the message.

    Example:
      >>> check_classes(np.array([0, 2]), 2, where="mine")
      Traceback (most recent call last):
      jaxmeta.data.source.DataError: mine: classes must be below 2, got 2.
    """
    if targets.max() >= num_classes:
        raise DataError(
            f"{where}: classes must be below {num_classes}, got {targets.max()}."
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupSource(DeviceSource):
    """Tasks made of groups; subclasses say which.

    A task has no support: a method adapts to the points that it is asked about, without
    their labels. To adapt to some and ask about others call `adapt` and `predict`.

    Raises:
      ValueError: for a number outside its range or an unknown sampler.
    """

    parts_of_groups: ClassVar[bool] = True

    points_per_set: int = 50
    """Points that a method adapts to at a time, 1 to `MOST_POINTS`."""

    sets_per_task: int = 1
    """Sets in a training task, >= 1. Methods that look at several groups at a time, as
    ordinary batch normalisation does, want several."""

    sampler: Sampler = "group"
    """Who shares a set in training."""

    def __post_init__(self) -> None:
        for name, most in (("points_per_set", MOST_POINTS), ("sets_per_task", 1_000)):
            if not 1 <= (value := getattr(self, name)) <= most:
                raise ValueError(f"{name} must be from 1 to {most}, got {value}.")
        if self.sampler not in get_args(Sampler):
            raise ValueError(
                f"sampler must be one of {', '.join(get_args(Sampler))}, got "
                f"{self.sampler!r}."
            )

    @property
    @abc.abstractmethod
    def num_classes(self) -> int:
        """How many classes there are."""

    @abc.abstractmethod
    def groups(self) -> dict[Split, Groups]:
        """All points by split, as `group_points` sorts them."""

    def prepare(self, inputs: Array) -> Array:
        """What a network is given for some rows of `inputs`: bytes become 0 to 1."""
        if inputs.dtype == jnp.uint8:
            return inputs.astype(jnp.float32) / 255.0
        return inputs.astype(jnp.float32)

    def read(self) -> dict[Split, Groups]:
        """All points by split, checked."""
        found = self._found
        for split, points in found.items():
            where = f"{type(self).__name__}, {split}"
            check_classes(points.targets, self.num_classes, where=where)
        return found

    @functools.cached_property
    def _found(self) -> dict[Split, Groups]:
        # How points are drawn does not matter to what there is.
        same = dataclasses.replace(
            self, points_per_set=1, sets_per_task=1, sampler="group"
        )
        return _groups_of(same, data_dir())

    def sizes(self, split: Split) -> np.ndarray:
        """`[group]` how many points each group of a split has."""
        return np.asarray(self._found[split].sizes)

    def num_slots(self, split: Split) -> int:
        """The tasks of a whole evaluation: sets of the largest group, times groups."""
        sizes = self.sizes(split)
        return len(sizes) * -(-int(sizes.max()) // self.points_per_set)

    def sample_task(
        self,
        data: dict[Split, Groups],
        key: PRNGKey,
        slot: Int[Array, ""],
        *,
        split: Split,
    ) -> Task:
        """Draws one task; pure and jittable.

        Args:
          data: what `load` returned.
          key: of the draw; not used for validation and test.
          slot: for validation and test the group, `slot % num_groups`, and which of
            its sets, `slot // num_groups`.
          split: which part of the data.

        Returns:
          A task without support whose query are `Points`: `[sets_per_task,
          points_per_set]` drawn with replacement in training (each once for clients),
          else `[1, points_per_set]`, in the order of `Groups.members`.
        """
        points = data[split]
        num_groups = points.sizes.shape[0]
        if split != "train":
            before = self.points_per_set * (slot // num_groups)
            places = before + jnp.arange(self.points_per_set)[None]
            rows, mask = _once(points, slot % num_groups, places)
        elif self.sampler == "client":
            shape = (self.sets_per_task, self.points_per_set)
            group_key, start_key = jax.random.split(key)
            group = jax.random.randint(group_key, (), 0, num_groups)
            start = jax.random.randint(start_key, (), 0, points.sizes[group])
            places = jnp.arange(math.prod(shape)).reshape(shape)
            rows, mask = _once(points, group, places, start)
        else:
            rows = self._draw(points, key)
            mask = jnp.ones(rows.shape, bool)
        groups = points.groups[rows]
        inputs = self.prepare(points.inputs[rows])
        query = Points(inputs, points.targets[rows], groups, mask)
        return Task(support=(), query=query, task_id=groups[0, 0])

    def _draw(self, points: Groups, key: PRNGKey) -> Int[Array, "set point"]:
        shape = (self.sets_per_task, self.points_per_set)
        group_key, point_key = jax.random.split(key)
        num_groups, num_points = points.sizes.shape[0], points.targets.shape[0]
        if self.sampler == "point":
            return jax.random.randint(point_key, shape, 0, num_points)
        if self.sampler == "point_balanced":
            groups = jax.random.randint(group_key, shape, 0, num_groups)
        elif self.sampler == "group":
            groups = jax.random.randint(group_key, (shape[0], 1), 0, num_groups)
        else:
            # The group of a random point is as likely as it is large.
            rows = jax.random.randint(group_key, (shape[0], 1), 0, num_points)
            groups = points.groups[rows]
        sizes = jnp.broadcast_to(points.sizes[groups], shape)
        return points.members[groups, jax.random.randint(point_key, shape, 0, sizes)]


@functools.lru_cache(maxsize=2)
def _groups_of(source: GroupSource, where: Path | None) -> dict[Split, Groups]:
    del where  # what is read depends on it
    return source.groups()


def _once(points: Groups, group: Array, places: Array, start: Array | int = 0):
    """The rows at some places of a group, counted from `start`, and if they are there.

    Places from 0 to its size - 1 are the points of the group, each once.
    """
    size = points.sizes[group]
    return points.members[group, (start + places) % size], places < size


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ArrayGroups(GroupSource):
    """Groups in your own arrays. It cannot be written as JSON, so it is for libraries.

    Attributes:
      inputs: `[n, ...]`; bytes are scaled to 0 to 1.
      targets: `[n]` integer classes.
      group_ids: `[n]` anything that can be sorted.
      held_out: group ids that are not trained on: `(validation, test)`.

    Raises:
      DataError: when read, for a held-out id that no point has, or a split without
        points, and as `group_points` does.

    Example:
      >>> source = ArrayGroups(
      ...     inputs=np.zeros((6, 4), np.float32),
      ...     targets=np.array([0, 1, 0, 1, 0, 1]),
      ...     group_ids=np.array(["ann", "ann", "bob", "bob", "eve", "eve"]),
      ...     held_out=(("bob",), ("eve",)),
      ...     points_per_set=2,
      ... )
      >>> source.sample(jax.random.key(0), jnp.arange(1), split="test").query.groups
      Array([[[0, 0]]], dtype=int32)
    """

    inputs: np.ndarray
    targets: np.ndarray
    group_ids: np.ndarray
    held_out: tuple[tuple, tuple]

    # Arrays are not compared: every object has data of its own.
    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    @property
    def num_classes(self) -> int:
        """One more than the largest class of any split."""
        return 1 + max(int(points.targets.max()) for points in self._found.values())

    def groups(self) -> dict[Split, Groups]:
        ids, inputs = np.asarray(self.group_ids), _of_one_shape(self.inputs, "inputs")
        targets = np.asarray(self.targets)
        lengths = (len(inputs), len(targets), len(ids))
        if len(set(lengths)) > 1:
            raise DataError(
                "inputs, targets and group_ids must be equally many, got "
                f"{', '.join(map(str, lengths))}."
            )
        validation, test = self.held_out
        if isinstance(validation, str) or isinstance(test, str):
            raise DataError(
                "held_out must be two tuples of group ids, as (('bob',), ('eve',)), "
                f"got {self.held_out}."
            )
        if both := {*validation} & {*test}:
            raise DataError(
                f"held_out has groups in both validation and test: {sorted(both)}."
            )
        if missing := {*validation, *test} - set(ids.tolist()):
            raise DataError(f"held_out names groups without points: {missing}.")
        parts: dict[Split, np.ndarray] = {
            "train": ~np.isin(ids, [*validation, *test]),
            "validation": np.isin(ids, [*validation]),
            "test": np.isin(ids, [*test]),
        }
        return {
            split: group_points(inputs[part], targets[part], ids[part], where=split)
            for split, part in parts.items()
        }
