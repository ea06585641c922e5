"""What dispatch costs, and what remat costs, in CPU time."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.aggregate import sum_over_tasks
from jaxmeta.core.experiment import Experiment, Optimizer
from jaxmeta.core.fit import initial_state, make_advance
from jaxmeta.core.testing import assert_trees_close
from jaxmeta.core.train import LEARN, make_train_step, step_key
from jaxmeta.data.translation import TranslationSource
from jaxmeta.meta.maml import Maml
from jaxmeta.meta.meta_gradient import Unrolled
from jaxmeta.networks.mlp import MLP
from jaxmeta.symmetry.layers import MSRDense

SOURCE = TranslationSource(rank=1)
ROUNDS = 7


def median_ms(run, per):
    run()  # compiles and warms up
    spent = []
    for _ in range(ROUNDS):
        started = time.process_time()
        jax.block_until_ready(run())
        spent.append((time.process_time() - started) / per * 1e3)
    return float(np.median(spent))


def test_many_steps_in_one_scan_against_a_python_loop(table):
    num_steps = 50
    experiment = Experiment(
        learner=Maml(network=MSRDense(features=SOURCE.positions, inner_dim=3)),
        source=SOURCE,
        optimizer=Optimizer(aggregator=sum_over_tasks),
    )
    advance = make_advance(experiment)
    aggregator, tx = experiment.optimizer.make()
    step = jax.jit(make_train_step(experiment.learner, tx, aggregator))
    slots, root = jnp.arange(experiment.tasks_per_step), jax.random.key(0)
    sample = jax.jit(lambda key: SOURCE.sample(key, slots, split="train"))

    def loop():
        state = initial_state(experiment)
        for i in range(num_steps):
            tasks = sample(jax.random.fold_in(root, i))
            state, _ = step(state, tasks, step_key(root, LEARN, i))
        return state.params

    def scan():
        return advance(initial_state(experiment), num_steps)[0].params

    start = median_ms(lambda: initial_state(experiment).params, num_steps)
    looped, scanned = (median_ms(run, num_steps) - start for run in (loop, scan))
    table(
        "MSR-FC, 32 tasks, CPU ms per outer step",
        [
            ("one scan", "Python loop", "ratio"),
            (f"{scanned:.2f}", f"{looped:.2f}", f"{scanned / looped:.2f}"),
        ],
    )


def test_time_that_remat_costs(table):
    num_tasks = 8
    learner = Maml(network=MLP(features=(64, 64, SOURCE.positions)), inner_steps=10)
    tasks = SOURCE.sample(jax.random.key(0), jnp.arange(num_tasks), split="train")
    params, model_state = learner.init(jax.random.key(1), SOURCE.example)

    def gradient_of(learner):
        one = lambda params, task: learner.loss(
            params, model_state, task, jax.random.key(0)
        )[0]
        losses = jax.vmap(one, in_axes=(None, 0))
        total = jax.jit(jax.value_and_grad(lambda p: losses(p, tasks).sum()))
        return lambda: total(params)

    recomputed = gradient_of(learner)
    kept = gradient_of(
        dataclasses.replace(learner, meta_gradient=Unrolled(remat=False))
    )
    assert_trees_close(recomputed(), kept(), rtol=1e-3, atol=1e-4)  # float32
    slow, fast = (median_ms(run, 1) for run in (recomputed, kept))
    table(
        f"MLP, 10 inner steps, {num_tasks} tasks, CPU ms per meta-gradient",
        [
            ("with remat", "without", "ratio"),
            (f"{slow:.2f}", f"{fast:.2f}", f"{slow / fast:.2f}"),
        ],
    )
