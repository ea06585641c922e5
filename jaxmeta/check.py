"""All that can be wrong with an experiment, found before any of it is run."""

import dataclasses
import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta.core.config import to_json
from jaxmeta.core.experiment import Experiment
from jaxmeta.core.learner import Learner
from jaxmeta.core.outer_step import OuterStep, named
from jaxmeta.core.task import DeviceSource, Task
from jaxmeta.core.types import PyTree
from jaxmeta.data.digit_tasks import DigitTasks
from jaxmeta.data.episodes import EpisodeSource
from jaxmeta.data.groups import GroupSource
from jaxmeta.data.mnist import NUM_CLASSES
from jaxmeta.data.source import settle
from jaxmeta.meta.maml import Maml
from jaxmeta.meta.protonet import ProtoNet
from jaxmeta.multitask.hard_sharing import HardSharing
from jaxmeta.shift.adaptation import Adapting, ResetEvery
from jaxmeta.shift.arm_cml import ArmCml
from jaxmeta.shift.dann import Dann
from jaxmeta.shift.erm import Erm
from jaxmeta.shift.fed_avg import LocalSgd
from jaxmeta.shift.learner import ShiftLearner


def settle_and_check(experiment: Experiment) -> Experiment:
    """Reads the data and traces one task; nothing is compiled or run.

    Args:
      experiment: as configured.

    Returns:
      The experiment with its source settled on the data that this machine has.

    Raises:
      ValueError: for tasks that do not divide over the devices, data that are missing,
        damaged or too few, shapes that do not fit, an unknown metric, a seed that is
        too large, a network with too few outputs or heads, or step metrics that are
        none.
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
    source, learner = experiment.source, experiment.learner
    task = source.shapes if isinstance(source, DeviceSource) else source.example
    start = lambda task: learner.init(jax.random.key(experiment.seed), task)
    try:
        shapes = jax.eval_shape(start, task)
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
    _check_heads(experiment, task, shapes[0])
    _check_classes(experiment, task, shapes)
    _warn_of_small_sets(experiment)
    _check_step_metrics(experiment, shapes[0])
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


def _check_classes(experiment: Experiment, task: Task, shapes: tuple) -> None:
    """Raises for a source with more classes or groups than the learner knows."""
    learner, source = experiment.learner, experiment.source
    if isinstance(learner, LocalSgd | Adapting):
        learner = learner.learner
    if not (isinstance(learner, ShiftLearner) and isinstance(source, GroupSource)):
        return
    num_groups = len(source.sizes("train"))
    weighs = isinstance(learner, Erm) and learner.weighting is not None
    known = learner.num_groups if isinstance(learner, Dann | Erm) else num_groups
    if known != num_groups and (weighs or isinstance(learner, Dann)):
        raise ValueError(
            f"learner.num_groups must be {num_groups}, the groups of the source's "
            f"training data, got {known}."
        )
    answer = lambda params, model_state, query: learner.answer(
        params, model_state, query.inputs[0], query.mask[0]
    )
    logits = jax.eval_shape(answer, *shapes, task.query)
    if logits.shape[-1] < source.num_classes:
        raise ValueError(
            f"learner.network must have at least {source.num_classes} outputs, one a "
            f"class of the source, got {logits.shape[-1]}."
        )


def _warn_of_small_sets(experiment: Experiment) -> None:
    """Says which last sets are too small to adapt to; on a device nobody could."""
    source = experiment.source
    if not isinstance(source, GroupSource):
        return
    last = source.sizes("test") % source.points_per_set
    for method in _looking_at_sets(experiment.learner):
        least = method.min_support
        if small := int(np.sum((last > 0) & (last < least))):
            warnings.warn(
                f"{small} of {len(last)} test groups end in a set of fewer than "
                f"{least} points (min_support of {type(method).__name__}): statistics "
                "of the training data are used for it.",
                stacklevel=3,
            )


def _looking_at_sets(learner: Learner) -> list[Any]:
    """What of a learner has a `min_support` that counts in its answers."""
    found: list[Any] = [learner]
    if isinstance(learner, Adapting):
        adapter = learner.adapter
        while isinstance(adapter, ResetEvery):
            adapter = adapter.adapter
        found = [adapter, getattr(adapter, "statistics", None)]
        # Of the others only the pass is used, with statistics that the adapter chooses.
        found += [learner.learner] * isinstance(learner.learner, ArmCml)
    return [method for method in found if hasattr(method, "min_support")]


def _check_heads(experiment: Experiment, task: Task, params: PyTree) -> None:
    """A class without an output, or a task without a head, is a loss of nan."""
    learner, source = experiment.learner, experiment.source
    if not (isinstance(learner, HardSharing) and isinstance(source, DigitTasks)):
        return
    if learner.num_heads not in (1, source.num_tasks):
        raise ValueError(
            f"learner.num_heads must be 1 or {source.num_tasks}, one a task of the "
            f"source, got {learner.num_heads}."
        )
    outputs = jax.eval_shape(
        learner.predict, params, task.query.inputs, jnp.zeros((), jnp.int32)
    )
    if outputs.shape[-1] < NUM_CLASSES:
        raise ValueError(
            f"learner.head must have at least {NUM_CLASSES} outputs, one a class, got "
            f"{outputs.shape[-1]}."
        )


def _check_step_metrics(experiment: Experiment, params: PyTree) -> None:
    """Traces the metrics of a step on its shapes."""
    measure, num_tasks = experiment.step_metrics, experiment.tasks_per_step
    if measure is None:
        return

    def one_step(params):
        grads = jax.tree.map(
            lambda x: jnp.zeros((num_tasks, *x.shape), x.dtype), params
        )
        losses, ids = jnp.zeros(num_tasks), jnp.arange(num_tasks)
        return named(measure(OuterStep(grads, params, losses, losses, ids)))

    try:
        jax.eval_shape(one_step, params)
    except Exception as error:
        raise ValueError(
            f"step_metrics {getattr(measure, '__name__', measure)} does not measure a "
            f"step, as jaxmeta.surgery:step_diagnostics does: {type(error).__name__} "
            f"{error}"
        ) from error


def _check_ways(experiment: Experiment, task: Task) -> None:
    """A label without an output is no error in JAX: the loss is nan."""
    learner, source = experiment.learner, experiment.source
    if not isinstance(source, EpisodeSource):
        return
    if isinstance(learner, ProtoNet) and learner.ways != source.ways:
        raise ValueError(
            f"learner.ways must be source.ways, got {learner.ways} and {source.ways}."
        )
    if not isinstance(learner, Maml):
        return
    apply = functools.partial(learner.network.init_with_output, jax.random.key(0))
    outputs, _ = jax.eval_shape(apply, task.support.inputs)
    if outputs.shape[-1] < source.ways:
        raise ValueError(
            f"source.ways must be <= {outputs.shape[-1]}, the outputs of "
            f"learner.network, got {source.ways}; change both."
        )
