import functools

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from jaxmeta.surgery import MGDA, CAGrad, DualProj, UPGrad, gram_matrix
from jaxmeta.surgery.projection import project

TASKS, SIZE = 4, 3

# A coarse grid: zeros, ties, repeated and exactly opposed gradients are common.
GRADS = arrays(
    np.float32, (TASKS, SIZE), elements=st.integers(-6, 6).map(lambda n: n / 4)
)
ROW = st.permutations(range(TASKS))
ORDERS = st.tuples(*[ROW] * TASKS).map(np.array)
SCALES = st.integers(-40, 40).map(lambda n: np.float32(2.0**n))
PROPERTY = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@jax.jit
def pcgrad_weights(grads, orders):
    return project(gram_matrix(grads), orders)


@functools.cache
def solver(rule):
    return jax.jit(lambda grads: rule.of_gram(gram_matrix(grads)))


def length_of(weights, grads):
    return 1e-6 + np.linalg.norm(np.asarray(weights)[:, None] * grads, axis=1).max()


@PROPERTY
@given(GRADS, ORDERS)
def test_pcgrad_weights_are_at_least_1(grads, orders):
    assert pcgrad_weights(grads, orders).min() >= 1.0


@PROPERTY
@given(GRADS, ORDERS, SCALES)
def test_pcgrad_is_homogeneous(grads, orders, scale):
    weights = pcgrad_weights(grads, orders)
    assert pcgrad_weights(grads * scale, orders).tolist() == weights.tolist()


@PROPERTY
@given(GRADS, ORDERS, ROW)
def test_pcgrad_does_not_know_names(grads, orders, new):
    weights = np.asarray(pcgrad_weights(grads, orders))
    old_to_new = np.argsort(new)
    relabelled = pcgrad_weights(grads[new], old_to_new[orders[new]])
    np.testing.assert_allclose(relabelled, weights[new], rtol=1e-5)


@PROPERTY
@given(GRADS, ORDERS)
def test_pcgrad_of_a_task_alone_or_without_conflict_is_the_sum(grads, orders):
    agreeing = np.abs(grads)
    assert pcgrad_weights(agreeing, orders).tolist() == [1.0] * TASKS
    alone = grads * np.eye(TASKS, dtype="f4")[0][:, None]
    assert pcgrad_weights(alone, orders).tolist() == [1.0] * TASKS


UNIQUE = [UPGrad(), DualProj(), MGDA()]  # a single update is right, even if singular


@pytest.mark.parametrize("rule", UNIQUE, ids=lambda rule: type(rule).__name__)
@PROPERTY
@given(GRADS)
def test_the_update_hurts_nobody(rule, grads):
    weights = solver(rule)(grads)
    products = grads @ (np.asarray(weights) @ grads)
    lengths = np.linalg.norm(grads, axis=1)
    assert (products >= -1e-3 * lengths * length_of(weights, grads) - 1e-6).all()
    if rule is not UNIQUE[-1]:
        assert (np.asarray(weights)[grads.any(axis=1)] >= 1 - 1e-6).all()


@pytest.mark.parametrize("rule", UNIQUE, ids=lambda rule: type(rule).__name__)
@PROPERTY
@given(GRADS, ROW, SCALES)
def test_relabelled_and_scaled_the_update_is_the_same(rule, grads, new, scale):
    weights = np.asarray(solver(rule)(grads))
    again = np.asarray(solver(rule)(grads[new] * scale))
    gap = again @ grads[new] - weights @ grads
    assert np.linalg.norm(gap) <= 2e-3 * length_of(weights, grads)


@PROPERTY
@given(GRADS)
def test_cagrad_stays_near_the_mean(grads):
    rule = CAGrad(c=0.5, rescale=False)
    update = np.asarray(solver(rule)(grads)) @ grads
    live = max(grads.any(axis=1).sum(), 1)
    mean = grads.sum(axis=0) / live
    assert np.linalg.norm(update - mean) <= 0.5 * np.linalg.norm(mean) + 1e-3
