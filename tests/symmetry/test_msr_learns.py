"""MSR finds translation in data, end to end; the same network without U cannot.

Signals of length 20 rather than the published 70: the same story in a quarter of the
steps. One support example, one inner step, as published.
"""

import functools

import jax
import pytest

from jaxmeta.core.aggregate import sum_over_tasks
from jaxmeta.core.evaluate import evaluate
from jaxmeta.core.experiment import Experiment, Optimizer
from jaxmeta.core.fit import initial_state, make_advance
from jaxmeta.core.parallel import Parallel
from jaxmeta.data.translation import TranslationSource
from jaxmeta.meta.maml import Maml
from jaxmeta.networks.mlp import MLP
from jaxmeta.symmetry.floor import one_step_floor
from jaxmeta.symmetry.groups import translation_sharing
from jaxmeta.symmetry.layers import MSRDense
from jaxmeta.symmetry.structure import explained_sharing

SOURCE = TranslationSource(input_size=20)
# One device: four that share two cores spend their time waiting for each other.
ALONE = Parallel(backend="vmap")


@functools.cache
def trained(network):
    """Meta-parameters after 600 outer steps, and their error on held-out tasks."""
    experiment = Experiment(
        learner=Maml(network=network),
        source=SOURCE,
        # Three times the published rate, for a problem a quarter of its size.
        optimizer=Optimizer(aggregator=sum_over_tasks, learning_rate=3e-3),
        parallel=ALONE,
    )
    state, _ = make_advance(experiment)(initial_state(experiment), 600)
    result = evaluate(
        experiment.learner,
        state.params,
        state.model_state,
        SOURCE,
        key=jax.random.key(1),
        num_tasks=2000,
        parallel=ALONE,
    )
    return state.params, result["loss"]


@pytest.fixture(scope="module")
def msr():
    return trained(MSRDense(features=SOURCE.positions, inner_dim=3))


@pytest.fixture(scope="module")
def maml():
    return trained(MLP(features=(SOURCE.positions,), use_bias=False))


def test_msr_comes_near_the_one_step_floor(msr):
    _, error = msr
    assert error.mean < 1.3 * one_step_floor(SOURCE)
    assert error.high < 1.4 * one_step_floor(SOURCE)


def test_msr_recovers_the_sharing_of_a_convolution(msr):
    params, _ = msr
    learned = params["slow"]["symmetry"]["U"]
    true = translation_sharing(SOURCE.input_size, SOURCE.kernel_size)
    assert explained_sharing(learned, true) > 0.98


def test_msr_learns_a_larger_inner_rate(msr):
    # It starts at 0.1, where the step of one example is far too short.
    params, _ = msr
    assert params["rates"]["v"] > 0.2


def test_maml_without_the_symmetry_answers_zero(maml):
    _, error = maml
    assert error.mean == pytest.approx(SOURCE.zero_error, rel=0.1)
