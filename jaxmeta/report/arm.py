"""The tables of Adaptive Risk Minimization: rows, columns, findings and pictures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import optax

from jaxmeta.core.run import Run, reading
from jaxmeta.core.table import Cell, Runs, Statistic, Table
from jaxmeta.core.writers import read_jsonl
from jaxmeta.report.shift import (
    corruption_map,
    sorted_groups,
    streaming_curve,
    support_curve,
)
from jaxmeta.shift.adaptation import (
    Adapter,
    BatchStatistics,
    Eata,
    Lame,
    Memo,
    Sar,
    Tent,
)
from jaxmeta.shift.adaptation.adapter import Order
from jaxmeta.shift.benchmark import (
    Protocol,
    decayed_sgd,
    weighted_by_size,
    worst_group,
)
from jaxmeta.shift.curves import Mode, accuracy_by_support, stream_accuracy

PAPER = (
    "Zhang et al. 2021 (arXiv 2007.02931), as reproduced in the reference tables that "
    "came with this project"
)
WORST, AVERAGE, WEIGHTED = "worst group", "average", "by size"
COLUMNS: Mapping[str, Statistic | None] = {
    WORST: worst_group,
    AVERAGE: None,
    WEIGHTED: weighted_by_size,
}
ARM = ("ARM-CML", "ARM-BN", "ARM-LL")
MIXED = tuple(f"{row}, mixed groups" for row in ARM)
AFTER: Order = "update_then_predict"
ADAPTERS: Mapping[str, Adapter] = {
    "BN adaptation": BatchStatistics(),
    "BN-alpha": BatchStatistics(prior=16.0),
    "TENT": Tent(order=AFTER),
    "EATA": Eata(order=AFTER),
    "SAR": Sar(order=AFTER),
    "MEMO": Memo(prior=16.0),
    "LAME": Lame(),
}
"""Rows that are ERM with test-time adaptation, every batch met by a fresh model."""


_OPTIMIZERS = {optax.adam: "Adam", decayed_sgd: "SGD (momentum .9, decay 1e-4)"}

Published = Mapping[str, tuple[str, str]]
"""`{row: (worst group, average)}` as printed, in percent."""


def arm_table(
    title: str,
    protocol: Protocol,
    rows: Sequence[str],
    *,
    seeds: int,
    notes: Sequence[str],
    published: Published | None = None,
    source: str = PAPER,
    corruptions: bool = False,
    aims: tuple[float, float] | None = None,
) -> Table:
    """A table of accuracies: a row a method, three columns.

    Args:
      title: of the table.
      protocol: of all rows.
      rows: methods, as `Protocol.experiment` knows them, or `ADAPTERS`.
      seeds: of every row.
      notes: what a reader must know.
      published: figures to put beside.
      source: where they are from.
      corruptions: whether the groups are corruptions and severities, for the heat map.
      aims: by how many points the ARM row that validation chooses is to beat ERM in the
        worst group and on average.
    """
    published, cells = published or {}, []
    for row in rows:
        figures = (*published.get(row, (None, None)), None)
        for (column, statistic), figure in zip(COLUMNS.items(), figures, strict=True):
            cells.append(
                Cell(
                    row=row,
                    column=column,
                    experiment=_maker(protocol, row),
                    protocol=_protocol_text(protocol, row),
                    published=figure,
                    statistic=statistic,
                    run=row,
                )
            )
    pictures: dict[str, Callable[[Path, Runs], None]] = {
        "groups.png": draw_groups,
        "support.png": draw_support,
        "streaming.png": draw_streaming,
    }
    if corruptions:
        pictures["corruptions.png"] = draw_corruptions
    return Table(
        title=title,
        source=source if published else "none for this protocol",
        metric="accuracy",
        cells=tuple(cells),
        seeds=seeds,
        measured_on="test groups",
        notes=(
            "Protocol: the checkpoint with the best worst-group validation accuracy; "
            "every test group in batches of K points, each met by a fresh model. "
            "Average is over groups, by size is over points. Mixed points are drawn "
            "with replacement, where the authors shuffle. Splits, angles and "
            "corruptions are the same for all seeds.",
            *_of_rows(rows),
            *notes,
        ),
        findings=lambda runs: [*data_line(runs), *findings(runs, aims)],
        figures=pictures,
    )


def _of_rows(rows: Sequence[str]) -> list[str]:
    """What a reader must know of some rows, where they are there."""
    notes = []
    if {"TENT", "EATA", "SAR"} & set(rows):
        notes.append(
            "TENT, EATA and SAR take one step of their published rates before they "
            "answer a batch, and forget it after: these rates are for long streams, "
            "and hardly an answer differs from BN adaptation's."
        )
    if "q-FedAvg" in rows:
        notes.append(
            "A client of q-FedAvg sees so many batches of its points in a round, not "
            "all; clients are drawn with replacement, and rate and q are not tuned."
        )
    return notes


def _maker(protocol: Protocol, row: str) -> Callable[[int], Any]:
    if row in ADAPTERS:
        adapter = ADAPTERS[row]
        return lambda seed: protocol.adapted("ERM", adapter, seed)
    return lambda seed: protocol.experiment(row, seed)


def _protocol_text(protocol: Protocol, row: str) -> str:
    if row in ADAPTERS:
        return "ERM's checkpoint, adapted to each batch"
    optimizer = _OPTIMIZERS.get(protocol.transform, "another optimiser")
    steps = protocol.steps
    if row == "q-FedAvg":
        return (
            f"{steps // protocol.client_sets:,} rounds of {protocol.groups_per_step} "
            f"clients x {protocol.client_sets} batches, SGD {protocol.client_rate:g}"
        )
    groups, points = protocol.groups_per_step, protocol.source.points_per_set
    adapts, mixed = row in (*ARM, "MMD"), f"{groups * points} mixed points"
    size = f"{groups} groups x {points}" if adapts else mixed
    network = getattr(protocol.network, "__name__", f"width {protocol.width}")
    step = f"{optimizer} {protocol.learning_rate:g}"
    return f"{steps:,} steps of {size}, {step}, {network}"


def findings(runs: Runs, aims: tuple[float, float] | None = None) -> list[str]:
    """The ARM row that validation would choose, against ERM and UW, over all seeds."""
    found = {}
    for (row, column), directories in runs.items():
        if column == WORST and row in (*ARM, "ERM", "UW"):
            found[row] = [_scores(directory) for directory in directories]
    arm = [row for row in ARM if row in found]
    if not arm or "ERM" not in found:
        return []
    means = {row: np.mean(scores, axis=0) for row, scores in found.items()}
    best = max(arm, key=lambda row: means[row][0])
    worst, average = (means[best] - means["ERM"])[1:] * 100
    said = (
        f"By validation {best} is chosen among {', '.join(arm)} (worst group "
        f"{means[best][0]:.3f}). Against ERM it is {worst:+.1f} points in the worst "
        f"test group and {average:+.1f} on average."
    )
    if aims is not None:
        verdict = "holds" if worst >= aims[0] and average >= aims[1] else "misses"
        said += f" Asked were {aims[0]:+.1f} and {aims[1]:+.1f}: {verdict}."
    if "UW" in means:
        worst, average = (means[best] - means["UW"])[1:] * 100
        said += (
            f" Against UW, which draws groups as it does, it is {worst:+.1f} and "
            f"{average:+.1f}."
        )
    return [said]


def data_line(runs: Runs) -> list[str]:
    """What the first run was trained on, where its source can say."""
    for directories in runs.values():
        source = Run.load(directories[0]).experiment.source
        used = getattr(source, "data_used", None)
        return [] if used is None else [f"Data: {used}."]
    return []


def _scores(directory: Path) -> tuple[float, float, float]:
    """Best worst-group validation accuracy, then worst and average test accuracy."""
    with reading(directory):
        rows = read_jsonl(directory / "metrics.jsonl")
    name = "validation/worst_accuracy"
    tested = accuracies(directory)
    validated = max((row[name] for row in rows if name in row), default=0.0)
    return validated, float(tested.min()), float(tested.mean())


def accuracies(directory: Path) -> np.ndarray:
    """The test accuracies of a run, one a task."""
    with np.load(directory / "test_tasks.npz") as file:
        return file["accuracy"]


def _by_row(runs: Runs) -> dict[str, list[np.ndarray]]:
    return {
        row: [accuracies(directory) for directory in directories]
        for (row, column), directories in runs.items()
        if column == WORST
    }


def _trained(runs: Runs) -> dict[str, Run]:
    """The runs of the first seed of what the two curves show."""
    return {
        row: Run.load(runs[row, WORST][0])
        for row in ("ERM", *ARM)
        if (row, WORST) in runs
    }


def draw_groups(path: Path, runs: Runs) -> None:
    """Accuracy of every group, from the worst to the best."""
    sorted_groups(path, _by_row(runs))


COUNTS = (1, 5, 10, 25, 50, 100)
"""Support points of the curve."""


def draw_support(path: Path, runs: Runs) -> None:
    """Accuracy against the number of points that are adapted to, for one seed."""
    measured = {
        row: (COUNTS, accuracy_by_support(run, COUNTS, points=100))
        for row, run in _trained(runs).items()
    }
    support_curve(path, measured)


def draw_streaming(path: Path, runs: Runs) -> None:
    """Accuracy of the t-th point of a stream, for one seed."""
    modes: tuple[Mode, ...] = get_args(Mode)
    measured = {}
    for row, run in _trained(runs).items():
        if row in ("ERM", "ARM-CML", "ARM-BN"):
            found = stream_accuracy(run, modes, length=100, least_streams=56)
            measured |= {(row, mode): found[i] for i, mode in enumerate(modes)}
    streaming_curve(path, measured)


def draw_corruptions(path: Path, runs: Runs) -> None:
    """Accuracy of every test corruption at every severity."""
    by_row = _by_row(runs)
    if not by_row:
        return
    (directories, *_) = (d for (_, column), d in runs.items() if column == WORST)
    names = Run.load(directories[0]).experiment.source.group_names("test")
    corruption_map(
        path, names, {row: np.mean(found, axis=0) for row, found in by_row.items()}
    )
