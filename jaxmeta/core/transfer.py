"""Another method tested on what an experiment has trained."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from jaxmeta.core.config import as_of_now, differences, to_json
from jaxmeta.core.evaluate import TaskValues
from jaxmeta.core.experiment import Experiment
from jaxmeta.core.fit import fit, measure
from jaxmeta.core.learner import Learner
from jaxmeta.core.procedure import Procedure
from jaxmeta.core.progress import Progress
from jaxmeta.core.run import Run, read_json
from jaxmeta.core.task import DeviceSource
from jaxmeta.core.writers import Writer, Writers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transfer(Procedure):
    """Tests `learner` with the parameters that `trained` ends with.

    A run of the same experiment that lies beside this one is used; if there is none, it
    is trained here, in `trained/`. So rows of a table that differ only at test time
    share one training.

    Example:
      >>> from jaxmeta.core.testing import SmokeLearner, smoke_learner, smoke_source
      >>> learner, source = smoke_learner(), smoke_source()
      >>> experiment = Experiment(learner=learner, source=source, steps=9)
      >>> slower = Transfer(trained=experiment, learner=SmokeLearner(inner_rate=0.01))
      >>> slower.seed
      0
    """

    trained: Experiment
    """What is trained."""

    learner: Learner
    """What is tested; its parameters have the shapes of the trained one's."""

    @property
    def seed(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of the experiment."""
        return self.trained.seed

    @property
    def source(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of the experiment."""
        return self.trained.source

    @property
    def steps(self) -> int:
        """Those of the experiment, which may be done already."""
        return self.trained.steps

    def check(self) -> None:
        """Finds out whether what is trained fits what is tested.

        Raises:
          ValueError: if it does not, or batches do not divide over the devices.
        """
        self.trained.check_devices()
        source, key = self.trained.source, jax.random.key(0)
        task = source.shapes if isinstance(source, DeviceSource) else source.example
        learners = (self.trained.learner, self.learner)
        try:
            ours, theirs = (
                jax.eval_shape(lambda task, of=of: of.init(key, task), task)
                for of in learners
            )
            jax.eval_shape(self.learner.evaluate, *theirs, task, key)
        except Exception as error:  # whatever a learner may raise
            raise ValueError(
                f"{type(self.learner).__name__} does not fit the tasks: {error}"
            ) from error
        if ours != theirs:
            raise ValueError(
                f"{type(self.learner).__name__} has other parameters than the "
                f"{type(self.trained.learner).__name__} that is trained."
            )

    def perform(
        self, directory: Path, writer: Writer, progress: Progress
    ) -> TaskValues:
        """Trains, unless that is done, and tests."""
        del writer
        run = self._trained_beside(directory)
        if run is None:
            run = Run.open(directory / "trained", self.trained)
            fit(run, Writers(()), progress)
        return self._measure(run)

    def measure(self, directory: Path, num_tasks: int | None = None) -> TaskValues:
        """Tests again what was trained."""
        run = self._trained_beside(directory) or Run(
            directory / "trained", self.trained
        )
        return self._measure(run, num_tasks)

    def _measure(self, run: Run, num_tasks: int | None = None) -> TaskValues:
        tested = dataclasses.replace(self.trained, learner=self.learner)
        values = measure(Run(run.directory, tested), num_tasks=num_tasks)
        return {name: np.asarray(rows) for name, rows in values.items()}

    def _trained_beside(self, directory: Path) -> Run | None:
        """A finished run of the experiment in the directory that holds this one."""
        wanted = to_json(self.trained)
        for path in sorted(directory.parent.glob("*/result.json")):
            try:
                found = read_json(path.parent / "config.json")
            except ValueError:  # no run, or a damaged one of something else
                continue
            if not differences(wanted, as_of_now(found)):
                return Run(path.parent, self.trained)
        return None
