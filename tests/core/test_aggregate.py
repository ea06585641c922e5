"""Aggregators: hand-worked reductions, and both paths of the train step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import (
    Parallel,
    WeightsOnly,
    init_state,
    make_train_step,
    mean_over_tasks,
    sum_over_tasks,
)
from jaxmeta.core.testing import assert_trees_close, smoke_learner, smoke_source

GROUPS = 5
RATE = 0.5


class GroupWeights(NamedTuple):
    by_group: jax.Array


def group_weighting() -> WeightsOnly:
    """Exponentiated-gradient weights of groups, as group DRO has: state, losses, ids.

    Several tasks of a batch may be of one group; they share its weight.
    """

    def init(params):
        del params
        return GroupWeights(jnp.full(GROUPS, 1 / GROUPS))

    def weights(state, task_losses, task_ids):
        count = jnp.zeros(GROUPS).at[task_ids].add(1.0)
        total = jnp.zeros(GROUPS).at[task_ids].add(task_losses)
        mean = total / jnp.where(count == 0, 1.0, count)
        new = state.by_group * jnp.exp(RATE * mean)
        new = new / new.sum()
        return (new / jnp.where(count == 0, 1.0, count))[task_ids], GroupWeights(new)

    return WeightsOnly(init, weights)


def explicit(aggregator) -> optax.GradientTransformationExtraArgs:
    """The same aggregator without the declaration, so that the step sees gradients."""
    return optax.GradientTransformationExtraArgs(aggregator.init, aggregator.update)


@pytest.fixture(scope="session")
def train(smoke_tasks):
    """`train(tx, aggregator, parallel)`: the state after three steps."""
    learner, key = smoke_learner(), jax.random.key(0)
    example, groups = smoke_source().example, jnp.array([0, 1, 2, 3, 0, 1, 0, 2])

    def run(tx, aggregator, parallel):
        state = init_state(learner, tx, aggregator, key=key, example=example)
        state = parallel.replicate(state)
        step = jax.jit(make_train_step(learner, tx, aggregator, parallel=parallel))
        for i in range(3):
            tasks = smoke_tasks(i, 8)._replace(task_id=groups)
            state, _ = step(state, parallel.split_rows(tasks), key)
        return state

    return run


TASK_GRADS = {
    "w": jnp.array([[1.0, 0.0], [3.0, 2.0], [2.0, 7.0]]),
    "b": jnp.arange(3.0),
}


def test_mean_by_hand():
    tx = mean_over_tasks()
    updates, _ = tx.update(TASK_GRADS, tx.init(None))
    np.testing.assert_allclose(updates["w"], [2.0, 3.0], rtol=1e-6)
    np.testing.assert_allclose(updates["b"], 1.0, rtol=1e-6)


def test_sum_by_hand():
    tx = sum_over_tasks()
    updates, _ = tx.update(TASK_GRADS, tx.init(None))
    assert updates["w"].tolist() == [6.0, 9.0]
    assert float(updates["b"]) == 3.0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_gradients_keep_their_dtype(dtype):
    tx = mean_over_tasks()
    updates, _ = tx.update(jnp.ones((4, 2), dtype), tx.init(None))
    assert updates.dtype == dtype


def test_first_link_of_a_chain_takes_the_task_axis_away():
    tx = optax.chain(mean_over_tasks(), optax.sgd(0.1, momentum=0.9))
    params = jax.tree.map(lambda g: g[0], TASK_GRADS)
    updates, _ = tx.update(TASK_GRADS, tx.init(params), params)
    # The first step of momentum is plain descent.
    np.testing.assert_allclose(updates["w"], [-0.2, -0.3], rtol=1e-6)


def test_extra_arguments_are_accepted_and_those_unknown_are_ignored():
    tx = optax.chain(mean_over_tasks(), optax.scale(-1.0))
    updates, _ = tx.update(
        TASK_GRADS,
        tx.init(None),
        None,
        task_losses=jnp.ones(3),
        task_ids=jnp.arange(3),
        task_losses_after=jnp.ones(3),
    )
    assert updates["w"].shape == (2,)


def test_weights_see_losses_and_ids():
    seen = {}

    def weights(state, task_losses, task_ids):
        seen.update(losses=task_losses.tolist(), ids=task_ids.tolist())
        return jnp.array([0.0, 1.0, 0.0]), state

    tx = WeightsOnly(lambda params: (), weights)
    updates, _ = tx.update(
        TASK_GRADS, (), task_losses=jnp.array([1.0, 2.0, 3.0]), task_ids=jnp.arange(3)
    )
    assert seen == {"losses": [1.0, 2.0, 3.0], "ids": [0, 1, 2]}
    assert updates["w"].tolist() == [3.0, 2.0]


def test_group_weights_by_numpy():
    """The weighting that the tests below compare paths with is itself right."""
    losses = np.array([1.0, 3.0, 2.0], np.float32)
    ids = jnp.array([4, 4, 0])
    tx = group_weighting()
    w, state = tx.weights(tx.init(None), jnp.asarray(losses), ids)
    by_group = np.exp(RATE * np.array([2.0, 0, 0, 0, 2.0])) / GROUPS
    by_group /= by_group.sum()
    np.testing.assert_allclose(state.by_group, by_group, rtol=1e-6)
    expected = [by_group[4] / 2, by_group[4] / 2, by_group[0]]
    np.testing.assert_allclose(w, expected, rtol=1e-6)


@pytest.fixture(scope="session")
def one_backward(train):
    """Parameters, weights and optimiser state of the single-backward path."""
    state = train(optax.adam(0.1), group_weighting(), Parallel())
    weighting, adam = state.opt_state
    return state.params, weighting, adam


# The two paths sum the same products in another order; Adam divides by what it sums.
PATHS_AGREE = {"rtol": 1e-5, "atol": 1e-6}


def test_one_backward_pass_equals_explicit_gradients_as_aggregator(train, one_backward):
    state = train(optax.adam(0.1), explicit(group_weighting()), Parallel())
    weighting, adam = state.opt_state[0], state.opt_state[1]
    assert_trees_close((state.params, weighting, adam), one_backward, **PATHS_AGREE)


def test_one_backward_pass_equals_explicit_gradients_as_first_link(train, one_backward):
    tx = optax.chain(group_weighting(), optax.adam(0.1))
    state = train(tx, None, Parallel())
    _, (weighting, adam) = state.opt_state
    assert_trees_close((state.params, weighting, adam), one_backward, **PATHS_AGREE)


@pytest.mark.parametrize(
    "parallel",
    [
        Parallel(backend="loop"),
        Parallel(backend="vmap"),
        Parallel(backend="vmap", task_batch_size=3),
        Parallel(backend="pmap"),
        Parallel(num_devices=2),
        Parallel(task_batch_size=1),
    ],
    ids=str,
)
def test_one_backward_pass_does_not_depend_on_the_devices(
    parallel, train, one_backward
):
    state = train(optax.adam(0.1), group_weighting(), parallel)
    assert_trees_close((state.params, *state.opt_state), one_backward, **PATHS_AGREE)


def test_the_weighting_remembers_groups_and_not_positions(one_backward):
    _, weighting, _ = one_backward
    by_group = np.asarray(weighting.by_group)
    np.testing.assert_allclose(by_group.sum(), 1.0, rtol=1e-6)
    # Group 4 never occurs: its share only shrinks.
    assert by_group[4] < 1 / GROUPS
    assert by_group.argmin() == 4
