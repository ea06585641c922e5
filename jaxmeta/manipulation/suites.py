"""The official suites: MT1, MT10, MT25, MT50, ML1, ML10, ML25, ML45.

Each has 50 goals a task, those that the official package draws for seed 42, exported by
`tests/parity/export_goals.py`. The multi-task suites (MT) show their goals, and have
none to test on: here "test" is "train". The meta-learning ones (ML) hide them and test
on other tasks (ML1: other goals of the same task). ML25's official test set holds a
task that it also trains on, basketball.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.names import did_you_mean
from jaxmeta.core.types import Array, Float, Int, PRNGKey
from jaxmeta.manipulation.tasks import find

SuiteName: TypeAlias = Literal[
    "MT1", "MT10", "MT25", "MT50", "ML1", "ML10", "ML25", "ML45"
]
SuiteSplit: TypeAlias = Literal["train", "test"]

NUM_GOALS = 50
"""Goals of a task in a suite."""


class Drawn(NamedTuple):
    """A task with a goal.

    Attributes:
      task: `[]` index into `Suite.tasks`.
      vector: `[6]` the draw that says where things and goal are, for
        `ManipulationEnv.reset_to`.
    """

    task: Int[Array, ""]
    vector: Float[Array, "6"]


@functools.cache
def _tables() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).with_name("goals.npz"), allow_pickle=False) as file:
        return dict(file)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """One of the official suites.

    Attributes:
      name: such as "MT10".
      task: the one task of MT1 and ML1, such as "reach"; None for the others.

    Raises:
      ValueError: for an unknown suite or task, naming the nearest, a missing one, or
        one too many.

    Example:
      >>> suite = Suite(name="ML10")
      >>> len(suite.tasks), len(suite.of("train")), suite.of("test")[0]
      (15, 10, 'drawer-open')
      >>> drawn = suite.sample_task(jax.random.key(0), "test")
      >>> suite.tasks[int(drawn.task)] in suite.of("test")
      True
    """

    name: SuiteName
    task: str | None = None

    def __post_init__(self):
        if self.name not in (known := get_args(SuiteName)):
            hint = did_you_mean(self.name, known, f"known: {', '.join(known)}.")
            raise ValueError(f"unknown suite {self.name!r}; {hint}")
        if self._is_single != (self.task is not None):
            need = "needs a task" if self._is_single else "has tasks of its own"
            raise ValueError(f"{self.name} {need}, got task {self.task!r}.")
        if self.task is not None:
            find(self.task)

    @property
    def _is_single(self) -> bool:
        return self.name in ("MT1", "ML1")

    @property
    def hides_goals(self) -> bool:
        """Whether observations leave the goal out."""
        return self.name.startswith("ML")

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks, those to train on first; each once."""
        return tuple(dict.fromkeys((*self.of("train"), *self.of("test"))))

    def of(self, split: SuiteSplit) -> tuple[str, ...]:
        """The tasks of a split, in the official order."""
        key = self._key(split)
        if self.task is not None:
            return (self.task,)
        return tuple(_tables()[f"{key}/tasks"].tolist())

    def _key(self, split: SuiteSplit) -> str:
        if split not in get_args(SuiteSplit):
            raise ValueError(f"split must be 'train' or 'test', got {split!r}.")
        if self.name == "MT1":
            return "ML1/train"
        return f"{self.name}/{'train' if self.name.startswith('MT') else split}"

    @functools.cached_property
    def _goals(self) -> dict[str, np.ndarray]:
        found = {}
        for split in get_args(SuiteSplit):
            key = self._key(split)
            rows = _tables()[f"{key}/goals"]
            if self.task is not None:
                rows = rows[_tables()[f"{key}/tasks"].tolist().index(self.task)][None]
            found[split] = rows
        return found

    def goals(self, split: SuiteSplit) -> Float[Array, "task goal 6"]:
        """`[task, 50, 6]` the official draws of a split, in the order of `of(split)`.

        Draws of tasks that need three numbers are padded with zeros.
        """
        self._key(split)
        return jnp.asarray(self._goals[split])

    def sample_task(self, key: PRNGKey, split: SuiteSplit) -> Drawn:
        """A task of the split, uniformly, with one of its 50 goals; jittable."""
        goals = self.goals(split)
        numbers = jnp.array([self.tasks.index(name) for name in self.of(split)])
        task_key, goal_key = jax.random.split(key)
        i = jax.random.randint(task_key, (), 0, len(numbers))
        return Drawn(
            numbers[i], goals[i, jax.random.randint(goal_key, (), 0, NUM_GOALS)]
        )
