"""Measuring a run on the way: validation tasks, and the best state seen."""

import jax
import numpy as np

from jaxmeta.core.best import Best
from jaxmeta.core.evaluate import Evaluator, TaskValues, make_evaluator
from jaxmeta.core.experiment import Experiment
from jaxmeta.core.metrics import Interval, Values, interval
from jaxmeta.core.run import Run
from jaxmeta.core.train import EVALUATE, TrainState, step_key
from jaxmeta.core.types import Split


class Validation:
    """Measures a state on the validation tasks and keeps the best one seen."""

    def __init__(self, run: Run[Experiment], like: TrainState):
        self._settings, self._steps = run.experiment.evaluation, run.experiment.steps
        self._best = Best(run.best, like, self._settings.mode)
        self._key = step_key(jax.random.key(run.experiment.seed), EVALUATE, 0)
        self._evaluator = evaluator_of(run.experiment, "validation")

    def due(self, step: int) -> bool:
        """Whether this step is one to validate: every so often, and the last."""
        every = self._settings.every
        return bool(every) and (step % every == 0 or step == self._steps)

    def __call__(self, state: TrainState, step: int) -> dict[str, Values]:
        """Metrics of the validation tasks; the best state so far is kept."""
        num_tasks = self._settings.num_validation_tasks
        tasks = self._evaluator(state.params, state.model_state, self._key, num_tasks)
        values, found = {}, spreads(tasks)
        for name, spread in sorted(found.items()):
            values[f"validation/{name}"] = spread.mean
            values[f"validation/{name}_low"] = spread.low
            values[f"validation/{name}_high"] = spread.high
        chosen = found[self._settings.metric]
        value = chosen.mean
        if self._settings.over_tasks == "worst":
            largest = self._settings.mode == "min"
            value = chosen.largest if largest else chosen.smallest
            values[f"validation/worst_{self._settings.metric}"] = value
        self._best.offer(step, state, value)
        return values

    def close(self) -> None:
        """Releases the directory of the best state."""
        self._best.close()


def evaluator_of(experiment: Experiment, split: Split) -> Evaluator:
    """The compiled evaluator of an experiment for one split."""
    return make_evaluator(
        experiment.learner,
        experiment.source,
        split=split,
        parallel=experiment.parallel,
        tasks_per_batch=experiment.evaluation.tasks_per_batch,
        precision=experiment.precision,
    )


def spreads(values: TaskValues) -> dict[str, Interval]:
    """Mean, interval over tasks and extremes of every metric."""
    # A model that overflows on some tasks has an infinite mean and no interval.
    with np.errstate(invalid="ignore", over="ignore"):
        return {name: interval(rows) for name, rows in values.items()}
