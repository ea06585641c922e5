from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest

from jaxmeta import init_state, make_train_step
from jaxmeta.core.testing import smoke_learner, smoke_source
from jaxmeta.surgery import (
    DWA,
    FAMO,
    QFFL,
    GradNorm,
    GroupDRO,
    Tasks,
    Uncertainty,
    UpWeighting,
    aggregate_tasks,
)

NUM = 5
ALL_SHUFFLED = [[3, 0, 4, 1, 2], [1, 2, 0, 4, 3], [4, 3, 2, 1, 0], [0, 2, 4, 1, 3]] * 2
SUBSETS = [[3, 0, 4], [1, 4, 0], [2, 1, 3], [4, 2, 0], [0, 1, 2], [3, 4, 2]]
REPEATED = [[3, 3, 0], [1, 4, 1], [2, 2, 2], [0, 4, 3], [4, 4, 0]]
IDS = {"shuffled": ALL_SHUFFLED, "subset": SUBSETS}


def steps(schedule, seed=0):
    """`(ids, losses)` of every step; losses that fall at a rate of their own."""
    rng = np.random.default_rng(seed)
    rates, start = rng.uniform(0.5, 1.0, NUM), rng.uniform(0.5, 3.0, NUM)
    for n, ids in enumerate(schedule):
        noise = rng.uniform(0.9, 1.1, len(ids))
        yield np.array(ids), (start * rates**n)[np.array(ids)] * noise


def run(rule, reference, schedule):
    """Both, step by step: all weights must agree."""
    weigh = jax.jit(rule.weigh)
    state = rule.init()
    for ids, losses in steps(schedule):
        size = len(ids)
        tasks = Tasks(
            jnp.full((size, size), jnp.nan),
            jnp.asarray(losses, jnp.float32),
            jnp.asarray(ids),
        )
        weights, state = weigh(tasks, state, jax.random.key(0))
        np.testing.assert_allclose(weights, reference(losses, ids), rtol=2e-5)
    return state


@pytest.mark.parametrize("schedule", IDS)
def test_kendall(schedule):
    rule = Uncertainty(num_tasks=NUM, learning_rate=0.3)
    reference = oracles.Kendall(NUM, 0.3, -0.5)
    state = run(rule, reference, IDS[schedule])
    np.testing.assert_allclose(np.asarray(state), reference.log_variance, rtol=1e-4)


@pytest.mark.parametrize("schedule", IDS)
@pytest.mark.parametrize("steps_per_epoch", [1, 2])
def test_dwa(schedule, steps_per_epoch):
    rule = DWA(num_tasks=NUM, steps_per_epoch=steps_per_epoch, temperature=0.5)
    reference = oracles.DynamicWeightAverage(NUM, steps_per_epoch, 0.5)
    run(rule, reference, IDS[schedule])


def test_dwa_averages_an_epoch_in_which_tasks_repeat():
    rule = DWA(num_tasks=NUM, steps_per_epoch=3, temperature=0.5)
    run(rule, oracles.DynamicWeightAverage(NUM, 3, 0.5), REPEATED * 3)


@pytest.mark.parametrize("schedule", [*IDS, "repeated"])
def test_group_dro(schedule):
    rule = GroupDRO(num_tasks=NUM, step_size=0.7)
    reference = oracles.GroupDRO(NUM, 0.7)
    q = run(rule, reference, {**IDS, "repeated": REPEATED}[schedule])
    np.testing.assert_allclose(q, reference.q, rtol=1e-5)
    assert float(q.sum()) == pytest.approx(1.0, abs=1e-6)


def test_group_dro_survives_large_losses():
    rule = GroupDRO(num_tasks=2, step_size=1.0)
    tasks = Tasks(jnp.eye(2), jnp.array([1000.0, 0.0]), jnp.arange(2))
    weights, q = rule.weigh(tasks, rule.init(), jax.random.key(0))
    np.testing.assert_allclose(weights, [1.0, 0.0], atol=1e-6)
    assert np.isfinite(q).all()


@pytest.mark.parametrize("q", [0.0, 0.5, 2.0])
def test_q_ffl(q):
    run(QFFL(q=q), lambda losses, ids: oracles.q_ffl(losses, q), SUBSETS)


def test_q_ffl_of_a_loss_of_zero():
    tasks = Tasks(jnp.eye(2), jnp.array([0.0, 2.0]), jnp.arange(2))
    weights, _ = QFFL(q=0.5).weigh(tasks, (), jax.random.key(0))
    np.testing.assert_allclose(weights, [0.0, 2.0**0.5 / 2], rtol=1e-6)


def test_up_weighting():
    sizes = (10, 20, 30, 40, 900)
    rule = UpWeighting(sizes=sizes)
    run(rule, lambda losses, ids: oracles.up_weighting(ids, sizes), REPEATED)


@pytest.mark.parametrize("schedule", IDS)
def test_gradnorm(schedule):
    rng = np.random.default_rng(1)
    rule = GradNorm(num_tasks=NUM, alpha=1.5, learning_rate=0.02)
    reference = oracles.GradNorm(NUM, 1.5, 0.02)
    weigh, state = jax.jit(rule.weigh), rule.init()
    for ids, losses in steps(IDS[schedule]):
        grads = rng.standard_normal((len(ids), 4)) * rng.uniform(0.5, 2, (len(ids), 1))
        tasks = Tasks(
            jnp.asarray(grads @ grads.T, jnp.float32),
            jnp.asarray(losses, jnp.float32),
            jnp.asarray(ids),
        )
        weights, state = weigh(tasks, state, jax.random.key(0))
        expected = reference(np.linalg.norm(grads, axis=1), losses, ids)
        np.testing.assert_allclose(weights, expected, rtol=1e-4)
    np.testing.assert_allclose(state.weights, reference.weights, rtol=1e-4)
    assert (state.weights > 0).all()


@pytest.mark.parametrize("schedule", IDS)
def test_famo(schedule):
    rng = np.random.default_rng(1)
    rule = FAMO(num_tasks=NUM, learning_rate=0.1, decay=0.01)
    reference = oracles.FAMO(NUM, 0.1, 0.01)
    weigh, observe, state = jax.jit(rule.weigh), jax.jit(rule.observe), rule.init()
    for ids, losses in steps(IDS[schedule]):
        tasks = Tasks(
            jnp.eye(len(ids)), jnp.asarray(losses, jnp.float32), jnp.asarray(ids)
        )
        weights, state = weigh(tasks, state, jax.random.key(0))
        np.testing.assert_allclose(weights, reference(losses, ids), rtol=1e-4)
        assert float(weights.sum()) == pytest.approx(1.0, abs=1e-5)
        after = losses * rng.uniform(0.6, 1.0, len(ids))
        state = observe(state, jnp.asarray(after, jnp.float32), jnp.asarray(ids))
        reference.observe(losses, after, ids)
        np.testing.assert_allclose(state.logits, reference.logits, rtol=1e-3, atol=1e-5)


LOSS_RULES = [
    Uncertainty(num_tasks=NUM),
    DWA(num_tasks=NUM),
    GroupDRO(num_tasks=NUM),
    QFFL(),
    GradNorm(num_tasks=NUM),
    FAMO(num_tasks=NUM),
]


@pytest.mark.parametrize("rule", LOSS_RULES, ids=lambda rule: type(rule).__name__)
def test_missing_losses_are_an_error_that_says_so(rule):
    tx = aggregate_tasks(rule)
    with pytest.raises(ValueError, match="task_losses"):
        tx.update(jnp.ones((NUM, 2)), tx.init(jnp.zeros(2)), jnp.zeros(2))


SUBSETS_OF_4 = ((3, 0, 4, 1), (2, 1, 3, 0), (0, 4, 2, 1), (1, 3, 2, 4))
ORDERS_OF_4 = ((3, 0, 2, 1), (2, 1, 3, 0), (0, 3, 2, 1), (1, 3, 2, 0))


def batches(schedule):
    for n, ids in enumerate(schedule):
        tasks = smoke_source().sample(jax.random.key(n), jnp.arange(4), split="train")
        yield tasks._replace(task_id=jnp.array(ids))


def trained(tx, aggregator, learner, schedule):
    key = jax.random.key(0)
    state = init_state(learner, tx, aggregator, key=key, example=smoke_source().example)
    step = jax.jit(make_train_step(learner, tx, aggregator))
    for tasks in batches(schedule):
        state, metrics = step(state, tasks, key)
        assert float(metrics["skipped"].compute()) == 0.0
    return state


@pytest.mark.parametrize(
    "rule",
    [
        Uncertainty(num_tasks=NUM, learning_rate=0.3),
        GroupDRO(num_tasks=NUM, step_size=0.5),
        QFFL(),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_one_backward_pass_is_the_explicit_path(rule):
    learner = smoke_learner()
    one_pass = trained(optax.sgd(0.1), aggregate_tasks(rule), learner, SUBSETS_OF_4)
    explicit = trained(
        optax.chain(aggregate_tasks(rule), optax.sgd(0.1)), None, learner, SUBSETS_OF_4
    )
    for a, b in zip(
        jax.tree.leaves(one_pass.params), jax.tree.leaves(explicit.params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_famo_in_the_harness_sees_the_losses_after_the_step():
    learner, rate = smoke_learner(), 0.1
    rule = FAMO(num_tasks=4, learning_rate=0.1)
    state = trained(optax.sgd(rate), aggregate_tasks(rule), learner, ORDERS_OF_4)

    reference = oracles.FAMO(4, 0.1, rule.decay)
    key = jax.random.key(0)
    params = learner.init(key, smoke_source().example)[0]

    @jax.jit
    def losses_and_grads(params, tasks):
        loss = lambda p, task: learner.loss(p, (), task, key)[0]
        return jax.vmap(jax.value_and_grad(loss), in_axes=(None, 0))(params, tasks)

    for tasks in batches(ORDERS_OF_4):
        ids = np.asarray(tasks.task_id)
        losses, grads = losses_and_grads(params, tasks)
        before = np.asarray(losses, np.float64)
        weights = reference(before, ids)
        params = jax.tree.map(
            lambda p, g, w=weights: (
                p - rate * np.tensordot(w, np.asarray(g), axes=1).astype("f4")
            ),
            params,
            grads,
        )
        after = np.asarray(losses_and_grads(params, tasks)[0], np.float64)
        reference.observe(before, after, ids)
    for a, b in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_famo_in_a_chain_needs_the_losses_after_the_step():
    tx = aggregate_tasks(FAMO(num_tasks=2))
    grads, losses = jnp.eye(2), jnp.ones(2)
    with pytest.raises(ValueError, match="task_losses_after"):
        tx.update(grads, tx.init(jnp.zeros(2)), task_losses=losses)


@pytest.mark.parametrize("rule", [QFFL(), GroupDRO(num_tasks=3)], ids=repr)
def test_mask_and_granularity_are_refused(rule):
    cases: list[Any] = [{"mask": {"a": True}}, {"granularity": "leaf"}]
    for options in cases:
        with pytest.raises(ValueError, match="neither mask nor granularity"):
            aggregate_tasks(rule, **options)
