"""One training, several methods at test time."""

import dataclasses

import pytest

from jaxmeta.core.experiment import Evaluation, Experiment
from jaxmeta.core.fit import complete, measure, result
from jaxmeta.core.progress import Progress
from jaxmeta.core.run import Run
from jaxmeta.core.testing import SmokeLearner, smoke_source
from jaxmeta.core.transfer import Transfer
from jaxmeta.core.writers import Writers


@pytest.fixture
def experiment():
    return Experiment(
        learner=SmokeLearner(),
        source=smoke_source(),
        steps=4,
        log_every=2,
        evaluation=Evaluation(num_test_tasks=8, tasks_per_batch=8),
    )


def _perform(work, directory):
    run = Run.open(directory, work)
    return complete(run, Writers(()), Progress(work.steps, quiet=True))


def test_a_transfer_tests_what_was_trained_beside_it(tmp_path, experiment):
    _perform(experiment, tmp_path / "trained-run")
    other = SmokeLearner(inner_rate=0.4)
    found = _perform(Transfer(trained=experiment, learner=other), tmp_path / "other")
    assert not (tmp_path / "other" / "trained").exists()
    # By hand: the checkpoint, with the other learner, on the same tasks.
    run = Run(tmp_path / "trained-run", dataclasses.replace(experiment, learner=other))
    assert found["loss"].mean == pytest.approx(measure(run)["loss"].mean(), rel=1e-6)
    own = result(Run.load(tmp_path / "trained-run"))
    assert found["loss"].mean != pytest.approx(own["loss"].mean, rel=1e-3)


def test_a_transfer_trains_where_nothing_was_trained(tmp_path, experiment):
    same = Transfer(trained=experiment, learner=experiment.learner)
    alone = _perform(same, tmp_path / "a" / "alone")
    whole = _perform(experiment, tmp_path / "b" / "whole")
    assert alone == whole


def test_a_transfer_does_not_take_another_experiment(tmp_path, experiment):
    _perform(dataclasses.replace(experiment, seed=1), tmp_path / "seed1")
    same = Transfer(trained=experiment, learner=experiment.learner)
    _perform(same, tmp_path / "seed0")
    assert (tmp_path / "seed0" / "trained" / "config.json").is_file()
