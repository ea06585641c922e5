"""Eight turned and two overlapping digits: sums of losses against gradient surgery."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxmeta import Experiment, Optimizer, Parallel, sum_over_tasks, surgery
from jaxmeta.core.aggregate import TaskAggregator
from jaxmeta.core.experiment import Checkpointing, Evaluation
from jaxmeta.core.run import Run
from jaxmeta.core.table import Cell, Runs, Table
from jaxmeta.core.writers import read_jsonl
from jaxmeta.data.digit_tasks import DigitTasks, TurnedDigits, TwoDigits, settled
from jaxmeta.multitask.hard_sharing import HardSharing, shared_body
from jaxmeta.networks.mlp import MLP, Encoder
from jaxmeta.report.surgery import conflict_map, has_diagnostics, tragic_triad

PAPER = "Yu et al. 2020 (arXiv 2001.06782); Kurin et al. 2022 (arXiv 2201.04122)"
COST = "--quick: 2 min, full: 35 min (3 seeds), on 2 CPU cores; mnist_writers.npz"

TURNED, TWO = "8 turned", "two digits"
NUM_EXAMPLES = 100
RATES = (1e-3, 3e-3, 1e-2)
RATE = RATES[0]
# The best by validation accuracy of seed 0 on MNIST, for both rows and both columns.
TUNED = {"sum": 3e-3, "PCGrad": 3e-3}
DIAGNOSED = ("sum", "PCGrad")


def weightings(num_tasks: int) -> dict[str, surgery.Weighting]:
    """The rows with a weighting of their own, as the papers set them."""
    return {
        "PCGrad": surgery.PCGrad(),
        "GradVac": surgery.GradVac(num_tasks=num_tasks),
        "CAGrad": surgery.CAGrad(),
        "UPGrad": surgery.UPGrad(),
        "Nash-MTL": surgery.NashMTL(),
        "uncertainty weights": surgery.Uncertainty(num_tasks=num_tasks),
    }


def aggregators(source: DigitTasks) -> dict[str, Callable[[], TaskAggregator]]:
    """What every row makes of the tasks' gradients."""
    mask = shared_body if isinstance(source, TwoDigits) else None

    def surgeon(weighting: surgery.Weighting) -> Callable[[], TaskAggregator]:
        given = {"mask": mask} if weighting.needs_gram and mask else {}
        return functools.partial(surgery.aggregate_tasks, weighting=weighting, **given)

    rules = {name: surgeon(w) for name, w in weightings(source.num_tasks).items()}
    return {"sum": sum_over_tasks, **rules}


def experiment(
    source: DigitTasks, row: str, rate: float, steps: int, seed: int
) -> Experiment:
    """Adam on all tasks in every step; the best of the validations is tested."""
    two, num_tasks = isinstance(source, TwoDigits), source.num_tasks
    num_rows = lambda split: num_tasks * -(-source.size(split) // NUM_EXAMPLES)
    diagnose = functools.partial(surgery.step_diagnostics, mask=shared_body)
    return Experiment(
        learner=HardSharing(
            body=Encoder(features=(64,)),
            head=MLP(features=(10,)),
            num_heads=num_tasks if two else 1,
        ),
        source=source,
        optimizer=Optimizer(aggregator=aggregators(source)[row], learning_rate=rate),
        # Two tasks are nothing to spread over devices.
        parallel=Parallel(backend="vmap"),
        evaluation=Evaluation(
            every=steps // 8,
            num_validation_tasks=num_rows("validation"),
            num_test_tasks=num_rows("test"),
            tasks_per_batch=num_tasks,
            checkpoint="best",
            metric="accuracy",
            mode="max",
        ),
        checkpoint=Checkpointing(every=steps // 2),
        tasks_per_step=num_tasks,
        steps=steps,
        log_every=steps // 40,
        seed=seed,
        step_metrics=diagnose if row in DIAGNOSED else None,
    )


def draw_triad(path: Path, runs: Runs) -> None:
    """Conflict, lengths, curvature and theorem 2 of plain Adam and of PCGrad."""
    if found := diagnosed(runs):
        tragic_triad(path, found)


def draw_conflict(path: Path, runs: Runs) -> None:
    """Cosines between the tasks over the training of plain Adam."""
    if "sum" in (found := diagnosed(runs)):
        conflict_map(path, found["sum"])


def diagnosed(runs: Runs) -> dict[str, list[dict]]:
    """The metrics of the diagnosed rows that were run, on the turned digits."""
    return {
        row: read_jsonl(runs[row, TURNED][0] / "metrics.jsonl")
        for row in DIAGNOSED
        if (row, TURNED) in runs
    }


def findings(runs: Runs) -> list[str]:
    """The accuracy of every task, and what theorem 2 has to say."""
    lines = []
    for column in dict.fromkeys(column for _, column in runs):
        texts = []
        for (row, where), (directory, *_) in runs.items():
            if where == column:
                source = Run.load(directory).experiment.source
                assert isinstance(source, DigitTasks)
                rows = np.load(directory / "test_tasks.npz")["accuracy"]
                worst = rows.reshape(-1, source.num_tasks).mean(axis=0).min()
                texts.append(f"{row} {worst:.2%}")
        lines.append(f"Accuracy of the worst task, {column}: {', '.join(texts)}.")
    for (row, column), (directory, *_) in runs.items():
        rows = read_jsonl(directory / "metrics.jsonl")
        if not has_diagnostics(rows):
            continue
        mean = lambda name, rows=rows: np.nanmean(
            [row.get(f"diagnostics/{name}", np.nan) for row in rows]
        )
        lines.append(
            f"{row}, {column}, over training: {mean('conflicting'):.0%} of the pairs "
            f"of tasks conflict, their lengths have a similarity of "
            f"{mean('similarity'):.2f}, the step still hurts {mean('hurt'):.1%} of the "
            "tasks to first order; the conditions of theorem 2 are met by an estimated "
            f"{mean('theorem_2a'):.2%} (a), {mean('theorem_2b'):.0%} (b), "
            f"{mean('theorem_2c'):.2%} (c) and {mean('theorem_2'):.2%} (all) of the "
            "pairs."
        )
    return lines


def get_table(quick: bool) -> Table:
    """The table; `quick` is a short training on scikit-learn's digits with one seed."""
    origin = "digits" if quick else settled("auto")
    steps = 1600 if quick else 8000
    sources = {
        TURNED: TurnedDigits(num_examples=NUM_EXAMPLES, origin=origin),
        TWO: TwoDigits(num_examples=NUM_EXAMPLES, origin=origin),
    }
    cells: list[Cell] = []
    for row in aggregators(sources[TWO]):
        rates = {row: RATE, f"{row}, tuned": TUNED.get(row)}
        cells += [
            Cell(
                row=name,
                column=column,
                experiment=functools.partial(experiment, source, row, rate, steps),
                protocol=f"Adam {rate:g}, {steps:,} steps",
            )
            for name, rate in rates.items()
            if rate is not None
            for column, source in sources.items()
        ]
    images = "MNIST" if origin == "npz" else "scikit-learn's 8 x 8 digits"
    return Table(
        title=f"Many tasks, one network, on {images}: test accuracy",
        source="none; the papers use other networks and images",
        metric="accuracy",
        cells=tuple(cells),
        seeds=1 if quick else 3,
        measured_on=f"batches of {NUM_EXAMPLES} test images",
        notes=(
            "Protocol: one hidden layer of 64 units, 100 images of every task in a "
            "step, the best of eight validations is tested. 8 turned: task t turns "
            "the digits by 22.5 t degrees and renames the ten classes, all parameters "
            "are shared. Two digits: MultiMNIST, a head a task, surgery on the body "
            "alone (uncertainty weights weigh the heads, too); in training every task "
            "has images of its own.",
            "All rows have Adam at 1e-3. The tuned rows have the best of "
            f"{', '.join(f'{rate:g}' for rate in RATES)} by validation accuracy of "
            "seed 0 on MNIST.",
        ),
        findings=findings,
        figures={"triad.png": draw_triad, "conflict.png": draw_conflict},
    )
