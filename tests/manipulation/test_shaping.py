"""Soft bounds by the formulas in plain NumPy, and gradients where they are hardest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.manipulation.shaping import both, length, tolerance

SIGMOIDS = {
    "gaussian": lambda d: 0.1 ** (d * d),
    "long_tail": lambda d: 1 / (1 + 9 * d * d),
    "linear": lambda d: np.maximum(0.0, 1 - 0.9 * d),
}


@pytest.mark.parametrize("sigmoid", SIGMOIDS)
def test_tolerance_is_the_formula(sigmoid):
    rng = np.random.default_rng(0)
    low, high = np.sort(rng.normal(size=(2, 200)).astype(np.float32), axis=0)
    x, margin = 3 * rng.normal(size=200).astype(np.float32), rng.uniform(0.1, 2.0, 200)
    margin[::5] = 0.0
    x[::7] = low[::7]
    value = lambda x, low, high, margin: tolerance(x, (low, high), margin, sigmoid)
    found = jax.vmap(value)(*map(jnp.asarray, (x, low, high, margin)))
    off = np.maximum(np.maximum(low - x, x - high), 0.0)
    formula, some = SIGMOIDS[sigmoid], margin > 0
    expected = np.where(some, formula(off / np.where(some, margin, 1.0)), off == 0)
    # The power of a large d, in single precision, is the least precise.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sigmoid", SIGMOIDS)
@pytest.mark.parametrize("x", [-0.5, 0.0, 0.01, 0.02, 0.5])
def test_gradients_without_a_margin_are_numbers(sigmoid, x):
    value = lambda x, margin: tolerance(x, (0.0, 0.02), margin, sigmoid)
    assert np.isfinite(jax.grad(value, (0, 1))(x, 0.0)).all()


def test_gradients_at_nothing_are_numbers():
    np.testing.assert_array_equal(jax.grad(length)(jnp.zeros(3)), np.zeros(3))
    assert np.isfinite(jax.grad(both, (0, 1))(0.0, 0.0)).all()
    assert both(0.0, 0.0) == 0.0
