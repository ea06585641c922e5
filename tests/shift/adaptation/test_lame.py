"""LAME against the iteration of the paper, written out in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.networks.norm import STORED
from jaxmeta.shift.adaptation import BatchStatistics, Lame
from jaxmeta.shift.adaptation.lame import nearest, settle

CLOSE = {"rtol": 1e-3, "atol": 1e-4}


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def literal(logits, features, k, iterations=100):
    """Point by point, in double precision; neighbours by Euclidean distance."""
    logits, features = (np.asarray(x, np.float64) for x in (logits, features))
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    near = np.zeros((len(units), len(units)))
    for i, unit in enumerate(units):
        distances = np.linalg.norm(units - unit, axis=1)
        distances[i] = np.inf
        near[i, np.argsort(distances)[: min(k, len(units) - 1)]] = 1.0
    p = softmax(logits)
    z = p
    for _ in range(iterations):
        z = softmax(np.log(p) + near @ z)
    return z, near


def outputs(world, x, statistics=STORED):
    return world.learner.forward(world.params, world.model_state, x, None, statistics)[
        0
    ]


@pytest.mark.parametrize("k", [1, 3, 50])
def test_it_is_the_iteration_of_the_paper(world, k):
    _, logits = world.walk(Lame(neighbours=k))
    for x, answer in zip(world.batches, logits, strict=True):
        plain = outputs(world, x)
        z, _ = literal(plain.logits, plain.features, k)
        np.testing.assert_allclose(softmax(np.asarray(answer)), z, **CLOSE)


def test_neighbours_are_the_nearest(world):
    features = jnp.asarray(np.random.default_rng(1).normal(size=(9, 4)), jnp.float32)
    _, expected = literal(np.zeros((9, 2)), features, 3)
    found = nearest(features, jnp.ones(9, bool), 3)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found.sum(1), 3)


def test_padding_has_no_neighbours_and_is_none():
    features, mask = jnp.ones((5, 2)), jnp.array([True, True, False, True, False])
    found = nearest(features, mask, 4)
    expected = np.outer(mask, mask) - np.diag(np.asarray(mask, float))
    np.testing.assert_array_equal(found, expected)


def test_a_point_alone_keeps_its_answer(world):
    adapter, x = Lame(), world.batches[0, :1]
    _, logits = world.adapt(adapter, world.start(adapter), x, jnp.ones(1, bool))
    np.testing.assert_allclose(
        softmax(np.asarray(logits)),
        softmax(np.asarray(outputs(world, x).logits)),
        **CLOSE,
    )


def test_without_weight_nothing_changes(world):
    _, logits = world.walk(Lame(weight=0.0), 1)
    plain = outputs(world, world.batches[0]).logits
    np.testing.assert_allclose(
        softmax(np.asarray(logits[0])), softmax(np.asarray(plain)), **CLOSE
    )


def test_the_statistics_are_a_choice(world):
    _, own = world.walk(BatchStatistics(), 1)
    _, logits = world.walk(Lame(weight=0.0, statistics=BatchStatistics()), 1)
    np.testing.assert_allclose(
        softmax(np.asarray(logits[0])), softmax(np.asarray(own[0])), **CLOSE
    )


def test_one_iteration_by_hand():
    """Two points, p = (3/4, 1/4) and (1/2, 1/2), each the neighbour of the other."""
    logits = jnp.array([[np.log(3.0), 0.0], [0.0, 0.0]])
    found = settle(logits, 1.0 - jnp.eye(2), 1)
    first = 3 * np.exp(0.5) / (3 * np.exp(0.5) + np.exp(0.5))
    second = np.exp(0.75) / (np.exp(0.75) + np.exp(0.25))
    np.testing.assert_allclose(jnp.exp(found)[:, 0], [first, second], rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"neighbours": 0}, "neighbours must be >= 1"),
        ({"max_iterations": 0}, "max_iterations must be >= 1"),
        ({"weight": -1.0}, "weight must be >= 0"),
    ],
)
def test_numbers_outside_their_range(fields, message):
    with pytest.raises(ValueError, match=message):
        Lame(**fields)
