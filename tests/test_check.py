"""What is found before anything is run, and that nothing is."""

import dataclasses
import math

import jax
import pytest

from jaxmeta import Experiment, Maml, surgery
from jaxmeta.check import settle_and_check
from jaxmeta.core.experiment import Evaluation
from jaxmeta.core.objectives import cross_entropy
from jaxmeta.data.digit_groups import RotatedDigits
from jaxmeta.data.digit_tasks import TwoDigits
from jaxmeta.data.digits import Digits
from jaxmeta.data.rotation import RotationSource
from jaxmeta.data.translation import TranslationSource
from jaxmeta.multitask.hard_sharing import HardSharing
from jaxmeta.networks.conv import Conv4
from jaxmeta.networks.convnet import ConvNet
from jaxmeta.networks.mlp import MLP, Encoder
from jaxmeta.networks.norm_mlp import NormMLP
from jaxmeta.networks.patches import PatchConv
from jaxmeta.shift.adaptation import Adapting, BatchStatistics, ResetEvery, Tent
from jaxmeta.shift.arm_bn import ArmBn
from jaxmeta.shift.dann import Dann
from jaxmeta.shift.erm import Erm

EXPERIMENTS = {
    "digits": Experiment(
        learner=Maml(network=Conv4(features=3), objective=cross_entropy),
        source=Digits(image_size=84),
        tasks_per_step=4,
    ),
    "translation": Experiment(
        learner=Maml(network=MLP(features=(4998,))),
        source=TranslationSource(input_size=5000, rank=2),
    ),
    "rotation": Experiment(
        learner=Maml(network=PatchConv(features=24, kernel_size=(3, 3))),
        source=RotationSource(),
    ),
}


def on_devices():
    return sum(array.nbytes for array in jax.live_arrays())


@pytest.fixture(params=EXPERIMENTS)
def experiment(request):
    made = EXPERIMENTS[request.param]
    return dataclasses.replace(made, source=dataclasses.replace(made.source))


def test_checking_puts_no_data_on_a_device(experiment):
    before = on_devices()
    source = settle_and_check(experiment).source
    assert on_devices() - before <= 64  # keys
    source.load()
    assert on_devices() > before


def test_mistakes_are_found_without_data_on_a_device(experiment):
    misfit = dataclasses.replace(
        experiment, learner=Maml(network=MLP(features=(7, 7, 7)))
    )
    unknown = dataclasses.replace(
        experiment, evaluation=Evaluation(every=100, metric="F1")
    )
    before = on_devices()
    for wrong, words in ((misfit, "does not fit"), (unknown, r"must be one of .*'F1'")):
        with pytest.raises(ValueError, match=words):
            settle_and_check(wrong)
    assert on_devices() - before <= 64


def not_metrics(step):
    return {"loss": step.losses.mean()}


@pytest.mark.parametrize("measure", [math.sqrt, not_metrics, surgery.PCGrad])
def test_step_metrics_that_are_none(measure):
    wrong = dataclasses.replace(EXPERIMENTS["rotation"], step_metrics=measure)
    with pytest.raises(ValueError, match=r"step_metrics \w+ does not measure a step"):
        settle_and_check(wrong)


def test_step_metrics_that_fit():
    right = dataclasses.replace(
        EXPERIMENTS["rotation"], step_metrics=surgery.step_diagnostics
    )
    assert settle_and_check(right) == right


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_heads": 3}, r"num_heads must be 1 or 2, one a task .* got 3"),
        ({"head": MLP(features=(5,))}, r"at least 10 outputs, one a class, got 5"),
    ],
)
def test_heads_that_do_not_fit(changes, words):
    learner = HardSharing(
        **{"body": Encoder(features=(4,)), "head": MLP(features=(10,)), **changes}
    )
    source = TwoDigits(origin="digits")
    with pytest.raises(ValueError, match=words):
        settle_and_check(Experiment(learner=learner, source=source, tasks_per_step=4))


def test_a_class_without_an_output():
    experiment = Experiment(
        learner=Erm(network=ConvNet(num_classes=9, width=2)),
        source=RotatedDigits(points_per_set=2),
        tasks_per_step=4,
    )
    with pytest.raises(ValueError, match=r"at least 10 outputs, .* got 9"):
        settle_and_check(experiment)


def test_groups_that_a_learner_does_not_know():
    experiment = Experiment(
        learner=Dann(network=ConvNet(num_classes=10, width=2), num_groups=13),
        source=RotatedDigits(points_per_set=2),
        tasks_per_step=4,
    )
    with pytest.raises(ValueError, match=r"num_groups must be 14, .* got 13"):
        settle_and_check(experiment)


def test_last_sets_that_are_too_small_to_adapt_to():
    source = RotatedDigits(image_size=16, points_per_set=2)
    network = NormMLP(features=(2,), num_classes=10)
    last = source.sizes("test") % 2
    words = f"{last.sum()} of 14 test groups end in a set of fewer than 2"
    with pytest.warns(UserWarning, match=words):
        settle_and_check(Experiment(learner=ArmBn(network=network), source=source))
    # The adapter chooses the statistics, whatever ARM-BN alone would.
    one, two = (BatchStatistics(min_support=count) for count in (1, 2))
    adapting = Adapting(learner=ArmBn(network=network), adapter=one)
    settle_and_check(Experiment(learner=adapting, source=source))
    adapter = ResetEvery(adapter=Tent(statistics=two))
    adapting = dataclasses.replace(adapting, adapter=adapter)
    with pytest.warns(UserWarning, match=f"{words} .*BatchStatistics") as told:
        settle_and_check(Experiment(learner=adapting, source=source))
    assert len(told) == 1
    settle_and_check(Experiment(learner=Erm(network=network), source=source))
