"""Theorems 1 and 2 on random quadratics, in float64 NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.surgery.theory import (
    Theorem2,
    cosines,
    curvature,
    curvature_bounding_measure,
    magnitude_similarity,
    theorem_1_decrease,
    theorem_2,
)

CASES = 500


class Quadratic:
    """`L_i = 1/2 (x - c_i)' A_i (x - c_i)`, two tasks, and their sum."""

    def __init__(self, rng):
        self.dimension = rng.integers(2, 5)
        shape = (2, self.dimension, self.dimension)
        factors = rng.normal(size=shape) * 10.0 ** rng.uniform(-1, 1, size=(2, 1, 1))
        self.matrices = factors @ factors.transpose(0, 2, 1)
        self.centers = rng.normal(size=(2, self.dimension)) * 3.0
        self.lipschitz = np.linalg.eigvalsh(self.matrices.sum(0))[-1]

    def loss(self, x):
        offsets = x - self.centers
        return 0.5 * np.einsum("ti,tij,tj", offsets, self.matrices, offsets)

    def gradients(self, x):
        return np.einsum("tij,tj->ti", self.matrices, x - self.centers)


def pcgrad_of_two(g):
    product = g[0] @ g[1]
    if product >= 0:
        return g.sum(0)
    return (1 - product / (g[0] @ g[0])) * g[0] + (1 - product / (g[1] @ g[1])) * g[1]


def asked_of_all(g, lipschitz, lower, step):
    gram = jnp.asarray(g @ g.T, jnp.float32)
    given = {"lipschitz": lipschitz, "lower": lower, "step_size": step}
    return theorem_2(gram, **{k: jnp.float32(v) for k, v in given.items()})


def asked(g, lipschitz, lower, step):
    found = asked_of_all(g, lipschitz, lower, step)
    return Theorem2(*(condition[0, 1] for condition in found))


def xi_of(g):
    cosine = g[0] @ g[1] / np.linalg.norm(g[0]) / np.linalg.norm(g[1])
    apart, together = g[0] - g[1], g[0] + g[1]
    return (1 - cosine**2) * (apart @ apart) / (together @ together)


@pytest.fixture(scope="module")
def theorem_2_cases():
    """Random quadratics and points at which (a), (b) and (c) hold, with their steps."""
    rng, cases = np.random.default_rng(0), []
    while len(cases) < CASES:
        problem = Quadratic(rng)
        x = rng.normal(size=problem.dimension) * 3.0
        g = problem.gradients(x)
        total = g.sum(0)
        lower = total @ problem.matrices.sum(0) @ total / (total @ total)
        room = lower - xi_of(g) * problem.lipschitz
        if g[0] @ g[1] >= 0 or room <= 0:
            continue
        # A step that satisfies (c) with some to spare for float32.
        step = 2.0 / room * (1.01 + rng.exponential())
        if all(asked(g, problem.lipschitz, lower, step)):
            cases.append((problem, x, g, lower, step))
    return cases


def test_theorem_2_has_no_violation(theorem_2_cases):
    for problem, x, g, _, step in theorem_2_cases:
        surgery = problem.loss(x - step * pcgrad_of_two(g))
        plain = problem.loss(x - step * g.sum(0))
        assert surgery <= plain * (1 + 1e-9)


def test_theorem_2_lives_where_gradient_descent_overshoots(theorem_2_cases):
    rises = [
        problem.loss(x - step * g.sum(0)) > problem.loss(x)
        for problem, x, g, _, step in theorem_2_cases
    ]
    assert all(rises)
    own = [
        problem.loss(x - step * pcgrad_of_two(g)) > problem.loss(x)
        for problem, x, g, _, step in theorem_2_cases
    ]
    assert 0 < np.mean(own) < 1


def test_shorter_steps_leave_the_theorem(theorem_2_cases):
    for problem, _, g, lower, step in theorem_2_cases[:50]:
        found = asked(g, problem.lipschitz, lower, 0.1 * step / (1.01 + 10))
        assert found.conflict
        assert found.curved
        assert not found.long_step


def test_theorem_1_bounds_the_decrease():
    rng, checked = np.random.default_rng(1), 0
    while checked < CASES:
        problem = Quadratic(rng)
        x = rng.normal(size=problem.dimension) * 3.0
        g = problem.gradients(x)
        if g[0] @ g[1] >= 0:
            continue
        checked += 1
        step = rng.uniform(0.01, 1.0) / problem.lipschitz
        after = problem.loss(x - step * pcgrad_of_two(g))
        least = theorem_1_decrease(jnp.asarray(g @ g.T, jnp.float32), jnp.float32(step))
        # The bound is computed in float32 from squares that may cancel.
        slack = 1e-5 * step * np.sum(g**2)
        assert after <= problem.loss(x) - float(least) + slack


def test_measures_by_hand():
    gram = jnp.array([[1.0, -1.5], [-1.5, 9.0]])
    assert float(cosines(gram)[0, 1]) == pytest.approx(-0.5)
    assert float(magnitude_similarity(gram)[0, 1]) == pytest.approx(2 * 3 / 10)
    expected = 0.75 * (10 + 3) / (10 - 3)
    assert float(curvature_bounding_measure(gram)[0, 1]) == pytest.approx(expected)


def test_absent_and_opposed_tasks_have_finite_measures():
    gram = jnp.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    for measure in (cosines, magnitude_similarity, curvature_bounding_measure):
        assert bool(jnp.isfinite(measure(gram)).all())


def test_curvature_of_a_quadratic_is_exact():
    rng = np.random.default_rng(2)
    problem = Quadratic(rng)
    x, step = rng.normal(size=problem.dimension), 0.3
    total = problem.gradients(x).sum(0)
    after = problem.loss(x - step * total)
    found = curvature(
        *map(jnp.float32, (problem.loss(x), after, -step * total @ total))
    )
    expected = step**2 * total @ problem.matrices.sum(0) @ total
    assert float(found) == pytest.approx(expected, rel=1e-3)


def test_every_pair_is_taken_as_if_alone():
    rng = np.random.default_rng(3)
    g = rng.normal(size=(4, 2)) * 10.0 ** rng.uniform(-1, 1, size=(4, 1))
    lipschitz, lower, step = rng.uniform(0.5, 2.0, size=(3, 4, 4))
    together = asked_of_all(g, lipschitz, lower, step)
    for i, j in [(i, j) for i in range(4) for j in range(4) if i != j]:
        alone = asked(g[[i, j]], lipschitz[i, j], lower[i, j], step[i, j])
        assert [bool(x[i, j]) for x in together] == [bool(x) for x in alone]
    assert {bool(x) for x in together.conflict.ravel()} == {True, False}
