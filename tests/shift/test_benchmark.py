"""Every row of a table is trained as the protocol says, and in nothing else differs."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta.core.config import from_json, to_json
from jaxmeta.data.digit_groups import RotatedDigits
from jaxmeta.data.groups import Sampler
from jaxmeta.shift.adaptation import Adapting, BatchStatistics
from jaxmeta.shift.arm_bn import ArmBn
from jaxmeta.shift.arm_cml import ArmCml
from jaxmeta.shift.arm_ll import ArmLl
from jaxmeta.shift.benchmark import Protocol, weighted_by_size, worst_group
from jaxmeta.shift.dann import Dann
from jaxmeta.shift.erm import Erm
from jaxmeta.shift.fed_avg import LocalSgd
from jaxmeta.shift.mmd import Mmd

PROTOCOL = Protocol(
    source=RotatedDigits(points_per_set=10),
    groups_per_step=4,
    width=2,
    steps=60,
    evaluations=3,
    client_sets=3,
    one_by_one=True,
)


ROWS = [
    ("ERM", Erm, "point", 4, 1),
    ("UW", Erm, "point_balanced", 4, 1),
    ("DRNN", Erm, "point_balanced", 4, 1),
    ("DANN", Dann, "point", 4, 1),
    ("MMD", Mmd, "group", 4, 1),
    ("ARM-CML", ArmCml, "group", 4, 1),
    ("ARM-BN", ArmBn, "group", 4, 1),
    ("ARM-LL", ArmLl, "group", 1, 4),
    ("ARM-BN, mixed groups", ArmBn, "point", 4, 1),
    ("ARM-LL, mixed groups", ArmLl, "point", 1, 4),
    ("q-FedAvg", LocalSgd, "client", 3, 4),
]
SAMPLERS = {row: sampler for row, _, sampler, *_ in ROWS}


@pytest.mark.parametrize(("row", "learner", "sampler", "sets", "tasks"), ROWS)
def test_rows(row, learner, sampler, sets, tasks):
    experiment = PROTOCOL.experiment(row, 5)
    source = experiment.source
    assert type(experiment.learner) is learner
    assert (source.sampler, source.sets_per_task) == (sampler, sets)
    assert (experiment.tasks_per_step, experiment.seed) == (tasks, 5)
    assert source.points_per_set == 10
    assert experiment.evaluation.over_tasks == "worst"
    assert experiment.evaluation.checkpoint == "best"
    # 14 groups; the largest has 127 points to test and 86 to validate.
    assert experiment.evaluation.num_test_tasks == 14 * 13
    assert experiment.evaluation.num_validation_tasks == 14 * 9
    assert to_json(from_json(to_json(experiment))) == to_json(experiment)


def test_all_rows_see_as_many_points():
    for row in ("ERM", "ARM-BN", "ARM-LL", "q-FedAvg"):
        experiment = PROTOCOL.experiment(row, 0)
        source = experiment.source
        points = source.sets_per_task * source.points_per_set
        assert experiment.steps * experiment.tasks_per_step * points == 60 * 4 * 10


def test_the_networks_are_the_papers():
    large = PROTOCOL.experiment("ARM-BN", 0).learner.network
    assert large == PROTOCOL.experiment("ERM", 0).learner.network
    assert large.large
    assert not PROTOCOL.experiment("ARM-CML", 0).learner.network.large
    federated = PROTOCOL.experiment("q-FedAvg", 0)
    assert federated.learner.learner.network.norm == "group"
    assert federated.optimizer.transform is optax.sgd


def test_an_adapted_row_is_trained_as_the_row_it_adapts():
    adapted = PROTOCOL.adapted("ERM", BatchStatistics(), 2)
    assert adapted.trained == PROTOCOL.experiment("ERM", 2)
    assert adapted.learner.adapter == BatchStatistics()


def test_an_unknown_row_is_refused():
    with pytest.raises(ValueError, match="there is no method 'ARM-XL'"):
        PROTOCOL.experiment("ARM-XL", 0)


def test_figures():
    values = {"accuracy": np.linspace(0.0, 1.0, 14)}
    experiment = PROTOCOL.experiment("ERM", 0)
    assert worst_group(values, experiment) == 0.0
    # All angles are tested on as many points, but for a rounding.
    assert weighted_by_size(values, experiment) == pytest.approx(0.5, abs=0.01)


def _pair(row, sampler):
    # Tasks of all samplers look the same: one method learns from each of them.
    usual = row == "ERM" or sampler == SAMPLERS[row]
    marks = () if usual else pytest.mark.slow
    return pytest.param(row, sampler, id=f"{row}-{sampler}", marks=marks)


@pytest.mark.parametrize(
    ("row", "sampler"),
    [
        _pair(row, sampler)
        for row in SAMPLERS
        if "mixed" not in row and row != "UW"
        for sampler in get_args(Sampler)
    ],
)
def test_every_method_learns_from_every_sampler(row, sampler):
    experiment = PROTOCOL.experiment(row, 0)
    learner = experiment.learner
    source = dataclasses.replace(experiment.source, sampler=sampler, sets_per_task=2)

    def loss(params, state, data, key):
        task = source.sample_task(data, key, jnp.array(0), split="train")
        return learner.loss(params, state, task, key)[0]

    key = jax.random.key(0)
    shapes = jax.eval_shape(learner.init, key, source.example)
    gradient = jax.eval_shape(jax.grad(loss), *shapes, source.load(), key)
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, shapes[0])


def test_what_clients_have_trained_is_adapted():
    transfer = PROTOCOL.adapted("q-FedAvg", BatchStatistics(), 0)
    trained = transfer.trained.learner
    assert transfer.learner == Adapting(
        learner=trained.learner, adapter=BatchStatistics()
    )
    example = transfer.trained.source.example
    shapes = [
        jax.eval_shape(learner.init, jax.random.key(0), example)
        for learner in (transfer.learner, trained)
    ]
    assert jax.tree.map(jnp.shape, shapes[0]) == jax.tree.map(jnp.shape, shapes[1])


def test_what_a_protocol_cannot_make_is_refused():
    with pytest.raises(ValueError, match=r"q-FedAvg is of the ConvNet .* network None"):
        dataclasses.replace(PROTOCOL, network=dict).learner("q-FedAvg")
