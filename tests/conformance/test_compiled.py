"""What the compiled step of every learner communicates, and where it can run."""

import re

import jax
import pytest

from jaxmeta.core.experiment import Experiment, Optimizer
from jaxmeta.core.fit import initial_state, make_advance

KEY = jax.random.key(0)


# Lowering puts descriptions of arguments where the types want arrays.
pytestmark = pytest.mark.usefixtures("untyped")


def _collectives(text):
    return set(
        re.findall(
            r"\b(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)",
            text,
        )
    )


@pytest.fixture(scope="session")
def traced(mean_step):
    """The mean step on four devices with sharded tasks, traced."""
    return mean_step.trace()


def test_the_mean_step_gathers_nothing(traced):
    """One all-reduce of the gradient is all that devices have to say."""
    assert _collectives(traced.lower().compile().as_text()) == {"all-reduce"}


def test_drawing_tasks_inside_jit_gathers_nothing(case):
    if case.name not in ("maml-mlp", "msr-conv", "maml-conv4"):
        pytest.skip("one learner for each source will do")
    experiment = Experiment(
        learner=case.learner,
        source=case.source,
        optimizer=Optimizer(learning_rate=1e-2),
        tasks_per_step=4,
    )
    state = initial_state(experiment)
    text = _compiled_scan(experiment, state)
    assert _collectives(text) == {"all-reduce"}


def _compiled_scan(experiment, state):
    """The program of `make_advance`, found by lowering what it closes over."""
    advance = make_advance(experiment)
    cells = dict(
        zip(
            advance.__code__.co_freevars,
            (cell.cell_contents for cell in advance.__closure__),
            strict=True,
        )
    )
    lowered = cells["compiled"].lower(
        state, cells["data"], cells["slots"], cells["root"], num_steps=2
    )
    return lowered.compile().as_text()


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_the_step_lowers_for_accelerators(platform, traced):
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert "all_reduce" in text


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_the_step_with_task_gradients_lowers_for_accelerators(surgery_step, platform):
    traced = surgery_step.trace()
    assert traced.lower(lowering_platforms=(platform,)).as_text()
