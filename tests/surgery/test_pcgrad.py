import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gradvac, pcgrad_of_two
from oracles import pcgrad as literal
from scipy import stats

from jaxmeta.surgery import (
    GradVac,
    PCGrad,
    Tasks,
    UPGrad,
    aggregate_tasks,
    gram_matrix,
    pcgrad,
)
from jaxmeta.surgery.projection import project, random_orders


def random_cases(num_tasks, size, kind="plain", count=8):
    """`[case, task, D]` gradients and `[case, task, task]` orders."""
    rng = np.random.default_rng(num_tasks + 100 * size)
    grads = rng.standard_normal((count, num_tasks, size))
    if kind == "dead" and num_tasks > 1:
        grads[:, num_tasks // 2] = 0.0
    if kind == "opposed" and num_tasks > 1:
        grads[:, -1] = -2.0 * grads[:, 0]
    if kind == "scaled":
        grads *= 10.0 ** rng.uniform(-2, 2, (count, num_tasks, 1))
    orders = rng.permuted(
        np.broadcast_to(np.arange(num_tasks), (count, num_tasks, num_tasks)), axis=2
    )
    return grads, orders


@jax.jit
@jax.vmap
def in_gram_form(grads, orders):
    weights = project(gram_matrix(grads), orders)
    return weights, jnp.einsum("t,td->d", weights, grads, precision="highest")


def first_update(tx, grads):
    """One jitted step of an aggregator from its start."""
    return jax.jit(lambda grads: tx.update(grads, tx.init({}))[0])(grads)


def relative_errors(updates, grads, orders):
    expected = np.stack([literal(*case) for case in zip(grads, orders, strict=True)])
    errors = np.linalg.norm(np.asarray(updates, np.float64) - expected, axis=1)
    return errors / np.linalg.norm(grads, axis=(1, 2))


SHAPES = [(1, 5), (2, 5), (3, 2), (3, 7), (10, 4), (10, 40), (50, 20), (50, 200)]


@pytest.mark.parametrize(("num_tasks", "size"), SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("f4", 1e-6), ("f8", 1e-12)])
def test_gram_form_is_algorithm_1(num_tasks, size, dtype, tolerance):
    with jax.enable_x64(dtype == "f8"):
        count = 2 if num_tasks == 50 else 8
        for kind in ("plain", "dead", "opposed", "scaled"):
            grads, orders = random_cases(num_tasks, size, kind, count)
            grads = grads.astype(dtype)
            weights, updates = in_gram_form(grads, orders)
            assert updates.dtype == dtype
            assert relative_errors(updates, grads, orders).max() < tolerance, kind
            assert weights.min() >= 1.0


def group_key(seed, group=0, groups=1):
    """The key with which the first step of `aggregate_tasks` weighs a group."""
    _, now = jax.random.split(jax.random.key(seed))
    return jax.random.split(now, groups)[group]


def tree_of(rng, num_tasks):
    return {
        "matrix": jnp.asarray(rng.standard_normal((num_tasks, 3, 4)), jnp.float32),
        "scalar": jnp.asarray(rng.standard_normal(num_tasks), jnp.float32),
    }


def flat(tree, axes=1):
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([x.reshape(*x.shape[:axes], -1) for x in leaves], axis=-1)


def test_a_pytree_with_a_0_d_leaf():
    grads = tree_of(np.random.default_rng(0), 10)
    tx = pcgrad(7)
    updates = first_update(tx, grads)
    assert updates["scalar"].shape == ()
    expected = literal(flat(grads), random_orders(group_key(7), 10))
    np.testing.assert_allclose(flat(updates, 0), expected, rtol=0, atol=1e-5)


def test_a_single_0_d_leaf():
    grads = jnp.array([2.0, -1.0, 0.0, 3.0])
    tx = pcgrad(3)
    update = first_update(tx, grads)
    assert update.shape == ()
    expected = literal(grads[:, None], random_orders(group_key(3), 4))
    np.testing.assert_allclose(update, expected[0], atol=1e-6)


def test_bf16_keeps_its_type_and_is_exact_before_rounding():
    grads = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16), tree_of(np.random.default_rng(1), 10)
    )
    tx = pcgrad(7)
    updates = first_update(tx, grads)
    assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype(jnp.bfloat16)}
    expected = literal(flat(grads), random_orders(group_key(7), 10))
    # half a unit in the last of 8 bits, for each entry
    np.testing.assert_allclose(flat(updates, 0), expected, rtol=2.0**-8, atol=1e-5)


def test_exact_opposition_leaves_nothing():
    for scale in (1.0, 3.0, 1e-6, 1e6):
        g = jnp.array([1.0, -2.0, 0.5])
        tx = pcgrad(0)
        update = first_update(tx, jnp.stack([g, -scale * g]))
        assert np.abs(update).max() < 1e-6 * max(1.0, scale)


def test_a_task_never_meets_itself():
    angles = np.deg2rad([0.0, 120.0, 205.0])
    grads = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rows = list(itertools.permutations(range(3)))
    orders = np.array(list(itertools.product(rows, repeat=3)))
    grams = (grads @ grads.T).astype(np.float32)
    weights = jax.jit(jax.vmap(project, in_axes=(None, 0)))(grams, orders)
    updates = np.asarray(weights, np.float64) @ grads
    right = np.stack([literal(grads, order) for order in orders])
    wrong = np.stack([literal(grads, order, visit_self=True) for order in orders])
    np.testing.assert_allclose(updates, right, rtol=0, atol=1e-6)
    assert np.abs(right - wrong).max() > 0.03, "the case does not tell them apart"


def permutation_codes(num_keys):
    keys = jax.random.split(jax.random.key(0), num_keys)
    orders = np.asarray(jax.jit(jax.vmap(lambda k: random_orders(k, 3)))(keys))
    assert (np.sort(orders, axis=-1) == np.arange(3)).all()
    table = {order: n for n, order in enumerate(itertools.permutations(range(3)))}
    return np.array([[table[tuple(row)] for row in draw] for draw in orders.tolist()])


def test_orders_are_uniform_and_independent_per_row():
    codes = permutation_codes(6000)
    for row in codes.T:
        assert stats.chisquare(np.bincount(row, minlength=6)).pvalue > 1e-3
    for a, b in ((0, 1), (0, 2), (1, 2)):
        joint = np.bincount(6 * codes[:, a] + codes[:, b], minlength=36)
        assert stats.chisquare(joint).pvalue > 1e-3
    all_three = np.bincount(codes @ np.array([36, 6, 1]), minlength=216)
    assert stats.chisquare(all_three).pvalue > 1e-3


def test_every_step_draws_new_orders():
    grads = jnp.asarray(np.random.default_rng(5).standard_normal((6, 3)), jnp.float32)
    tx = pcgrad(0)
    update = jax.jit(tx.update)
    state, seen = tx.init(jnp.zeros(3)), []
    for _ in range(8):
        step, state = update(grads, state)
        seen.append(tuple(np.asarray(step).round(4).tolist()))
    assert len(set(seen)) > 4


def test_weigh_draws_its_orders_from_the_key():
    grads, _ = random_cases(6, 3)
    g = gram_matrix(jnp.asarray(grads[0], jnp.float32))
    tasks = Tasks(g, jnp.full(6, jnp.nan), jnp.arange(6))
    key = jax.random.key(11)
    weights, _ = jax.jit(PCGrad().weigh)(tasks, (), key)
    np.testing.assert_allclose(weights, project(g, random_orders(key, 6)), rtol=1e-6)


def test_two_tasks_are_the_closed_form_and_upgrad():
    grads, orders = random_cases(2, 3, count=100)
    grads = grads.astype("f4")
    _, updates = in_gram_form(grads, orders)
    closed = np.stack([pcgrad_of_two(*pair.astype("f8")) for pair in grads])
    scale = np.linalg.norm(grads, axis=(1, 2))[:, None]
    np.testing.assert_allclose(updates / scale, closed / scale, atol=1e-6)
    weights = jax.jit(jax.vmap(lambda g: UPGrad().of_gram(gram_matrix(g))))(grads)
    upgrad = np.einsum("nt,ntd->nd", weights, grads)
    np.testing.assert_allclose(updates / scale, upgrad / scale, atol=2e-5)


def test_without_conflict_it_is_exactly_the_sum():
    rng = np.random.default_rng(0)
    grads = jnp.asarray(np.abs(rng.standard_normal((5, 40))), jnp.float32)
    orders = random_orders(jax.random.key(0), 5)
    assert project(gram_matrix(grads), orders).tolist() == [1.0] * 5
    tx = pcgrad(0)
    update = first_update(tx, grads)
    plain = jnp.einsum("t,td->d", jnp.ones(5), grads, precision="highest")
    assert update.tolist() == plain.tolist()


def test_orthogonal_gradients_are_no_conflict():
    orders = random_orders(jax.random.key(0), 4)
    assert project(jnp.eye(4), orders).tolist() == [1.0] * 4


@pytest.mark.parametrize("scale", [1e-10, 1e-3, 1e10])
def test_homogeneous_of_degree_1(scale):
    grads, orders = random_cases(10, 4)
    grads = grads.astype("f4")
    weights, updates = in_gram_form(grads, orders)
    again, scaled = in_gram_form((grads * np.float32(scale)).astype("f4"), orders)
    np.testing.assert_allclose(again, weights, rtol=2e-5)
    size = np.linalg.norm(grads, axis=(1, 2))[:, None]
    np.testing.assert_allclose(scaled / scale / size, updates / size, atol=1e-6)


def test_a_power_of_two_changes_no_bit():
    grads, orders = random_cases(10, 4)
    weights, _ = in_gram_form(grads.astype("f4"), orders)
    again, _ = in_gram_form((grads * 2.0**-30).astype("f4"), orders)
    assert again.tolist() == weights.tolist()


def test_rotation_rotates_the_update():
    grads, orders = random_cases(10, 6)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))
    _, updates = in_gram_form(grads.astype("f4"), orders)
    _, rotated = in_gram_form((grads @ rotation).astype("f4"), orders)
    np.testing.assert_allclose(rotated, updates @ rotation, atol=2e-5)


def test_relabelling_relabels_the_weights():
    grads, orders = random_cases(10, 6)
    new = np.random.default_rng(0).permutation(10)  # row i is the old task new[i]
    old_to_new = np.argsort(new)
    weights, _ = in_gram_form(grads.astype("f4"), orders)
    relabelled, _ = in_gram_form(grads[:, new].astype("f4"), old_to_new[orders[:, new]])
    np.testing.assert_allclose(relabelled, weights[:, new], rtol=1e-5)


def test_mean_divides_by_the_tasks_that_are_there():
    grads = jnp.asarray(np.random.default_rng(2).standard_normal((6, 4)), jnp.float32)
    grads = grads.at[jnp.array([1, 4])].set(0.0)
    updates = {}
    for reduction in ("sum", "mean"):
        tx = pcgrad(0, reduction=reduction)
        updates[reduction] = first_update(tx, grads)
    np.testing.assert_allclose(updates["mean"], updates["sum"] / 4, rtol=1e-6)


def test_an_absent_task_changes_nothing():
    grads, orders = random_cases(5, 3, "dead")
    live = [0, 1, 3, 4]
    number = {task: n for n, task in enumerate(live)}
    short = np.array(
        [[[number[j] for j in case[i] if j != 2] for i in live] for case in orders]
    )
    _, updates = in_gram_form(grads.astype("f4"), orders)
    _, without = in_gram_form(grads[:, live].astype("f4"), short)
    np.testing.assert_allclose(updates, without, atol=1e-5)


def test_all_tasks_absent_is_an_update_of_zero():
    for reduction in ("sum", "mean"):
        tx = pcgrad(0, reduction=reduction)
        update = first_update(tx, jnp.zeros((3, 2)))
        assert update.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_task_that_is_not_finite_spoils_the_whole_update(bad):
    grads = {"a": jnp.ones((3, 4)), "b": jnp.ones((3, 2))}
    grads["b"] = grads["b"].at[1, 0].set(bad)
    tx = pcgrad(0)
    updates = first_update(tx, grads)
    assert not np.isfinite(flat(updates, 0)).any()


def test_pcgrad_is_aggregate_tasks_with_pcgrad():
    grads, _ = random_cases(6, 3)
    grads = jnp.asarray(grads[0], jnp.float32)
    ours = first_update(pcgrad(5), grads)
    theirs = first_update(aggregate_tasks(PCGrad(), 5), grads)
    assert ours.tolist() == theirs.tolist()


def test_an_unknown_reduction_is_refused(untyped):
    for make in (lambda: PCGrad(reduction="max"), lambda: pcgrad(0, reduction="max")):  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match="'sum' or 'mean', got 'max'"):
            make()


@pytest.mark.parametrize(("dtype", "tolerance"), [("f4", 3e-6), ("f8", 1e-12)])
def test_gradvac_is_algorithm_1_of_its_paper(dtype, tolerance):
    rule = GradVac(num_tasks=7, decay=0.3)
    rng = np.random.default_rng(0)
    with jax.enable_x64(dtype == "f8"):
        state = jax.tree.map(lambda x: x.astype(dtype), rule.init())
        target = np.zeros((7, 7))
        weigh = jax.jit(rule.weigh)
        for step in range(6):
            ids = rng.permutation(7)[:5]
            # a common part: averages become positive, so that agreement meets a target
            grads = rng.standard_normal((5, 6)) + rng.standard_normal(6)
            grads[step % 5] *= step != 3  # a task is absent once
            grads = grads.astype(dtype)
            key = jax.random.key(step)
            tasks = Tasks(
                gram_matrix(jnp.asarray(grads)), jnp.full(5, jnp.nan), jnp.asarray(ids)
            )
            weights, state = weigh(tasks, state, key)
            orders = np.asarray(random_orders(key, 5))
            expected, target = gradvac(grads, orders, target, ids, 0.3)
            size = np.linalg.norm(grads)
            got = np.asarray(weights, np.float64) @ grads
            assert np.abs(got - expected).max() < tolerance * size
            np.testing.assert_allclose(state, target, rtol=0, atol=10 * tolerance)
