"""The solver against non-negative least squares, which solves the dual problem."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from jaxmeta.manipulation.constraint import Rows
from jaxmeta.manipulation.newton import _lowest, solve

DOFS, ROWS = 6, 14


def problem(seed):
    """Rows, inertia and an acceleration, in float64."""
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(DOFS, DOFS))
    inertia = half @ half.T + 0.1 * np.eye(DOFS)
    jacobian = rng.normal(size=(DOFS, ROWS))
    stiffness, wanted = rng.uniform(0.1, 30.0, ROWS), rng.normal(size=ROWS)
    return (jacobian, stiffness, wanted), inertia, rng.normal(size=DOFS)


def by_forces(rows, inertia, free):
    """The acceleration, by the forces f >= 0 of all rows.

    They minimise `1/2 f' (J M^-1 J' + 1/D) f + f' (J a0 - aref)`.
    """
    jacobian, stiffness, wanted = rows
    moved = np.linalg.solve(inertia, jacobian)
    upper = np.linalg.cholesky(jacobian.T @ moved + np.diag(1 / stiffness)).T
    forces, _ = nnls(upper, np.linalg.solve(upper.T, wanted - jacobian.T @ free))
    return free + moved @ forces


def solved(rows, inertia, free, guess=None, **options):
    """In float32."""
    single = lambda x: jnp.asarray(x, jnp.float32)
    guess = free if guess is None else guess
    args = Rows(*map(single, rows)), single(inertia), single(free), single(guess)
    return np.asarray(solve(*args, **{"steps": 3, "line_steps": 4, **options}))


@pytest.mark.parametrize("seed", range(20))
def test_the_acceleration_is_that_of_the_dual_problem(seed):
    rows, inertia, free = problem(seed)
    expected = by_forces(rows, inertia, free)
    assert np.abs(expected - free).max() > 0.1
    found = solved(rows, inertia, free, steps=12, line_steps=8)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)
    # As many steps as a time step makes leave little: .11 at most, .05 but for one.
    left = np.abs(solved(rows, inertia, free) - expected).max()
    assert left < 0.15 * np.abs(expected - free).max()


def test_a_better_guess_is_taken():
    rows, inertia, free = problem(0)
    expected = by_forces(rows, inertia, free)
    found = solved(rows, inertia, free, expected, steps=0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    worse = solved(rows, inertia, free, expected + 1e3, steps=0)
    np.testing.assert_allclose(worse, free, rtol=1e-6)


def test_nothing_happens_where_nothing_pushes():
    rows, inertia, free = problem(1)
    (jacobian, stiffness, _), far = rows, np.full(ROWS, -1e3)
    np.testing.assert_array_equal(
        solved((jacobian, stiffness, far), inertia, free), np.float32(free)
    )


def test_a_light_thing_that_cannot_be_turned_lies_still():
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) * 0.02
    jacobian = np.c_[np.ones(4), corners].T
    rows = jacobian, np.full(4, 0.04), np.full(4, 0.1)
    inertia, free = np.diag([0.01, 1e5, 1e5]), np.array([-9.81, 0.0, 0.0])
    for guess in (free, np.zeros(3), by_forces(rows, inertia, free)):
        found = solved(rows, inertia, free, guess)
        np.testing.assert_allclose(
            found, by_forces(rows, inertia, free), rtol=1e-5, atol=1e-6
        )


def test_the_lowest_point_of_next_to_no_way_is_on_it():
    """It falls, but its square is nothing in float32."""
    one, way = jnp.ones(1), jnp.array([1e-23])
    asked = Rows(jacobian=one[None], stiffness=one, wanted=0 * one)
    assert jnp.isfinite(_lowest(asked, jnp.eye(1), -one, -one, way, 4))
