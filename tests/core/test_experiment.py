"""Every mistake in an experiment is named at construction."""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Experiment, Optimizer, Parallel, WeightsOnly, sum_over_tasks
from jaxmeta.core.experiment import Checkpointing, Evaluation
from jaxmeta.core.testing import smoke_learner, smoke_source
from jaxmeta.surgery import FAMO, aggregate_tasks


def _experiment(**changes):
    return Experiment(learner=smoke_learner(), source=smoke_source(), **changes)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["learning_rate", "clip_norm"])
def test_rates_and_norms_must_be_positive_and_finite(name, value):
    with pytest.raises(ValueError, match=f"{name} must be positive and finite, got"):
        Optimizer(**{name: value})


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (Evaluation, {"every": -1}, "every must be >= 0, got -1"),
        (Evaluation, {"num_validation_tasks": 0}, "num_validation_tasks must be >= 1"),
        (Evaluation, {"num_test_tasks": 0}, "num_test_tasks must be >= 1, got 0"),
        (Evaluation, {"tasks_per_batch": 0}, "tasks_per_batch must be >= 1, got 0"),
        (Evaluation, {"checkpoint": "best"}, "'best' needs validations"),
        (Optimizer, {"accumulate": 0}, "accumulate must be >= 1, got 0"),
        (
            _experiment,
            {"steps": 10, "optimizer": Optimizer(accumulate=3)},
            r"multiple of optimizer.accumulate \(3\), got 10",
        ),
        (Checkpointing, {"every": -2}, "every must be >= 0, got -2"),
        (Checkpointing, {"keep": 1}, "keep must be >= 2, got 1"),
        (_experiment, {"tasks_per_step": 0}, "tasks_per_step must be >= 1, got 0"),
        (_experiment, {"steps": 0}, "steps must be >= 1, got 0"),
        (_experiment, {"log_every": 0}, "log_every must be >= 1, got 0"),
        (_experiment, {"seed": -1}, "seed must be >= 0, got -1"),
        (_experiment, {"max_skips": -1}, "max_skips must be >= 0, got -1"),
        (
            _experiment,
            {"evaluation": Evaluation(every=150)},
            r"evaluation.every must be a multiple of log_every \(100\), got 150",
        ),
        (
            _experiment,
            {"checkpoint": Checkpointing(every=50)},
            r"checkpoint.every must be a multiple of log_every \(100\), got 50",
        ),
    ],
)
def test_a_mistake_is_named_with_its_value(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        kind(**changes)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "least"}, "mode must be one of .* got 'least'"),
        ({"checkpoint": "first"}, "checkpoint must be one of .* got 'first'"),
    ],
)
def test_a_choice_that_is_none_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Evaluation(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks_per_step": 6}, "tasks_per_step must be a multiple of the 4 devices"),
        (
            {"evaluation": Evaluation(tasks_per_batch=2)},
            "evaluation.tasks_per_batch must be a multiple of the 4 devices",
        ),
        ({"parallel": Parallel(num_devices=99)}, "between 1 and 4 .* got 99"),
        ({"parallel": Parallel(params_shards=3)}, "divide the 4 devices, got 3 x 1"),
        ({"precision": "BF16_BF16_F32"}, "is for accelerators; on a CPU set default"),
    ],
)
def test_what_does_not_fit_the_devices_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        _experiment(**changes).check_devices()


def test_what_fits_the_devices_passes():
    _experiment(tasks_per_step=8).check_devices()
    _experiment(tasks_per_step=3, parallel=Parallel(num_devices=1)).check_devices()


def test_an_optimizer_aggregates_then_clips_then_steps():
    aggregator, tx = Optimizer(
        aggregator=sum_over_tasks,
        transform=optax.sgd,
        learning_rate=0.5,
        clip_norm=1.0,
    ).make()
    assert isinstance(aggregator, WeightsOnly)
    params = jnp.zeros(2)
    summed, _ = aggregator.update(jnp.array([[3.0, 0.0], [0.0, 4.0]]), (), params)
    updates, _ = tx.update(summed, tx.init(params), params)
    # The sum (3, 4) has norm 5; clipped to 1, then half a step down.
    np.testing.assert_allclose(updates, [-0.3, -0.4], rtol=1e-6)


@pytest.mark.parametrize("transform", [optax.sgd, optax.adam])
def test_gradients_of_several_steps_make_one_update(transform):
    rate = {"transform": transform, "learning_rate": 0.5, "clip_norm": 2.0}
    _, often = Optimizer(**rate, accumulate=3).make()
    _, once = Optimizer(**rate).make()
    params = jnp.array([1.0, -1.0])
    grads = jnp.array([[3.0, 0.0], [0.0, 4.0], [3.0, 2.0], [1.0, 1.0], [2.0, 0.0]])
    state, moved = often.init(params), [params]
    for grad in grads:
        updates, state = often.update(grad, state, moved[-1])
        moved.append(optax.apply_updates(moved[-1], updates))
    expected, _ = once.update(grads[:3].mean(0), once.init(params), params)
    np.testing.assert_array_equal(moved[1:3], [params, params])
    np.testing.assert_allclose(moved[3], params + expected, rtol=1e-6)
    np.testing.assert_array_equal(moved[5], moved[3])


def test_rules_that_look_at_every_step_need_one_that_moves():
    famo = lambda: aggregate_tasks(FAMO(num_tasks=4))
    Optimizer(aggregator=famo).make()
    with pytest.raises(ValueError, match=r"with accumulate 2 most change nothing"):
        Optimizer(aggregator=famo, accumulate=2).make()


def test_an_experiment_is_equal_to_its_twin():
    assert _experiment(seed=1) == _experiment(seed=1)
    assert hash(_experiment(seed=1)) == hash(_experiment(seed=1))
    assert _experiment(seed=1) != _experiment(seed=2)
