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
from jaxmeta.meta.meta_gradient import (
    FirstOrder,
    Implicit,
    MixFlow,
    Truncated,
    Unrolled,
)

RNG = np.random.default_rng(0)
A = RNG.normal(size=(4, 4))
A = A @ A.T / 4
B, C, START = RNG.normal(size=(3, 4))

# float64 against float64: rounding only.
EXACT = {"rtol": 1e-12, "atol": 1e-12}

EXACT_CHOICES = {
    "remat": Unrolled(),
    "unrolled": Unrolled(remat=False),
    "mixflow": MixFlow(),
    "truncated after all": Truncated(steps=6),
}
exactly = pytest.mark.parametrize("choice", EXACT_CHOICES.values(), ids=EXACT_CHOICES)
choices = pytest.mark.parametrize(
    "choice",
    [*EXACT_CHOICES.values(), FirstOrder()],
    ids=[*EXACT_CHOICES, "first order"],
)
# Six are three blocks of two to MixFlow.
step_counts = pytest.mark.parametrize("num_steps", [1, 3, 6])


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
    loss = lambda v, b: 0.5 * v @ A @ v - b @ v
    return jnp.asarray(C) @ descend(loss, start, b, rates, **settings)


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
@choices
def test_follows_gradient_descent_by_hand(num_steps, choice):
    loss = lambda v, b: 0.5 * v @ A @ v - b @ v
    end = descend(
        loss,
        jnp.asarray(START),
        jnp.asarray(B),
        jnp.asarray(0.2),
        num_steps=num_steps,
        meta_gradient=choice,
    )
    iterates, _ = by_hand([np.full(4, 0.2)] * num_steps)
    np.testing.assert_allclose(end, iterates[-1], **EXACT)


@exactly
@step_counts
def test_the_exact_gradient_is_the_product_of_the_steps(num_steps, choice):
    start, _, _ = gradients_of(0.2, num_steps=num_steps, meta_gradient=choice)
    expected = np.linalg.matrix_power(np.eye(4) - 0.2 * A, num_steps) @ C
    np.testing.assert_allclose(start, expected, **EXACT)


@step_counts
def test_first_order_gradient_passes_the_steps_unchanged(num_steps):
    start, _, b = gradients_of(0.2, num_steps=num_steps, meta_gradient=FirstOrder())
    np.testing.assert_allclose(start, C, **EXACT)
    # Mixed second derivatives are second derivatives: none of them either.
    np.testing.assert_array_equal(b, np.zeros(4))


@exactly
@step_counts
def test_the_exact_gradient_reaches_the_context(num_steps, choice):
    _, _, b = gradients_of(0.2, num_steps=num_steps, meta_gradient=choice)
    # v_{t+1} = J v_t + r b: b enters at every step and is carried on by the rest.
    expected = 0.2 * sum(products([np.full(4, 0.2)] * num_steps)[1:])
    np.testing.assert_allclose(b, expected, **EXACT)


@choices
def test_gradient_of_a_rate_for_the_tensor(choice):
    _, rate, _ = gradients_of(0.2, num_steps=3, meta_gradient=choice)
    rates = [np.full(4, 0.2)] * 3
    _, inner = by_hand(rates)
    after = products(rates)[1:] if choice != FirstOrder() else [C] * 3
    expected = -sum(p @ g for p, g in zip(after, inner, strict=True))
    np.testing.assert_allclose(rate, expected, **EXACT)


@choices
def test_gradient_of_a_rate_for_every_parameter(choice):
    rates = np.array([0.1, 0.2, 0.3, 0.0])
    start, rate, _ = gradients_of(rates, num_steps=2, meta_gradient=choice)
    _, inner = by_hand([rates] * 2)
    after = products([rates] * 2) if choice != FirstOrder() else [C] * 3
    np.testing.assert_allclose(start, after[0], **EXACT)
    expected = -sum(p * g for p, g in zip(after[1:], inner, strict=True))
    np.testing.assert_allclose(rate, expected, **EXACT)


@choices
@pytest.mark.parametrize("shape", [(4,), (4, 4)], ids=["per tensor", "per parameter"])
def test_gradient_of_rates_of_their_own_for_every_step(choice, shape):
    rates = RNG.uniform(0.1, 0.4, size=shape)
    settings = {"num_steps": 4, "per_step": True, "meta_gradient": choice}
    start, rate, _ = gradients_of(rates, **settings)
    vectors = list(np.broadcast_to(rates.reshape(4, -1), (4, 4)))
    iterates, inner = by_hand(vectors)
    after = products(vectors) if choice != FirstOrder() else [C] * 5
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


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("steps", [1, 2])
def test_truncated_gradient_is_that_of_the_last_steps(steps, per_step):
    rates = np.array([0.1, 0.2, 0.3, 0.4]) if per_step else 0.2
    vectors = [np.full(4, rate) for rate in np.broadcast_to(rates, 4)]
    start, rate, b = gradients_of(
        rates,
        num_steps=4,
        per_step=per_step,
        meta_gradient=Truncated(steps=steps),
    )
    after = products(vectors)
    np.testing.assert_allclose(start, after[4 - steps], **EXACT)
    passed = [after[max(t, 4 - steps)] for t in range(1, 5)]
    of_b = sum(r * p for r, p in zip(vectors[-steps:], passed[-steps:], strict=True))
    np.testing.assert_allclose(b, of_b, **EXACT)
    _, inner = by_hand(vectors)
    of_rates = np.array([-p @ g for p, g in zip(passed, inner, strict=True)])
    np.testing.assert_allclose(rate, of_rates if per_step else of_rates.sum(), **EXACT)


def test_implicit_gradient_is_that_of_the_minimum():
    # (A + 2) v = b + 2 start, reached to rounding.
    choice = Implicit(damping=2.0, solver_steps=20)
    settings = {"num_steps": 300, "meta_gradient": choice}
    inverse = np.linalg.inv(A + 2 * np.eye(4))
    end = outer(jnp.asarray(START), jnp.asarray(0.2), jnp.asarray(B), **settings)
    np.testing.assert_allclose(end, C @ inverse @ (B + 2 * START), rtol=1e-10)
    start, rate, b = gradients_of(0.2, **settings)
    np.testing.assert_allclose(start, 2 * inverse @ C, rtol=1e-8)
    np.testing.assert_allclose(b, inverse @ C, rtol=1e-8)
    assert rate == 0.0


def test_implicit_is_unrolled_where_the_steps_converge():
    pulled = lambda v, b: jnp.sum(jnp.cosh(v - b)) + 0.3 * v[0] * v[1]

    def total(start, b, choice, damping):
        def loss(v, context):
            start, b = context
            return pulled(v, b) + 0.5 * damping * jnp.sum((v - start) ** 2)

        rate, context = jnp.asarray(0.2), (start, b)
        end = descend(loss, start, context, rate, num_steps=200, meta_gradient=choice)
        return jnp.asarray(C) @ jnp.sin(end)

    args = jnp.asarray(START), jnp.asarray(B)
    implicit = jax.grad(lambda s, b: total(s, b, Implicit(damping=0.5), 0.0), (0, 1))
    unrolled = jax.grad(lambda s, b: total(s, b, Unrolled(), 0.5), (0, 1))
    for a, b in zip(implicit(*args), unrolled(*args), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_n_steps_are_one_step_n_times():
    loss = lambda v, _: jnp.sum(jnp.sin(v) ** 2) + v[0] * v[1]
    rate, start = jnp.asarray(0.1), jnp.asarray(START)
    once = lambda v: descend(loss, v, (), rate, num_steps=1)
    together = descend(loss, start, (), rate, num_steps=3)
    np.testing.assert_allclose(together, once(once(once(start))), **EXACT)


def test_every_leaf_has_the_rate_at_its_place():
    start = {"a": jnp.ones(2), "b": (jnp.ones(()), jnp.ones((2, 2)))}
    rates = {"a": jnp.array(0.5), "b": (jnp.array(0.0), jnp.array([[1.0, 2.0]] * 2))}
    total = lambda tree, _: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(tree))
    end = descend(total, start, (), rates, num_steps=2)
    np.testing.assert_array_equal(end["a"], [0.0, 0.0])
    np.testing.assert_array_equal(end["b"][0], 1.0)
    np.testing.assert_array_equal(end["b"][1], [[-1.0, -3.0]] * 2)


def test_mixflow_holds_the_parameters_of_blocks_of_steps():
    v, rate = jnp.ones(10_000), jnp.asarray(0.1)

    def held(choice):
        def loss(v):
            inner = lambda v, context: jnp.cos(v).sum()
            end = descend(inner, v, (), rate, num_steps=64, meta_gradient=choice)
            return jnp.square(end).sum()

        memory = jax.jit(jax.grad(loss)).lower(v).compile().memory_analysis()
        return memory.temp_size_in_bytes / v.nbytes

    # Eight blocks and eight steps of one, and what a step computes with.
    assert held(MixFlow()) <= 8 + 8 + 4
    assert held(Unrolled()) >= 64


@pytest.mark.parametrize("num_steps", [0, -1])
def test_refuses_fewer_than_one_step(num_steps):
    loss = lambda v, _: v.sum()
    with pytest.raises(ValueError, match=f"num_steps must be >= 1, got {num_steps}"):
        descend(loss, jnp.ones(2), (), jnp.asarray(0.1), num_steps=num_steps)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Truncated(steps=0), "steps must be >= 1, got 0"),
        (lambda: Implicit(damping=0.0), "damping must be a positive finite number"),
        (lambda: Implicit(damping=float("nan")), "damping must be a positive finite"),
        (lambda: Implicit(solver_steps=0), "solver_steps must be >= 1, got 0"),
    ],
)
def test_settings_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
