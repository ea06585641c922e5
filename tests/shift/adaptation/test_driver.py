"""Streams, and adapters as learners of the harness."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import Parallel
from jaxmeta.core.config import from_json, to_json
from jaxmeta.core.evaluate import make_evaluator
from jaxmeta.core.experiment import Experiment
from jaxmeta.core.testing import compilations
from jaxmeta.data.groups import ArrayGroups
from jaxmeta.networks.convnet import ConvNet
from jaxmeta.shift.adaptation import (
    Adapting,
    BatchStatistics,
    Memo,
    ResetEvery,
    Tent,
    adapt_stream,
    driver,
)
from jaxmeta.shift.erm import Erm
from jaxmeta.shift.learner import measured

KEY = jax.random.key(0)
TENT = Tent(learning_rate=0.05)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def noisy(key, point):
    return point + 0.3 * jax.random.normal(key, point.shape)


MEMO = Memo(augment=noisy, num_augmentations=2, learning_rate=0.1)


@pytest.fixture(params=[True, False], ids=["one loop", "step by step"])
def way(request, monkeypatch):
    monkeypatch.setattr(driver, "loops_well", lambda *args: request.param)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("adapter", [TENT, MEMO], ids=["tent", "memo"])
def test_a_stream_is_batch_after_batch(world, adapter):
    _, expected = world.walk(adapter)
    logits = adapt_stream(adapter, *world.model, world.batches, world.masks, KEY)
    np.testing.assert_allclose(logits, expected, **CLOSE)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("rows", [np.s_[:0], np.s_[:, :0]])
def test_a_stream_of_nothing_is_refused(world, rows):
    x, masks = world.batches[rows], world.masks[rows]
    with pytest.raises(ValueError, match=r"at least one batch of one point, .*got \("):
        adapt_stream(TENT, *world.model, x, masks, KEY)


@pytest.mark.usefixtures("way")
def test_episodes_do_not_know_of_each_other(world):
    adapter = Tent(learning_rate=0.05, order="update_then_predict")
    run = lambda x, episodic: adapt_stream(
        adapter, *world.model, x, world.masks, KEY, episodic=episodic
    )
    forth, back = run(world.batches, True), run(world.batches[::-1], True)
    np.testing.assert_allclose(forth, back[::-1], **CLOSE)
    carried = run(world.batches, False)
    np.testing.assert_allclose(carried[0], forth[0], **CLOSE)
    assert np.abs(carried[1] - forth[1]).max() > 0.01


@pytest.mark.usefixtures("way")
def test_episodes_draw_for_themselves(world):
    same = jnp.stack([world.batches[0]] * 2)
    logits = adapt_stream(MEMO, *world.model, same, world.masks[:2], KEY, episodic=True)
    assert np.abs(logits[0] - logits[1]).max() > 1e-4


def test_a_second_stream_compiles_nothing(world):
    stream = lambda: adapt_stream(
        ResetEvery(adapter=TENT), *world.model, world.batches, world.masks, KEY
    )
    stream()
    with compilations() as compiled:
        stream()
    assert compiled == []


@pytest.fixture(scope="module")
def source():
    """Four groups of 8, 7, 6 and 5 points to test on, in sets of 5."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(6), [8, 8, 8, 7, 6, 5])
    return ArrayGroups(
        inputs=rng.normal(size=(len(groups), 6)).astype(np.float32),
        targets=rng.integers(0, 3, len(groups)),
        group_ids=groups,
        held_out=((1,), (2, 3, 4, 5)),
        points_per_set=5,
    )


def evaluated(learner, world, source):
    evaluate = make_evaluator(learner, source, parallel=Parallel(), tasks_per_batch=4)
    return evaluate(world.params, world.model_state, KEY, source.num_slots("test"))


def test_batch_statistics_evaluate_as_arm_bn(world, source):
    adapting = Adapting(learner=world.learner, adapter=BatchStatistics())
    found = evaluated(adapting, world, source)
    expected = evaluated(world.learner, world, source)
    assert found["accuracy"].shape == (4,)
    chex.assert_trees_all_close(found, expected, rtol=1e-4)


def test_a_method_that_learns_evaluates(world, source):
    adapter = Tent(learning_rate=0.1, order="update_then_predict")
    found = evaluated(Adapting(learner=world.learner, adapter=adapter), world, source)
    expected = evaluated(world.learner, world, source)
    assert np.isfinite(found["loss"]).all()
    assert np.abs(found["loss"] - expected["loss"]).min() > 1e-3


def test_sets_of_a_task_are_a_stream(world, source):
    task = source.sample(KEY, jnp.arange(2), split="train")
    task = jax.tree.map(lambda leaf: leaf[0], task)
    merged = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), task.query)
    adapting = Adapting(learner=world.learner, adapter=TENT)
    metrics = adapting.evaluate(
        world.params, world.model_state, task._replace(query=merged), KEY
    )
    logits = adapt_stream(TENT, *world.model, merged.inputs, merged.mask, KEY)
    expected = measured(logits, merged.targets, merged.mask)
    chex.assert_trees_all_close(metrics, expected, rtol=1e-5)
    assert np.abs(logits[0] - logits[1]).max() > 0.01


def test_it_is_trained_as_the_learner_is(world, source):
    learner = Erm(network=world.learner.network)
    adapting = Adapting(learner=learner, adapter=TENT)
    init, loss = (jax.jit(fn) for fn in (adapting.init, adapting.loss))
    found = init(KEY, source.example)
    chex.assert_trees_all_equal(found, jax.jit(learner.init)(KEY, source.example))
    task = jax.tree.map(
        lambda leaf: leaf[0], source.sample(KEY, jnp.arange(1), split="train")
    )
    expected = jax.jit(learner.loss)(*found, task, KEY)
    chex.assert_trees_all_equal(loss(*found, task, KEY), expected)


def test_support_is_one_batch(world):
    adapting = Adapting(learner=world.learner, adapter=TENT)
    state = adapting.adapt(world.params, world.model_state, world.batches[0], KEY)
    expected, _ = world.walk(TENT, 1)
    chex.assert_trees_all_close(state, expected, **CLOSE)


def test_it_is_an_experiment(source):
    learner = Erm(network=ConvNet(num_classes=3, width=2))
    adapting = Adapting(learner=learner, adapter=ResetEvery(adapter=TENT))
    assert from_json(to_json(adapting)) == adapting
    assert Experiment(learner=adapting, source=source).learner is adapting
