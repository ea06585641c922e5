"""The inner loop on quadratics, where every gradient can be written down.

`L(v) = v' A v / 2 - b' v` has the gradient `A v - b`, and a step with rates r (a
vector) is `v <- v - r (A v - b)`, an affine map with Jacobian `J = I - diag(r) A`.
The outer loss is `c' v_n`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.meta.inner_loop import descend

RNG = np.random.default_rng(0)
A = RNG.normal(size=(4, 4))
A = A @ A.T / 4
B, C, START = RNG.normal(size=(3, 4))

# float64 against float64: rounding only.
EXACT = {"rtol": 1e-12, "atol": 1e-12}

orders = pytest.mark.parametrize("order", ["second", "first"])
step_counts = pytest.mark.parametrize("num_steps", [1, 2, 3])


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def by_hand(rates):
    """Every iterate and every gradient; `rates` is a list of vectors, one per step."""
    iterates, gradients = [START], []
    for rate in rates:
        gradients.append(A @ iterates[-1] - B)
        iterates.append(iterates[-1] - rate * gradients[-1])
    return iterates, gradients


def outer(start, rates, b, **settings):
    loss = lambda v: 0.5 * v @ A @ v - b @ v
    return jnp.asarray(C) @ descend(loss, start, rates, **settings)


def gradients_of(rates, **settings):
    """The outer gradient with respect to the start, the rates and b."""
    fn = jax.grad(functools.partial(outer, **settings), argnums=(0, 1, 2))
    return fn(jnp.asarray(START), jnp.asarray(rates), jnp.asarray(B))


def products(rates):
    """`J_{t+1}' ... J_n' c` for t = 0 .. n: how c' v_n depends on v_t."""
    rows = [C]
    for rate in reversed(rates):
        rows.append((np.eye(4) - np.diag(rate) @ A).T @ rows[-1])
    return rows[::-1]


@step_counts
@orders
@pytest.mark.parametrize("remat", [True, False])
def test_follows_gradient_descent_by_hand(num_steps, order, remat):
    loss = lambda v: 0.5 * v @ A @ v - jnp.asarray(B) @ v
    end = descend(
        loss,
        jnp.asarray(START),
        jnp.asarray(0.2),
        num_steps=num_steps,
        order=order,
        remat=remat,
    )
    iterates, _ = by_hand([np.full(4, 0.2)] * num_steps)
    np.testing.assert_allclose(end, iterates[-1], **EXACT)


@step_counts
def test_second_order_gradient_is_the_product_of_the_steps(num_steps):
    start, _, _ = gradients_of(0.2, num_steps=num_steps)
    expected = np.linalg.matrix_power(np.eye(4) - 0.2 * A, num_steps) @ C
    np.testing.assert_allclose(start, expected, **EXACT)


@step_counts
def test_first_order_gradient_passes_the_steps_unchanged(num_steps):
    start, _, b = gradients_of(0.2, num_steps=num_steps, order="first")
    np.testing.assert_allclose(start, C, **EXACT)
    # Mixed second derivatives are second derivatives: none of them either.
    np.testing.assert_array_equal(b, np.zeros(4))


@step_counts
def test_second_order_gradient_reaches_what_the_loss_closes_over(num_steps):
    _, _, b = gradients_of(0.2, num_steps=num_steps)
    # v_{t+1} = J v_t + r b: b enters at every step and is carried on by the rest.
    expected = 0.2 * sum(products([np.full(4, 0.2)] * num_steps)[1:])
    np.testing.assert_allclose(b, expected, **EXACT)


@orders
def test_gradient_of_a_rate_for_the_tensor(order):
    _, rate, _ = gradients_of(0.2, num_steps=3, order=order)
    rates = [np.full(4, 0.2)] * 3
    _, inner = by_hand(rates)
    after = products(rates)[1:] if order == "second" else [C] * 3
    expected = -sum(p @ g for p, g in zip(after, inner, strict=True))
    np.testing.assert_allclose(rate, expected, **EXACT)


@orders
def test_gradient_of_a_rate_for_every_parameter(order):
    rates = np.array([0.1, 0.2, 0.3, 0.0])
    start, rate, _ = gradients_of(rates, num_steps=2, order=order)
    _, inner = by_hand([rates] * 2)
    after = products([rates] * 2) if order == "second" else [C] * 3
    np.testing.assert_allclose(start, after[0], **EXACT)
    expected = -sum(p * g for p, g in zip(after[1:], inner, strict=True))
    np.testing.assert_allclose(rate, expected, **EXACT)


@orders
@pytest.mark.parametrize("shape", [(3,), (3, 4)], ids=["per tensor", "per parameter"])
@pytest.mark.parametrize("remat", [True, False])
def test_gradient_of_rates_of_their_own_for_every_step(order, shape, remat):
    rates = RNG.uniform(0.1, 0.4, size=shape)
    settings = {"num_steps": 3, "order": order, "per_step": True, "remat": remat}
    start, rate, _ = gradients_of(rates, **settings)
    vectors = list(np.broadcast_to(rates.reshape(3, -1), (3, 4)))
    iterates, inner = by_hand(vectors)
    after = products(vectors) if order == "second" else [C] * 4
    np.testing.assert_allclose(
        outer(jnp.asarray(START), jnp.asarray(rates), jnp.asarray(B), **settings),
        C @ iterates[-1],
        **EXACT,
    )
    np.testing.assert_allclose(start, after[0], **EXACT)
    expected = np.array([-p * g for p, g in zip(after[1:], inner, strict=True)])
    expected = expected if len(shape) == 2 else expected.sum(axis=1)
    np.testing.assert_allclose(rate, expected, **EXACT)


def test_one_step_with_rates_of_its_own():
    start, rate, _ = gradients_of([0.2], num_steps=1, per_step=True)
    alone = gradients_of(0.2, num_steps=1)
    np.testing.assert_allclose(start, alone[0], **EXACT)
    np.testing.assert_allclose(rate, [alone[1]], **EXACT)


@orders
def test_remat_changes_nothing(order):
    settings = {"num_steps": 5, "order": order}
    kept = gradients_of(0.2, remat=False, **settings)
    recomputed = gradients_of(0.2, remat=True, **settings)
    for a, b in zip(kept, recomputed, strict=True):
        np.testing.assert_allclose(a, b, **EXACT)


def test_n_steps_are_one_step_n_times():
    loss = lambda v: jnp.sum(jnp.sin(v) ** 2) + v[0] * v[1]
    once = functools.partial(descend, loss, rates=jnp.asarray(0.1), num_steps=1)
    start = jnp.asarray(START)
    together = descend(loss, start, jnp.asarray(0.1), num_steps=3)
    np.testing.assert_allclose(together, once(once(once(start))), **EXACT)


def test_every_leaf_has_the_rate_at_its_place():
    start = {"a": jnp.ones(2), "b": (jnp.ones(()), jnp.ones((2, 2)))}
    rates = {"a": jnp.array(0.5), "b": (jnp.array(0.0), jnp.array([[1.0, 2.0]] * 2))}
    total = lambda tree: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(tree))
    end = descend(total, start, rates, num_steps=2)
    np.testing.assert_array_equal(end["a"], [0.0, 0.0])
    np.testing.assert_array_equal(end["b"][0], 1.0)
    np.testing.assert_array_equal(end["b"][1], [[-1.0, -3.0]] * 2)


@pytest.mark.parametrize("num_steps", [0, -1])
def test_refuses_fewer_than_one_step(num_steps):
    with pytest.raises(ValueError, match=f"num_steps must be >= 1, got {num_steps}"):
        descend(jnp.sum, jnp.ones(2), jnp.asarray(0.1), num_steps=num_steps)
