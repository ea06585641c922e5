import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import pcgrad_of_two

from jaxmeta import map_tasks, sum_over_tasks
from jaxmeta.surgery import (
    MGDA,
    GradVac,
    PCGrad,
    UPGrad,
    aggregate_tasks,
    gram_matrix,
    low_memory,
    pcgrad,
)

RNG = np.random.default_rng(0)
LABELS = {"body": {"w": "a", "b": "b"}, "head": "a"}
SHARED = {"body": {"w": True, "b": True}, "head": False}


def tree(num_tasks, seed=0):
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
    return {
        "body": {"w": normal(num_tasks, 3, 2), "b": normal(num_tasks)},
        "head": normal(num_tasks, 4),
    }


def params_of(task_grads):
    return jax.tree.map(lambda x: jnp.zeros_like(x[0]), task_grads)


def first_update(tx, grads):
    params = params_of(grads)
    return jax.jit(lambda grads: tx.update(grads, tx.init(params), params)[0])(grads)


def flat(leaves, axes):
    parts = [np.asarray(x, np.float64) for x in leaves]
    return np.concatenate([x.reshape(*x.shape[:axes], -1) for x in parts], axis=-1)


def assert_trees_close(a, b, tolerance=1e-5):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def opposing_pair():
    """Two tasks that conflict in every leaf, with another angle in each."""
    grads = tree(2, seed=3)
    clash = lambda x: x.at[1].set(0.7 * x[1] - x[0] * (1 + jnp.abs(x[1]).max()))
    return jax.tree.map(clash, grads)


def pairwise(leaves):
    return pcgrad_of_two(*flat(leaves, 1))


# --- granularity and mask -------------------------------------------------------------


def test_granularity_leaf_treats_every_leaf_alone():
    grads = opposing_pair()
    updates = first_update(pcgrad(0, granularity="leaf"), grads)
    for update, grad in zip(
        jax.tree.leaves(updates), jax.tree.leaves(grads), strict=True
    ):
        np.testing.assert_allclose(update.ravel(), pairwise([grad]), atol=1e-5)


@pytest.mark.parametrize("as_function", [False, True])
def test_granularity_by_label_joins_leaves_of_one_label(as_function):
    labels = (lambda params: LABELS) if as_function else LABELS
    grads = opposing_pair()
    updates = first_update(pcgrad(0, granularity=labels), grads)
    joined = flat([updates["body"]["w"], updates["head"]], 0)
    expected = pairwise([grads["body"]["w"], grads["head"]])
    np.testing.assert_allclose(joined, expected, atol=1e-5)
    alone = pairwise([grads["body"]["b"]])
    np.testing.assert_allclose(updates["body"]["b"], alone[0], atol=1e-5)


@pytest.mark.parametrize("as_function", [False, True])
def test_masked_heads_are_summed_and_not_looked_at(as_function):
    mask = (lambda params: SHARED) if as_function else SHARED
    grads = opposing_pair()
    tx = pcgrad(0, mask=mask)
    updates = first_update(tx, grads)
    np.testing.assert_allclose(updates["head"], grads["head"].sum(0), rtol=1e-5)
    body = flat(jax.tree.leaves(updates["body"]), 0)
    expected = pairwise(jax.tree.leaves(grads["body"]))
    np.testing.assert_allclose(body, expected, atol=1e-5)
    other = {**grads, "head": 100.0 * grads["head"][::-1]}
    assert first_update(tx, other)["body"]["b"] == updates["body"]["b"]


def test_mask_with_granularity_leaf():
    grads = opposing_pair()
    tx = pcgrad(0, mask=SHARED, granularity="leaf")
    updates = first_update(tx, grads)
    np.testing.assert_allclose(updates["head"], grads["head"].sum(0), rtol=1e-5)
    w = updates["body"]["w"].ravel()
    np.testing.assert_allclose(w, pairwise([grads["body"]["w"]]), atol=1e-5)


def test_groups_draw_orders_of_their_own():
    leaf = jnp.asarray(RNG.standard_normal((8, 3)), jnp.float32)
    tx = pcgrad(0, granularity="leaf")
    updates = first_update(tx, [leaf] * 4)
    assert len({tuple(np.asarray(x).round(3).tolist()) for x in updates}) > 1


def test_groups_keep_averages_of_their_own():
    rule = GradVac(num_tasks=2, decay=0.5)
    grads, params = opposing_pair(), params_of(opposing_pair())
    tx = aggregate_tasks(rule, granularity="leaf")
    _, state = jax.jit(tx.update)(grads, tx.init(params), params)
    assert state.groups.shape == (3, 2, 2)
    for average, leaf in zip(state.groups, jax.tree.leaves(grads), strict=True):
        a, b = flat([leaf], 1)
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        np.testing.assert_allclose(average[0, 1], 0.5 * cosine, rtol=1e-4)


# --- bad input ------------------------------------------------------------------------


def refuses(tx, grads, params, *words):
    everything = "".join(f"(?=.*{re.escape(word)})" for word in words)
    with pytest.raises(ValueError, match=everything):
        tx.update(grads, tx.init(params), params)


def test_different_numbers_of_tasks_are_refused():
    grads = {"a": jnp.ones((3, 2)), "b": jnp.ones((4, 2))}
    refuses(pcgrad(0), grads, params_of(grads), "'a'", "(3, 2)", "'b'", "(4, 2)")


@pytest.mark.parametrize("rule", [PCGrad(), MGDA()], ids=repr)
def test_gradients_without_a_task_axis_are_refused(rule):
    params = {"a": jnp.ones((3, 2))}
    refuses(aggregate_tasks(rule), params, params, "'a'", "(3, 2)")


def test_a_scalar_without_a_task_axis_is_refused():
    tx = pcgrad(0)
    grads = {"a": jnp.ones((3, 2)), "b": jnp.ones(())}
    with pytest.raises(ValueError, match=r"'b'\] \(\)"):
        tx.update(grads, tx.init({}))


def test_an_empty_tree_is_refused():
    with pytest.raises(ValueError, match="no gradient"):
        pcgrad(0).update({}, pcgrad(0).init({}), {})


@pytest.mark.parametrize("granularity", ["layer", "", "Global"])
def test_an_unknown_granularity_is_refused(granularity):
    with pytest.raises(ValueError, match=f"'global', 'leaf'.*got '{granularity}'"):
        pcgrad(0, granularity=granularity)


def test_labels_and_masks_of_another_structure_are_refused():
    grads = tree(2)
    cases: list[tuple[Any, str]] = [
        ({"granularity": {"body": "a"}}, "granularity"),
        ({"mask": {"body": True}}, "mask"),
    ]
    for options, name in cases:
        with pytest.raises(ValueError, match=f"{name} must be a pytree like"):
            first_update(pcgrad(0, **options), grads)


def test_a_mask_that_shares_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing is left to weigh"):
        first_update(pcgrad(0, mask=jax.tree.map(lambda _: False, SHARED)), tree(2))


@pytest.mark.parametrize("name", ["task_losses", "task_ids"])
def test_losses_and_ids_of_another_length_are_refused(untyped, name):
    tx = pcgrad(0)
    with pytest.raises(ValueError, match=rf"{name} must have shape \(2,\).*\(3,\)"):
        tx.update(tree(2), tx.init({}), **{name: jnp.arange(3)})


# --- keys, loops, types ---------------------------------------------------------------


def test_typed_raw_and_integer_keys_are_the_same():
    keys = [jax.random.key(7), jax.random.key_data(jax.random.key(7)), 7]
    states: list[Any] = [pcgrad(key).init({}) for key in [*keys, 8]]
    first, second, third, other = [state.key.tolist() for state in states]
    assert first == second == third != other


def test_the_key_matters():
    grads = tree(8)
    first, other = [
        flat(jax.tree.leaves(first_update(pcgrad(n), grads)), 0) for n in (7, 8)
    ]
    assert np.abs(first - other).max() > 1e-3


def test_another_generator_than_the_default():
    tx = pcgrad(jax.random.key(7, impl="rbg"))
    grads = tree(8)
    step = jax.jit(tx.update)
    start: Any = tx.init({})
    _, state = step(grads, start)
    assert state.key.shape == (4,)
    step(grads, state)


def test_scan_is_the_loop_and_nothing_compiles_twice():
    rule = GradVac(num_tasks=4, decay=0.3)
    tx = aggregate_tasks(rule, 3)
    grads = jax.tree.map(lambda *x: jnp.stack(x), *[tree(4, seed) for seed in range(4)])
    traces = []

    def step(state, one):
        traces.append(1)
        updates, state = tx.update(one, state)
        return state, updates

    start = tx.init(params_of(tree(4)))
    end, scanned = jax.lax.scan(step, start, grads)
    traces.clear()
    jitted, state = jax.jit(step), start
    for n in range(4):
        one = jax.tree.map(lambda x, n=n: x[n], grads)
        state, updates = jitted(state, one)
        assert_trees_close(updates, jax.tree.map(lambda x, n=n: x[n], scanned), 1e-5)
    assert len(traces) == 1
    assert_trees_close(state, end, 1e-5)


def test_types_are_kept_and_the_gram_is_float32():
    assert gram_matrix(jnp.ones((2, 4), jnp.bfloat16)).dtype == jnp.float32
    # 1 + 2^-12 is not a bf16 number; a Gram matrix in bf16 would lose the difference
    leaf = jnp.ones((2, 4097), jnp.bfloat16)
    assert gram_matrix(leaf)[0, 1] == 4097.0
    mixed = {"half": jnp.ones((3, 2), jnp.bfloat16), "single": jnp.ones((3, 2))}
    updates = first_update(pcgrad(0), mixed)
    assert {name: x.dtype.name for name, x in updates.items()} == {
        "half": "bfloat16",
        "single": "float32",
    }
    assert updates["half"].tolist() == [3.0, 3.0]


def test_accumulator_dtype():
    with jax.enable_x64(True):
        leaf = jnp.full((2, 3), 1 + 2.0**-20, jnp.float32)
        exact = gram_matrix(leaf, accumulator_dtype=jnp.float64)
        assert exact.dtype == jnp.float64
        assert float(exact[0, 0]) == 3 * (1 + 2.0**-20) ** 2
        tx = pcgrad(0, accumulator_dtype=jnp.float64)
        update = jax.eval_shape(lambda x: tx.update(x, tx.init(x[0]))[0], leaf)
        assert update.dtype == jnp.float32


def test_many_columns_take_the_same_gram():
    leaf = jnp.asarray(RNG.standard_normal((3, 20_001)), jnp.float32)
    exact = np.asarray(leaf, np.float64) @ np.asarray(leaf, np.float64).T
    np.testing.assert_allclose(gram_matrix(leaf), exact, rtol=1e-5, atol=0.05)


# --- among optax's transformations ----------------------------------------------------


def test_in_a_chain_it_feeds_what_follows():
    grads = opposing_pair()
    params = params_of(grads)
    updates = first_update(pcgrad(0), grads)
    after = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1))
    expected = jax.jit(after.update)(updates, after.init(params), params)[0]
    tx = optax.chain(pcgrad(0), optax.clip_by_global_norm(0.5), optax.adam(0.1))
    got = first_update(tx, grads)
    assert_trees_close(got, expected)


def test_partition_with_summed_heads_is_the_mask():
    grads = opposing_pair()
    labels = jax.tree.map(lambda shared: "s" if shared else "h", SHARED)
    tx = optax.partition({"s": pcgrad(0), "h": sum_over_tasks()}, labels)
    got = first_update(tx, grads)
    assert_trees_close(got, first_update(pcgrad(0, mask=SHARED), grads))


@pytest.mark.parametrize("kind", ["integer", "typed", "raw"])
def test_inject_hyperparams(kind):
    key = {
        "integer": 7,
        "typed": jax.random.key(7),
        "raw": jax.random.key_data(jax.random.key(7)),
    }[kind]
    grads = tree(6)
    params = params_of(grads)
    tx = optax.inject_hyperparams(pcgrad)(key=key)
    step = jax.jit(tx.update)
    got, state = step(grads, tx.init(params), params)
    assert_trees_close(got, first_update(pcgrad(7), grads))
    step(grads, state, params)


def test_apply_if_finite_goes_around_what_follows():
    grads = opposing_pair()
    params = params_of(grads)
    tx = optax.chain(pcgrad(0), optax.apply_if_finite(optax.adam(0.1), 5))
    step = jax.jit(tx.update)
    state = tx.init(params)
    bad = {**grads, "head": grads["head"].at[1, 0].set(jnp.nan)}
    nothing, state = step(bad, state, params)
    assert not flat(jax.tree.leaves(nothing), 0).any()
    something, _ = step(grads, state, params)
    assert flat(jax.tree.leaves(something), 0).all()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.MultiSteps(tx, every_k_schedule=2),
        lambda tx: optax.apply_if_finite(tx, 5),
    ],
    ids=["MultiSteps", "apply_if_finite"],
)
def test_wrappers_around_the_whole_chain_fail(wrap):
    grads = opposing_pair()
    params = params_of(grads)
    tx = wrap(optax.chain(pcgrad(0), optax.sgd(0.1)))
    with pytest.raises((TypeError, ValueError)):
        tx.update(grads, tx.init(params), params)


def test_masked_leaves_the_task_axis_on_the_heads():
    grads = opposing_pair()
    params = params_of(grads)
    tx = optax.masked(pcgrad(0), SHARED)
    update = lambda grads: tx.update(grads, tx.init(params), params)[0]
    updates = jax.eval_shape(update, grads)
    assert updates["body"]["w"].shape == (3, 2)
    assert updates["head"].shape == (2, 4)


# --- in little memory -----------------------------------------------------------------

INPUTS = jnp.asarray(RNG.standard_normal((4, 6, 3)), jnp.float32)
TARGETS = jnp.asarray(3 * RNG.standard_normal((4, 6)), jnp.float32)
START = {
    "b": jnp.zeros(()),
    "head": jnp.asarray([0.3, -0.4], jnp.float32),
    "w": jnp.asarray(RNG.standard_normal((3, 2)), jnp.float32),
}


def loss(params, x, y):
    outputs = jnp.tanh(x @ params["w"]) @ params["head"] + params["b"]
    return jnp.mean((outputs - y) ** 2)


@functools.cache
def full_form(rule, masked):
    """Three steps of the form that holds `[task, *p]`."""
    mask = {"b": True, "head": False, "w": True} if masked else None
    tx = aggregate_tasks(rule, 5, mask=mask)
    params, state, seen = START, tx.init(START), []

    @jax.jit
    def step(params, state):
        task_grads = jax.vmap(jax.grad(loss), (None, 0, 0))(params, INPUTS, TARGETS)
        return tx.update(task_grads, state, params)

    for _ in range(3):
        updates, state = step(params, state)
        seen.append(updates)
        params = jax.tree.map(lambda p, u: p - 0.1 * u, params, updates)
    return seen, state


LOW_MEMORY = [
    (PCGrad(), False, "vmap"),
    (PCGrad(), False, "shard_map"),
    (PCGrad(reduction="mean"), True, "shard_map"),
    (UPGrad(), False, "vmap"),
    (GradVac(num_tasks=4, decay=0.3), False, "shard_map"),
]


@pytest.mark.parametrize(("rule", "masked", "backend"), LOW_MEMORY, ids=repr)
def test_low_memory_is_the_full_form(rule, masked, backend):
    mask = {"b": True, "head": False, "w": True} if masked else None
    surgery = low_memory(map_tasks(loss, backend), rule, 5, mask=mask)
    step = jax.jit(surgery.update)
    params, state = START, surgery.init(START)
    expected, last = full_form(rule, masked)
    for full in expected:
        updates, state, losses = step(params, state, INPUTS, TARGETS)
        assert losses.shape == (4,)
        assert_trees_close(updates, full, 1e-5)
        params = jax.tree.map(lambda p, u: p - 0.1 * u, params, updates)
    assert_trees_close(state, last, 1e-5)


def test_low_memory_wants_a_vector(untyped):
    surgery = low_memory(lambda x: jnp.sum(x**2), PCGrad())
    with pytest.raises(ValueError, match=r"\[task\], got shape \(\)"):
        surgery.update(jnp.ones(2), surgery.init(jnp.ones(2)))
