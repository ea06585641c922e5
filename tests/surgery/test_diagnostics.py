"""Diagnostics from the Gram matrix against the gradients themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.surgery import MGDA, diagnose


def test_against_the_gradients():
    rng = np.random.default_rng(0)
    g, w = rng.normal(size=(4, 6)), rng.uniform(0.5, 2.0, size=4)
    found = jax.jit(diagnose)(jnp.asarray(g @ g.T), jnp.asarray(w), jnp.float32(0.1))
    update, total = w @ g, g.sum(0)
    norms = np.linalg.norm(g, axis=1)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    cosine = {(i, j): g[i] @ g[j] / norms[i] / norms[j] for i, j in pairs}
    phi = [2 * norms[i] * norms[j] / (norms[i] ** 2 + norms[j] ** 2) for i, j in pairs]
    xi = [
        (1 - cosine[i, j] ** 2)
        * np.sum((g[i] - g[j]) ** 2)
        / np.sum((g[i] + g[j]) ** 2)
        for i, j in pairs
    ]
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4)  # float32
    close(found.conflicting, np.mean([c < 0 for c in cosine.values()]))
    close(found.similarity, np.mean(phi))
    close(found.curvature_bound, np.mean(xi))
    close(found.norms, norms)
    alignment = update @ total / np.linalg.norm(update) / np.linalg.norm(total)
    close(found.alignment, alignment)
    close(found.predicted_change, -0.1 * g @ update)
    close(found.hurt, np.mean(g @ update < 0))
    close(found.cosines[1, 0], cosine[1, 0])


def test_absent_tasks_do_not_count():
    gram = jnp.array([[1.0, -0.5, 0.0], [-0.5, 1.0, 0.0], [0.0, 0.0, 0.0]])
    found = diagnose(gram, jnp.ones(3), 1.0)
    assert float(found.conflicting) == 1.0
    assert float(found.similarity) == 1.0
    assert all(bool(jnp.isfinite(x).all()) for x in found)


def test_a_pareto_stationary_point_is_no_division_by_zero():
    gram = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    found = diagnose(gram, MGDA().of_gram(gram), 1.0)
    assert all(bool(jnp.isfinite(x).all()) for x in found)


def test_bad_input(untyped):
    with pytest.raises(ValueError, match=r"got \(2, 2\) and \(3,\)"):
        diagnose(jnp.eye(2), jnp.ones(3), 1.0)
    with pytest.raises(ValueError, match=r"step_size must be >= 0, got -1.0"):
        diagnose(jnp.eye(2), jnp.ones(2), -1.0)
