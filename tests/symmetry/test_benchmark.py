"""Rows of the Aug tables: what they have in common and in what they differ."""

import dataclasses

import pytest

from jaxmeta import Parallel
from jaxmeta.core.config import from_json, to_json
from jaxmeta.data.digits import Digits
from jaxmeta.meta.anil import Anil
from jaxmeta.meta.maml import Maml
from jaxmeta.meta.protonet import ProtoNet
from jaxmeta.networks.conv import LoopConv4
from jaxmeta.symmetry.augerino import Augerino
from jaxmeta.symmetry.augment import Augment
from jaxmeta.symmetry.benchmark import ROWS, Protocol, num_parameters
from jaxmeta.symmetry.conv4 import MSRConv4

PROTOCOL = Protocol(
    source=Digits(queries=5), features=8, norm_stats="support", one_by_one=False
)
made = {row: PROTOCOL.experiment(row, ways=2, shots=3, seed=1) for row in ROWS}


@pytest.mark.parametrize("row", ROWS)
def test_all_rows_see_the_same(row):
    experiment = made[row]
    source = experiment.source
    assert (source.ways, source.shots, source.queries) == (2, 3, 5)
    assert source.augment == Augment()
    assert experiment.learner.norm_stats == "support"
    assert experiment.seed == 1
    assert from_json(to_json(experiment)) == experiment


def test_rows_are_what_they_are_called():
    kinds = {row: type(made[row].learner) for row in ROWS}
    assert kinds.pop("ProtoNets") is ProtoNet
    assert kinds.pop("Augerino") is Augerino
    assert kinds.pop("ANIL") is Anil
    assert set(kinds.values()) == {Maml}
    assert made["ANIL"].learner.only == ("Dense_0",)
    assert isinstance(made["MSR"].learner.network, MSRConv4)
    fixed = made["MSR, U = identity"].learner.network
    assert (fixed.sharing.learned, fixed.share_head) == (False, False)
    assert all(made[row].learner.positive_rates for row in kinds)


def test_big_is_as_large_as_msr():
    example = made["MSR"].source.example
    sizes = {
        row: num_parameters(made[row].learner.network, example)
        for row in ("MAML", "MAML (Big)", "MSR")
    }
    assert sizes["MAML"] < sizes["MSR"] <= sizes["MAML (Big)"]
    network = made["MAML (Big)"].learner.network
    smaller = network.clone(features=network.features - 1)
    assert num_parameters(smaller, example) < sizes["MSR"]


def test_on_a_cpu_tasks_are_taken_one_by_one():
    protocol = dataclasses.replace(PROTOCOL, one_by_one=None)
    learner = protocol.learner("MAML", 5, PROTOCOL.source.example)
    assert isinstance(learner.network, LoopConv4)


def test_one_by_one_changes_how_and_not_what():
    protocol = dataclasses.replace(PROTOCOL, one_by_one=True)
    looped = {
        row: protocol.experiment(row, ways=2, shots=3, seed=1)
        for row in ("MAML", "ANIL", "MAML (Big)", "MSR", "Augerino")
    }
    for row in ("MAML", "ANIL", "MAML (Big)"):
        network = looped[row].learner.network
        assert isinstance(network, LoopConv4)
        assert network.features == made[row].learner.network.features
        assert looped[row].parallel == Parallel(backend="loop")
    for row in ("MSR", "Augerino"):
        assert looped[row] == made[row]


def test_there_is_no_other_row():
    with pytest.raises(ValueError, match="there is no method 'MAMLS'; there are MAML"):
        PROTOCOL.learner("MAMLS", 5, made["MSR"].source.example)
