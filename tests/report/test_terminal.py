import numpy as np
import pytest

from jaxmeta import Experiment, Optimizer
from jaxmeta.core.metrics import interval
from jaxmeta.core.run import Run
from jaxmeta.data.digits import Digits
from jaxmeta.meta.protonet import ProtoNet
from jaxmeta.networks.conv import Conv4
from jaxmeta.networks.mlp import MLP
from jaxmeta.report import terminal

RECORD = {
    "row": "MAML-Conv, inner rate tuned",
    "column": "Rot+Flip",
    "value": 0.0058,
    "low": 0.0056,
    "high": 0.0060,
    "seed_low": None,
    "seed_high": None,
    "published": "3.2 ± .29",
    "floor": 0.0049,
    "verdict": "misses",
    "seconds": 1234.4,
}


def shown(capsys, monkeypatch, columns, *records):
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal.show("A table: test mean squared error", records)
    return capsys.readouterr().out


@pytest.mark.parametrize("several", [False, True])
def test_fits_into_80_columns(several, capsys, monkeypatch):
    seeds = {"seed_low": 0.0052, "seed_high": 0.0064} if several else {}
    out = shown(capsys, monkeypatch, 80, RECORD | seeds)
    assert max(map(len, out.splitlines())) <= 80
    for text in ("3.2 ± .29", ".00580", ".00020", ".00490", "1234", "misses"):
        assert text in out
    assert ("± seeds" in out) == several
    assert (".00060" in out) == several


def test_narrow_terminal_keeps_what_matters(capsys, monkeypatch):
    seeds = {"seed_low": 0.0052, "seed_high": 0.0064}
    out = shown(capsys, monkeypatch, 60, RECORD | seeds)
    assert max(map(len, out.splitlines())) <= 60
    for text in ("MAML-Conv", "Rot+Flip", "3.2 ± .29", ".00580", "misses"):
        assert text in out
    assert "1234" not in out


def test_nothing_to_compare_with(capsys, monkeypatch):
    bare = {"published": None, "floor": None, "verdict": None, "value": float("nan")}
    low_high = {"low": float("-inf"), "high": float("inf")}
    out = shown(capsys, monkeypatch, 80, RECORD | bare | low_high)
    for text in ("nan", "inf", "–"):
        assert text in out


def test_line():
    assert terminal.line(RECORD) == (
        "MAML-Conv, inner rate tuned, Rot+Flip: .00580 (published 3.2 ± .29, misses)"
    )


@pytest.mark.parametrize(
    "network",
    [Conv4(features=4, num_classes=None), MLP(features=(4,))],
    ids=["norm", "none"],
)
def test_whose_statistics_normalise_stands_above_the_result(network, tmp_path, capsys):
    learner = ProtoNet(network=network, ways=5)
    experiment = Experiment(
        learner=learner, source=Digits(), optimizer=Optimizer(), steps=1
    )
    run = Run.open(tmp_path / "run", experiment)
    run.keep_card()
    terminal.print_result(run, {"accuracy": interval(np.array([0.25, 0.75]))})
    out = capsys.readouterr().out
    said = "run, norm_stats query (transductive)" in " ".join(out.split())
    assert said == isinstance(network, Conv4)
    assert ["accuracy", "0.5"] in [line.split()[:2] for line in out.splitlines()]
