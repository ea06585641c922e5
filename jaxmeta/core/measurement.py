"""What a table shows that is measured and not trained."""

import abc

from jaxmeta.core.evaluate import TaskValues
from jaxmeta.core.progress import Progress


class Measurement(abc.ABC):
    """A figure that needs no training, in place of an `Experiment`.

    Subclasses are frozen keyword-only dataclasses: the object is the configuration, and
    a run directory keeps it as it keeps an experiment's.

    Attributes:
      seed: which of several equal measurements this is.
      source: of tasks to train on; there is none.

    Example:
      >>> import dataclasses, numpy as np
      >>> @dataclasses.dataclass(frozen=True, kw_only=True)
      ... class Dice(Measurement):
      ...     seed: int = 0
      ...     steps = 1
      ...     def check(self):
      ...         pass
      ...     def measure(self, progress):
      ...         rng = np.random.default_rng(self.seed)
      ...         return {"eyes": rng.integers(1, 7, size=100).astype(float)}
      >>> Dice().measure(Progress(1, quiet=True))["eyes"].shape
      (100,)
    """

    seed: int
    source = None

    @property
    @abc.abstractmethod
    def steps(self) -> int:
        """In how many steps its progress is shown."""

    @abc.abstractmethod
    def check(self) -> None:
        """Finds what is missing here, before anything is measured.

        Raises:
          ValueError: naming it and what to do.
        """

    @abc.abstractmethod
    def measure(self, progress: Progress) -> TaskValues:
        """Every metric, one value for each thing that was measured.

        Args:
          progress: shows how far it is.
        """
