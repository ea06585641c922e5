"""Surgery in the harness: steps, backends, checkpoints, feedback after the step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import (
    Experiment,
    Optimizer,
    Parallel,
    fit,
    init_state,
    make_train_step,
    surgery,
)
from jaxmeta.core.experiment import Checkpointing
from jaxmeta.core.progress import Progress
from jaxmeta.core.run import Run
from jaxmeta.core.testing import (
    assert_trees_close,
    compilations,
    smoke_learner,
    smoke_source,
)
from jaxmeta.core.writers import JsonlWriter

KEY, NUM_TASKS = jax.random.key(0), 8
LEARNER, SOURCE = smoke_learner(), smoke_source()


def trained(aggregator, tx, *, parallel, num_steps=3):
    """The state after some steps, on the first tasks again and again."""
    state = init_state(LEARNER, tx, aggregator, key=KEY, example=SOURCE.example)
    tasks = SOURCE.sample(KEY, jnp.arange(NUM_TASKS), split="train")
    tasks = tasks._replace(task_id=jnp.arange(NUM_TASKS))
    state, tasks = parallel.replicate(state), parallel.split_rows(tasks)
    step = jax.jit(make_train_step(LEARNER, tx, aggregator, parallel=parallel))
    for i in range(num_steps):
        key = jax.random.fold_in(KEY, i)
        with compilations() as compiled:
            state, _ = step(state, tasks, key)
    assert compiled == []
    assert int(state.skipped) == 0
    return state


WEIGHTINGS = {
    "pcgrad": surgery.PCGrad(),
    "gradvac": surgery.GradVac(num_tasks=NUM_TASKS),
    "upgrad": surgery.UPGrad(),
    "group-dro": surgery.GroupDRO(num_tasks=NUM_TASKS),
    "famo": surgery.FAMO(num_tasks=NUM_TASKS),
}


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_one_device_and_four_agree(name):
    aggregator = surgery.aggregate_tasks(WEIGHTINGS[name])
    alone, together = (
        trained(aggregator, optax.sgd(0.01), parallel=Parallel(backend=backend))
        for backend in ("vmap", "shard_map")
    )
    assert_trees_close(alone.params, together.params, rtol=1e-5, atol=1e-6)


def test_first_link_and_argument_are_the_same():
    aggregator, parallel = surgery.pcgrad(KEY), Parallel()
    argument = trained(aggregator, optax.sgd(0.01), parallel=parallel)
    chain = optax.chain(aggregator, optax.sgd(0.01))
    link = trained(None, chain, parallel=parallel)
    assert_trees_close(link.params, argument.params, rtol=1e-6, atol=1e-7)


def test_famo_sees_the_losses_after_the_step():
    rule = surgery.FAMO(num_tasks=NUM_TASKS)
    parallel = Parallel(backend="vmap")
    state = trained(surgery.aggregate_tasks(rule), optax.sgd(0.01), parallel=parallel)

    tasks = SOURCE.sample(KEY, jnp.arange(NUM_TASKS), split="train")
    ids, famo = jnp.arange(NUM_TASKS), rule.init()
    params, model_state = LEARNER.init(KEY, SOURCE.example)
    fresh = init_state(LEARNER, optax.sgd(0.01), None, key=KEY, example=SOURCE.example)
    params = fresh.params

    def losses_of(params, i):
        now = jax.random.fold_in(KEY, i)
        keys = jax.vmap(functools.partial(jax.random.fold_in, now))
        loss = lambda task, key: LEARNER.loss(params, model_state, task, key)[0]
        return jax.vmap(loss)(tasks, keys(ids))

    for i in range(3):
        losses = losses_of(params, i)
        no_gram = jnp.eye(NUM_TASKS)
        weights, famo = rule.weigh(surgery.Tasks(no_gram, losses, ids), famo, KEY)
        grads = jax.grad(lambda p, i=i, w=weights: w @ losses_of(p, i))(params)
        params = jax.tree.map(lambda p, g: p - 0.01 * g, params, grads)
        famo = rule.observe(famo, losses_of(params, i), ids)
    assert_trees_close(state.params, params, rtol=1e-5, atol=1e-6)
    logits = state.opt_state[0].groups.logits
    np.testing.assert_allclose(logits, famo.logits, rtol=1e-3, atol=1e-5)
    assert np.ptp(logits) > 0.01


def test_famo_as_a_link_asks_for_what_it_needs():
    tx = surgery.aggregate_tasks(surgery.FAMO(num_tasks=2))
    grads, losses = jnp.ones((2, 3)), jnp.ones(2)
    with pytest.raises(ValueError, match=r"needs task_losses_after=.*aggregator="):
        tx.update(grads, tx.init(None), task_losses=losses)
    state = tx.init(None)
    _, state = tx.update(
        grads, state, task_losses=losses, task_losses_after=jnp.full(2, jnp.nan)
    )
    after = jnp.array([0.1, 0.9])
    _, state = tx.update(grads, state, task_losses=after, task_losses_after=after)
    assert bool(state.groups.logits[0] < state.groups.logits[1])


def test_a_run_with_random_orders_resumes_to_the_same_bits(tmp_path):
    def run(directory, steps):
        experiment = Experiment(
            learner=LEARNER,
            source=SOURCE,
            optimizer=Optimizer(
                aggregator=functools.partial(surgery.pcgrad, key=7),
                transform=optax.sgd,
                learning_rate=0.01,
            ),
            checkpoint=Checkpointing(every=2),
            tasks_per_step=NUM_TASKS,
            steps=steps,
            log_every=2,
        )
        run = Run(tmp_path / directory, experiment)
        run.directory.mkdir(exist_ok=True)
        writer = JsonlWriter(run.metrics_path)
        state = fit(run, writer, Progress(steps, quiet=True))
        writer.close()
        return state

    whole = run("whole", 4)
    run("halves", 2)
    resumed = run("halves", 4)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
