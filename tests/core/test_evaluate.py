"""What is measured depends on the key, and on no size."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import Mean, Parallel, evaluate
from jaxmeta.core.evaluate import make_evaluator
from jaxmeta.core.testing import (
    SmokeHostSource,
    SmokeLearner,
    smoke_learner,
    smoke_source,
)

KEY = jax.random.key(3)
ONE = Parallel(backend="vmap")
PARAMS = {"w": jnp.array([0.5, 1.0, -1.0]), "b": jnp.array(0.25)}

# Means of four squares in float32, summed in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def _values(source, num_tasks, *, learner=None, parallel=ONE, **settings):
    learner = learner or smoke_learner()
    evaluator = make_evaluator(learner, source, parallel=parallel, **settings)
    return evaluator(PARAMS, (), KEY, num_tasks)


def _by_numpy(source, num_tasks, split):
    """The loss of every task, one at a time, in NumPy."""
    tasks = source.sample(KEY, jnp.arange(num_tasks), split=split)
    w, b, rows = np.asarray(PARAMS["w"]), float(PARAMS["b"]), []
    for i in range(num_tasks):
        support, query = (
            jax.tree.map(lambda x, i=i: np.asarray(x[i], np.float64), part)
            for part in (tasks.support, tasks.query)
        )
        moved = b - 0.1 * (support.inputs @ w + b - support.targets).mean()
        rows.append(((query.inputs @ w + moved - query.targets) ** 2).mean())
    return rows


@pytest.mark.parametrize("split", ["test", "validation"])
@pytest.mark.parametrize("source", [smoke_source(), SmokeHostSource()], ids=repr)
def test_values_are_those_of_numpy_in_order(source, split):
    values = _values(source, 7, tasks_per_batch=4, split=split)
    np.testing.assert_allclose(values["loss"], _by_numpy(source, 7, split), **CLOSE)


@pytest.mark.parametrize("source", [smoke_source(), SmokeHostSource()], ids=repr)
def test_values_do_not_depend_on_the_batch_size(source):
    reference = _values(source, 10, tasks_per_batch=4)["loss"]
    assert reference.shape == (10,)
    for size in (1, 3, 16):
        found = _values(source, 10, tasks_per_batch=size)["loss"]
        np.testing.assert_allclose(found, reference, **CLOSE)


@pytest.mark.parametrize(
    "parallel",
    [
        Parallel(),
        Parallel(num_devices=2),
        Parallel(backend="pmap"),
        Parallel(task_batch_size=1),
        Parallel(backend="loop"),
    ],
    ids=str,
)
@pytest.mark.parametrize("source", [smoke_source(), SmokeHostSource()], ids=repr)
def test_values_do_not_depend_on_the_devices(source, parallel):
    reference = _values(source, 10, tasks_per_batch=4)["loss"]
    found = _values(source, 10, tasks_per_batch=4, parallel=parallel)["loss"]
    np.testing.assert_allclose(found, reference, **CLOSE)


def test_the_first_tasks_of_many_are_those_of_few():
    few, many = (_values(smoke_source(), n, tasks_per_batch=4)["loss"] for n in (3, 9))
    np.testing.assert_allclose(many[:3], few, **CLOSE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeyTeller(SmokeLearner):
    """Reports a number drawn from its key, and its task's weighted accuracy."""

    def evaluate(self, params, model_state, task, key):
        draw = jax.random.normal(key)
        return {"draw": Mean.of(draw), "half": Mean(jnp.ones(()), 2 * jnp.ones(()))}


@pytest.mark.parametrize("source", [smoke_source(), SmokeHostSource()], ids=repr)
def test_a_learner_gets_keys_of_its_own(source):
    values = _values(source, 6, learner=KeyTeller(), tasks_per_batch=4)["draw"]
    again = _values(source, 6, learner=KeyTeller(), tasks_per_batch=2)["draw"]
    np.testing.assert_array_equal(values, again)
    assert len(set(values.tolist())) == 6
    # Keys that a source makes of its own by `split` or `fold_in`, one or two deep.
    slots = [jax.random.fold_in(KEY, i) for i in range(4)]
    used = slots + [jax.random.fold_in(k, j) for k in slots for j in range(8)]
    used += [k for slot in slots for k in jax.random.split(slot, 8)]
    assert not {float(jax.random.normal(k)) for k in used} & set(values.tolist())


def test_sums_are_divided_within_a_task():
    values = _values(smoke_source(), 3, learner=KeyTeller(), tasks_per_batch=4)
    assert values["half"].tolist() == [0.5, 0.5, 0.5]


def test_evaluate_gives_mean_interval_and_extremes():
    result = evaluate(smoke_learner(), PARAMS, (), smoke_source(), key=KEY, num_tasks=6)
    rows = np.array(_by_numpy(smoke_source(), 6, "test"))
    loss = result["loss"]
    np.testing.assert_allclose(loss.mean, rows.mean(), **CLOSE)
    # 2.571 is the 97.5 % quantile of Student's t with 5 degrees of freedom.
    half = 2.5706 * rows.std(ddof=1) / np.sqrt(6)
    np.testing.assert_allclose(loss.high - loss.mean, half, rtol=1e-4)
    extremes = [loss.smallest, loss.largest]
    np.testing.assert_allclose(extremes, [rows.min(), rows.max()], **CLOSE)
    assert loss.count == 6


def test_the_same_key_measures_the_same_to_the_bit():
    first, again = (_values(smoke_source(), 8, tasks_per_batch=4) for _ in range(2))
    np.testing.assert_array_equal(first["loss"], again["loss"])


@pytest.mark.parametrize("num_tasks", [0, -3])
def test_no_task_is_refused(num_tasks):
    with pytest.raises(ValueError, match=f"num_tasks must be >= 1, got {num_tasks}"):
        evaluate(
            smoke_learner(), PARAMS, (), smoke_source(), key=KEY, num_tasks=num_tasks
        )


def test_batches_that_do_not_divide_over_devices_are_refused():
    with pytest.raises(ValueError, match=r"tasks_per_batch must be .* 4 devices"):
        make_evaluator(smoke_learner(), smoke_source(), tasks_per_batch=6)
