"""What a run directory may hold beside an `Experiment`: what is done in its own way."""

import abc
from pathlib import Path
from typing import ClassVar

from jaxmeta.core.evaluate import TaskValues
from jaxmeta.core.progress import Progress
from jaxmeta.core.writers import Writer


class Procedure(abc.ABC):
    """An agent that is trained, or a figure that needs no training at all.

    Subclasses are frozen keyword-only dataclasses: the object is the configuration, and
    a run directory keeps it as it keeps an experiment's.

    Attributes:
      seed: root of every random number, or which of several equal measurements this is.
      source: of tasks to train on; there is none.
      unit: what the rate of its progress counts.
      measured_on: what its result is an average over.

    Example:
      >>> import dataclasses, numpy as np
      >>> @dataclasses.dataclass(frozen=True, kw_only=True)
      ... class Dice(Procedure):
      ...     seed: int = 0
      ...     steps = 1
      ...     def check(self):
      ...         pass
      ...     def perform(self, directory, writer, progress):
      ...         rng = np.random.default_rng(self.seed)
      ...         return {"eyes": rng.integers(1, 7, size=100).astype(float)}
      >>> from jaxmeta.core.writers import Writers
      >>> quiet = Progress(1, quiet=True)
      >>> Dice().perform(Path("runs/dice"), Writers(()), quiet)["eyes"].shape
      (100,)
    """

    seed: int
    source = None
    unit: ClassVar[str] = "tasks"
    measured_on: ClassVar[str] = "tasks"

    @property
    @abc.abstractmethod
    def steps(self) -> int:
        """In how many steps its progress is shown."""

    @abc.abstractmethod
    def check(self) -> None:
        """Finds what is missing or wrong here, before anything is done.

        Raises:
          ValueError: naming it and what to do.
        """

    @abc.abstractmethod
    def perform(
        self, directory: Path, writer: Writer, progress: Progress
    ) -> TaskValues:
        """Does it, from where it stopped if it was interrupted.

        Args:
          directory: its run directory.
          writer: takes its metrics, if it has any.
          progress: shows how far it is.

        Returns:
          Every metric, one value for each thing that was measured.
        """

    def measure(self, directory: Path, num_tasks: int | None = None) -> TaskValues:
        """Measures again what was trained in a run directory.

        Args:
          directory: a run directory.
          num_tasks: on how many tasks; all when None.

        Raises:
          ValueError: where nothing is ever trained.
        """
        del num_tasks
        raise ValueError(f"{directory} holds nothing that was trained.")

    def estimate(self) -> list[str]:
        """What it would cost, a line each."""
        return []
