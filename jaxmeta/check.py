"""All that can be wrong with an experiment, found before any of it is run."""

import dataclasses
import functools

import jax
import optax

from jaxmeta.core.config import to_json
from jaxmeta.core.experiment import Experiment
from jaxmeta.core.learner import Learner
from jaxmeta.core.task import Task
from jaxmeta.core.types import PyTree
from jaxmeta.data.episodes import EpisodeSource
from jaxmeta.data.source import settle
from jaxmeta.meta.maml import Maml


def settle_and_check(experiment: Experiment) -> Experiment:
    """Reads the data and traces one task; nothing is compiled or run.

    Args:
      experiment: as configured.

    Returns:
      The experiment with its source settled on the data that this machine has.

    Raises:
      ValueError: for tasks that do not divide over the devices, data that are missing,
        damaged or too few, shapes that do not fit, an unknown metric, a seed that is
        too large or a network with too few outputs.
      TypeError: for a field that cannot be written into a run directory.

    Example:
      >>> from jaxmeta.core.testing import smoke_learner, smoke_source
      >>> experiment = Experiment(learner=smoke_learner(), source=smoke_source())
      >>> settle_and_check(experiment) == experiment
      True
    """
    experiment = dataclasses.replace(experiment, source=settle(experiment.source))
    to_json(experiment)
    optimizer = experiment.optimizer
    made = optimizer.make()
    for field, link, such in (
        ("aggregator", made[0], "jaxmeta:mean_over_tasks"),
        ("transform", made[1], "optax:adam"),
    ):
        if not isinstance(link, optax.GradientTransformation):
            maker = getattr(optimizer, field)
            raise ValueError(
                f"optimizer.{field} must make an optax.GradientTransformation, as "
                f"{such} does, got {getattr(maker, '__name__', maker)}."
            )
    experiment.check_devices()
    if isinstance(experiment.source, EpisodeSource):
        experiment.source.validate()
    task, learner = experiment.source.example, experiment.learner
    start = lambda: learner.init(jax.random.key(experiment.seed), task)
    try:
        shapes = jax.eval_shape(start)
    except OverflowError as error:
        raise ValueError(
            f"seed must be less than 2**63, got {experiment.seed}."
        ) from error
    except Exception as error:  # whatever a learner of somebody's own may raise
        raise _misfit(experiment, error) from error
    try:
        metrics = _metric_names(learner, shapes[0], shapes[1], task)
    except Exception as error:
        raise _misfit(experiment, error) from error
    settings = experiment.evaluation
    if settings.every and settings.metric not in metrics:
        raise ValueError(
            f"evaluation.metric must be one of {', '.join(metrics)}, got "
            f"{settings.metric!r}."
        )
    _check_ways(experiment, task)
    return experiment


def _metric_names(
    learner: Learner, params: PyTree, model_state: PyTree, task: PyTree
) -> list[str]:
    """Names of the metrics; `params` and `model_state` are shapes, not arrays."""

    def meet(params, model_state, task):
        key = jax.random.key(0)
        learner.loss(params, model_state, task, key)
        return learner.evaluate(params, model_state, task, key)

    return list(jax.eval_shape(meet, params, model_state, task))


def _misfit(experiment: Experiment, error: Exception) -> ValueError:
    learner, source = type(experiment.learner), type(experiment.source)
    return ValueError(
        f"the learner ({learner.__name__}) does not fit the tasks of the source "
        f"({source.__name__}): {type(error).__name__} {error}"
    )


def _check_ways(experiment: Experiment, task: Task) -> None:
    """A label without an output is no error in JAX: the loss is nan."""
    learner, source = experiment.learner, experiment.source
    if not (isinstance(learner, Maml) and isinstance(source, EpisodeSource)):
        return
    apply = functools.partial(learner.network.init_with_output, jax.random.key(0))
    outputs, _ = jax.eval_shape(apply, task.support.inputs)
    if outputs.shape[-1] < source.ways:
        raise ValueError(
            f"source.ways must be <= {outputs.shape[-1]}, the outputs of "
            f"learner.network, got {source.ways}; change both."
        )
