"""Every learner with every aggregator: two steps on four devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import (
    Parallel,
    init_state,
    make_train_step,
    mean_over_tasks,
    sum_over_tasks,
    surgery,
)
from jaxmeta.meta.meta_gradient import Reptile

KEY = jax.random.key(0)
ALL = Parallel()


def _explicit_mean():
    """The mean without its declaration, so that `[task, *p]` gradients exist."""
    return optax.GradientTransformationExtraArgs(*mean_over_tasks())


AGGREGATORS = {
    "mean": mean_over_tasks,
    "sum": sum_over_tasks,
    "explicit-mean": _explicit_mean,
    "pcgrad": functools.partial(surgery.pcgrad, 0),
}


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_two_steps_lower_the_loss(case, aggregator):
    if getattr(case.learner, "meta_gradient", None) == Reptile():
        pytest.skip("Reptile descends no loss of the query")
    made, tx = AGGREGATORS[aggregator](), optax.sgd(1e-3)
    state = init_state(case.learner, tx, made, key=KEY, example=case.source.example)
    state = ALL.replicate(state)
    tasks = case.source.sample(KEY, jnp.arange(4), split="train")
    tasks = ALL.split_rows(tasks)
    step = jax.jit(make_train_step(case.learner, tx, made, parallel=ALL))
    losses = []
    for _ in range(3):
        state, metrics = step(state, tasks, KEY)
        losses.append(float(metrics["loss"].compute()))
    assert np.isfinite(losses).all()
    assert int(state.skipped) == 0
    # Small steps down the gradient of these very tasks.
    assert losses[2] < losses[1] < losses[0]
