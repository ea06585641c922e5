"""Losses by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.objectives import cross_entropy, squared_error


def test_squared_error_is_a_mean_over_examples_and_outputs():
    outputs, targets = jnp.zeros((2, 2)), jnp.array([[1.0, 3.0], [0.0, 2.0]])
    loss, metrics = squared_error(outputs, targets)
    assert float(loss) == (1 + 9 + 0 + 4) / 4
    assert float(metrics["loss"].count) == 4.0
    assert float(metrics["loss"].compute()) == float(loss)


def test_squared_error_does_not_broadcast(untyped):
    with pytest.raises(ValueError, match=re.escape("got (4, 1) and (4,)")):
        squared_error(jnp.zeros((4, 1)), jnp.zeros(4))


def test_cross_entropy_by_hand():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]))
    loss, metrics = cross_entropy(logits, jnp.array([0, 1]))
    # Two logarithms of float32.
    np.testing.assert_allclose(loss, -(np.log(0.5) + np.log(0.2)) / 2, rtol=1e-6)
    assert float(metrics["accuracy"].compute()) == 0.5
    assert float(metrics["accuracy"].count) == 2.0


def test_cross_entropy_does_not_overflow():
    loss, _ = cross_entropy(jnp.array([[1e4, -1e4]]), jnp.array([1]))
    assert float(loss) == 2e4


def test_gradient_of_cross_entropy_is_softmax_minus_target():
    logits, targets = jnp.array([[1.0, 2.0, -1.0]]), jnp.array([2])
    grad = jax.grad(lambda x: cross_entropy(x, targets)[0])(logits)
    softmax = np.exp([1.0, 2.0, -1.0]) / np.exp([1.0, 2.0, -1.0]).sum()
    np.testing.assert_allclose(grad[0], softmax - [0, 0, 1], rtol=1e-5, atol=1e-7)
