"""Every learner with every aggregator: two steps on four devices."""

import numpy as np
import optax
import pytest

from jaxmeta import mean_over_tasks, sum_over_tasks
from jaxmeta.meta.meta_gradient import Reptile


def _explicit_mean():
    """The mean without its declaration, so that `[task, *p]` gradients exist."""
    return optax.GradientTransformationExtraArgs(*mean_over_tasks())


AGGREGATORS = {"sum": sum_over_tasks, "explicit-mean": _explicit_mean}
# What learners differ in, all of them meet in the mean and in PCGrad.
KINDS = ["maml-mlp-3-steps", "maml-conv4-support", "one-head", "shift-arm-cml-of-sets"]


def lowers_the_loss(step, learner):
    if getattr(learner, "meta_gradient", None) == Reptile():
        pytest.skip("Reptile descends no loss of the query")
    states, metrics, _ = step.repeat()
    losses = [float(now["loss"].compute()) for now in metrics]
    assert np.isfinite(losses).all()
    assert int(states[-1].skipped) == 0
    # Small steps down the gradient of these very tasks.
    assert losses[2] < losses[1] < losses[0]


def test_surgery_lowers_the_loss(case, surgery_step):
    lowers_the_loss(surgery_step, case.learner)


@pytest.mark.parametrize("aggregator", AGGREGATORS)
@pytest.mark.parametrize("case", KINDS, indirect=True)
def test_two_steps_of_one_of_a_kind(case, aggregator, make_step):
    lowers_the_loss(make_step(case, AGGREGATORS[aggregator]()), case.learner)


@pytest.mark.slow
@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_two_steps_lower_the_loss(case, aggregator, make_step):
    lowers_the_loss(make_step(case, AGGREGATORS[aggregator]()), case.learner)
