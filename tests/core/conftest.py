"""What the tests of core/ share."""

import jax
import jax.numpy as jnp
import pytest

from jaxmeta import Experiment, Optimizer, Parallel
from jaxmeta.core.experiment import Checkpointing, Evaluation
from jaxmeta.core.progress import Progress
from jaxmeta.core.testing import smoke_learner, smoke_source


@pytest.fixture
def quiet():
    """Progress that shows nothing."""
    return Progress(1, quiet=True)


@pytest.fixture(scope="session")
def small_experiment():
    """`small_experiment(**changes)`: a run of a second on one device."""

    def make(**changes) -> Experiment:
        settings = {
            "learner": smoke_learner(),
            "source": smoke_source(),
            "optimizer": Optimizer(learning_rate=0.05),
            "parallel": Parallel(backend="vmap"),
            "evaluation": Evaluation(
                every=4, num_validation_tasks=6, num_test_tasks=10, tasks_per_batch=4
            ),
            "checkpoint": Checkpointing(every=4),
            "tasks_per_step": 4,
            "steps": 8,
            "log_every": 2,
        }
        return Experiment(**{**settings, **changes})

    return make


@pytest.fixture(scope="session")
def smoke_tasks():
    """`smoke_tasks(seed, n)`: a batch of n tasks of the smoke source."""
    draw = jax.jit(lambda key, slots: smoke_source().sample(key, slots, split="train"))
    return lambda seed, n: draw(jax.random.key(seed), jnp.arange(n))
