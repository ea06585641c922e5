"""Batch statistics against NumPy, and against the learners that use them."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.shift.adaptation import BatchStatistics, RunningStatistics
from jaxmeta.shift.arm_bn import ArmBn
from jaxmeta.shift.erm import Erm

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def moments(world, by_hand, batch):
    """Mean and variance of the hidden layer: stored, and of a batch."""
    stored = world.model_state["BatchNorm_0"]
    h = by_hand.hidden(world.batches[batch])
    return (
        (np.asarray(stored["mean"]), np.asarray(stored["var"])),
        (h.mean(0), h.var(0)),
    )


@pytest.mark.parametrize("count", [8, 2, 1])
def test_without_a_prior_it_is_arm_bn(world, count):
    mask = jnp.arange(8) < count
    adapter = BatchStatistics()
    _, logits = world.adapt(adapter, world.start(adapter), world.batches[0], mask)
    answer = world.learner.answer(
        world.params, world.model_state, world.batches[0], mask
    )
    np.testing.assert_allclose(logits[:count], answer[:count], **CLOSE)


@pytest.mark.parametrize(("prior", "share"), [(0.0, 1.0), (8.0, 0.5), (24.0, 0.25)])
def test_a_prior_is_worth_as_many_points(world, by_hand, prior, share):
    _, logits = world.walk(BatchStatistics(prior=prior), 1)
    stored, batch = moments(world, by_hand, 0)
    mean, var = (
        (1 - share) * s + share * b for s, b in zip(stored, batch, strict=True)
    )
    np.testing.assert_allclose(logits[0], by_hand(world.batches[0], mean, var), **CLOSE)


def test_with_a_large_prior_it_is_erm(world):
    erm = Erm(network=world.learner.network)
    state = {"stats": world.model_state, "weights": ()}
    params = {"network": world.params}
    answer = erm.answer(params, state, world.batches[0], world.masks[0])
    _, logits = world.walk(BatchStatistics(prior=1e9), 1)
    np.testing.assert_allclose(logits[0], answer, **CLOSE)
    _, own = world.walk(BatchStatistics(), 1)
    assert np.abs(own[0] - answer).max() > 0.1


def test_padding_does_not_count_against_the_prior():
    share = BatchStatistics(prior=6.0).share(jnp.arange(8) < 2)
    assert float(share.use) == 0.25


@pytest.mark.parametrize("order", ["predict_then_update", "update_then_predict"])
def test_running_statistics_follow_the_stream(world, by_hand, order):
    adapter = RunningStatistics(momentum=0.25, order=order)
    state, logits = world.walk(adapter, 2)
    used, expected = moments(world, by_hand, 0)[0], []
    for i in range(2):
        _, batch = moments(world, by_hand, i)
        after = [0.75 * s + 0.25 * b for s, b in zip(used, batch, strict=True)]
        now = used if order == "predict_then_update" else after
        expected.append(by_hand(world.batches[i], *now))
        used = after
    np.testing.assert_allclose(logits, expected, **CLOSE)
    kept = state.model_state["BatchNorm_0"]
    np.testing.assert_allclose(kept["mean"], used[0], **CLOSE)
    np.testing.assert_allclose(kept["var"], used[1], **CLOSE)


def test_a_set_of_one_point_is_warned_of(world):
    adapter = BatchStatistics()
    with pytest.warns(UserWarning, match="a set of 1 point is too small"):
        world.adapt(
            adapter, world.start(adapter), world.batches[0, :1], jnp.ones(1, bool)
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BatchStatistics(prior=-1.0), "prior must be >= 0"),
        (lambda: BatchStatistics(prior=float("nan")), "prior must be >= 0"),
        (lambda: BatchStatistics(min_support=0), "min_support must be >= 1"),
        (lambda: RunningStatistics(momentum=0.0), "momentum must be in"),
        (lambda: RunningStatistics(momentum=1.5), "momentum must be in"),
    ],
)
def test_numbers_outside_their_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_unknown_order(untyped):
    with pytest.raises(ValueError, match="order must be one of"):
        RunningStatistics(order="sideways")


def test_it_is_what_the_learner_is(world):
    assert isinstance(world.learner, ArmBn)
