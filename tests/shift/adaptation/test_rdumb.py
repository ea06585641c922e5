"""A method that is set back."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.shift.adaptation import ResetEvery, Tent

TENT = Tent(learning_rate=0.05)


def test_it_returns_to_the_first_state(world):
    adapter = ResetEvery(adapter=TENT, every=3)
    start = world.start(adapter)
    before, _ = world.walk(adapter, 2)
    assert int(before.count) == 2
    assert np.any(
        before.now.moved["BatchNorm_0"]["scale"]
        != start.now.moved["BatchNorm_0"]["scale"]
    )
    after, _ = world.walk(adapter, 3)
    chex.assert_trees_all_equal(after, start)


def test_until_then_it_is_the_method(world):
    _, expected = world.walk(TENT)
    _, logits = world.walk(ResetEvery(adapter=TENT, every=4))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    _, logits = world.walk(ResetEvery(adapter=TENT, every=2))
    np.testing.assert_allclose(logits[:2], expected[:2], rtol=1e-5, atol=1e-6)
    assert np.abs(logits[2] - expected[2]).max() > 0.01


def test_a_stream_of_one_batch_repeats(world):
    adapter = ResetEvery(adapter=TENT, every=2)
    state, answers = world.start(adapter), []
    for _ in range(4):
        state, logits = world.adapt(adapter, state, world.batches[0], world.masks[0])
        answers.append(logits)
    np.testing.assert_array_equal(jnp.stack(answers[:2]), jnp.stack(answers[2:]))
    assert np.abs(answers[0] - answers[1]).max() > 0.01


def test_every_must_be_positive():
    with pytest.raises(ValueError, match="every must be >= 1, got 0"):
        ResetEvery(adapter=TENT, every=0)
