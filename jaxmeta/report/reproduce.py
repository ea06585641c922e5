"""Runs every cell of a table and writes what came out.

table.json      one object per cell
report.md       the same for people
metrics.jsonl   the metrics of all its runs, with row, column and seed
*.png           the table's figures
card.json       command, versions, hardware, seconds
cells/          one run directory per cell and seed
"""

import contextlib
import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxmeta.core.config import config_hash
from jaxmeta.core.fit import complete
from jaxmeta.core.lock import InUseError, locked
from jaxmeta.core.metrics import interval, interval_within
from jaxmeta.core.progress import Progress
from jaxmeta.core.run import (
    Run,
    cpu_seconds,
    hardware,
    read_json,
    reading,
    versions,
    write_json,
)
from jaxmeta.core.table import Cell, Table
from jaxmeta.core.transfer import Transfer
from jaxmeta.core.writers import JsonlWriter, read_jsonl
from jaxmeta.report.markdown import table_report
from jaxmeta.report.plots import table_curves

CURVES = "curves.png"


def cell_directory(root: Path, cell: Cell, seed: int) -> Path:
    """Where the run of one cell and seed lives."""
    name = cell.run or f"{cell.row} {cell.column}"
    name = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
    return root / "cells" / f"{name.lower()}-seed{seed}"


def check(table: Table, root: Path, seeds: int) -> None:
    """Raises what `reproduce` would for a wrong directory, and writes nothing.

    Raises:
      ValueError: if the directory is a file or belongs to something else.
    """
    if root.exists() and not root.is_dir():
        raise ValueError(f"{root} is a file; choose another --run-dir.")
    if (root / "config.json").exists():
        raise ValueError(
            f"{root} belongs to a run of `jaxmeta train`; choose another --run-dir."
        )
    if (root / "card.json").exists():
        card = read_json(root / "card.json")
        title = card.get("title") if isinstance(card, dict) else None
        if title != table.title:
            raise ValueError(
                f"{root} belongs to another table ({title!r}); choose another "
                "--run-dir."
            )
    for cell in table.cells:
        for seed in range(seeds):
            Run.check(cell_directory(root, cell, seed), cell.experiment(seed))


def run_cell(root: Path, cell: Cell, seed: int, *, quiet: bool = False) -> Run:
    """Runs one cell with one seed, or finds it done."""
    run = Run.open(cell_directory(root, cell, seed), cell.experiment(seed))
    if run.finished:
        return run
    progress = Progress(
        run.experiment.steps,
        _label(cell, seed),
        unit=run.experiment.unit,
        quiet=quiet,
    )
    writer = JsonlWriter(run.metrics_path)
    try:
        complete(run, writer, progress)
    finally:
        writer.close()
        progress.close()
    return run


def share_runs(
    table: Table,
    root: Path,
    *,
    seeds: int,
    rows: Sequence[str] = (),
    on_run: Callable[[str], None] = lambda label: None,
) -> None:
    """Runs what no other process runs: several may share the runs of a table.

    Returns when there is nothing left to begin; others may still be at theirs. What
    tests the training of another row is left out, and the last rows come first, which
    tend to take longest.

    Args:
      table: what to run.
      root: the run directory, the same for all.
      seeds: seeds 0..seeds-1 are run.
      rows: only these are run.
      on_run: told a line of each run that this process has finished.
    """
    for cell in reversed(table.runs(rows)):
        for seed in range(seeds):
            experiment = cell.experiment(seed)
            if isinstance(experiment, Transfer):
                continue
            directory = cell_directory(root, cell, seed)
            directory.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(InUseError), locked(directory):
                if not Run(directory, experiment).finished:
                    run_cell(root, cell, seed, quiet=True)
                    on_run(f"{_label(cell, seed)}: done")


def _label(cell: Cell, seed: int) -> str:
    return f"{cell.row}, {cell.column}, seed {seed}"


def summarise(cell: Cell, runs: Sequence[Run], metric: str) -> dict[str, Any]:
    """The record of one cell: value, both intervals, floor and verdict.

    `low` and `high` bound the mean over held-out tasks, the training runs being what
    they are; `seed_low` and `seed_high` bound the mean over training runs, and are
    null with one seed.

    Args:
      cell: what was run.
      runs: its finished runs, one a seed.
      metric: the test metric of the table.

    Raises:
      CheckpointError: if the files of a run are damaged.
    """
    tested, cards = [], []
    for run in runs:
        with reading(run.directory), np.load(run.directory / "test_tasks.npz") as file:
            tested.append({name: file[name] for name in file.files})
            cards.append(read_json(run.directory / "card.json"))
    per_seed = [values[metric] for values in tested]
    if cell.statistic is None:
        over_tasks = interval_within(per_seed)
        figures = [float(values.mean()) for values in per_seed]
    else:
        over_tasks = None
        figures = [
            float(cell.statistic(values, run.experiment))
            for values, run in zip(tested, runs, strict=True)
        ]
    over_seeds, several = interval(figures), len(runs) > 1
    sources = [run.experiment.source for run in runs]
    floor = accept = verdict = None
    if cell.floor is not None:
        floor = float(np.mean([cell.floor(source) for source in sources]))
    if cell.accept is not None:
        accept = np.mean([cell.accept(source) for source in sources], axis=0).tolist()
        verdict = "holds" if accept[0] <= over_seeds.mean <= accept[1] else "misses"
    return {
        "row": cell.row,
        "column": cell.column,
        "value": over_seeds.mean,
        "low": over_tasks.low if over_tasks else None,
        "high": over_tasks.high if over_tasks else None,
        "standard_error": float(np.std(figures, ddof=1) / np.sqrt(len(figures)))
        if several
        else None,
        "seed_low": over_seeds.low if several else None,
        "seed_high": over_seeds.high if several else None,
        "seeds": [run.experiment.seed for run in runs],
        "seed_values": figures,
        "tasks_per_seed": len(per_seed[0]),
        "published": cell.published,
        "floor": floor,
        "accept": accept,
        "claim": cell.claim,
        "verdict": verdict,
        "protocol": cell.protocol,
        "steps": runs[0].experiment.steps,
        "seconds": sum(card["wall_seconds"] for card in cards),
        "cpu_seconds": sum(card["cpu_seconds"] for card in cards),
        "config_hashes": [card["config_hash"] for card in cards],
        "git_revisions": sorted({card["git_revision"] or "unknown" for card in cards}),
    }


def reproduce(
    table: Table,
    root: Path,
    *,
    seeds: int,
    command: str,
    rows: Sequence[str] = (),
    quiet: bool = False,
    on_cell: Callable[[dict[str, Any]], None] = lambda record: None,
) -> list[dict[str, Any]]:
    """Runs a table and writes its files; what is already done is not done again.

    Args:
      table: what to run.
      root: the run directory.
      seeds: seeds 0..seeds-1 are run, >= 1.
      command: the command line, for the report.
      rows: only these are run; of the others what was run before is still shown.
      quiet: show no progress.
      on_cell: called with the record of each cell once it is there.

    Returns:
      One record per cell, as in `table.json`.

    Raises:
      ValueError: for a number of seeds below 1.
      CheckpointError: if the files of a run cannot be written, or are damaged.
      NonFiniteError: if a run diverges.
    """
    if seeds < 1:
        raise ValueError(f"seeds must be >= 1, got {seeds}.")
    started, cpu_started = time.time(), cpu_seconds()
    records, lines = [], []
    by_run: dict[str, dict[str, Any]] = {}
    directories: dict[tuple[str, str], list[Path]] = {}
    for cell in table.cells:
        runs = [
            Run(cell_directory(root, cell, seed), cell.experiment(seed))
            for seed in range(seeds)
        ]
        if not rows or cell.row in rows:
            runs = [run_cell(root, cell, seed, quiet=quiet) for seed in range(seeds)]
        elif not all(run.finished for run in runs):
            continue
        directories[cell.row, cell.column] = [run.directory for run in runs]
        records.append(summarise(cell, runs, table.metric))
        # Several cells may show figures of the same runs.
        if (name := runs[0].directory.name) not in by_run:
            by_run[name] = records[-1]
            lines += [_row(cell, run, row) for run in runs for row in _metrics(run)]
        on_cell(records[-1])
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (root / "metrics.jsonl").write_text(text, encoding="utf-8")
    write_json(root / "table.json", records)
    table_curves(root / CURVES, lines, table.metric)
    for name, draw in table.figures.items():
        draw(root / name, directories)
    hashes = [name for record in records for name in record["config_hashes"]]
    revisions = {name for record in records for name in record["git_revisions"]}
    card = {
        "title": table.title,
        "source": table.source,
        "metric": table.metric,
        "measured_on": table.measured_on,
        "notes": [*table.notes, *table.findings(directories)],
        "breakdown": list(table.breakdown(directories)),
        "command": command,
        "seeds": list(range(seeds)),
        "config_hash": config_hash(hashes),
        "config": {"cells": hashes},
        # Of the runs, which may be older than this report.
        "git_revisions": sorted(revisions),
        "run_wall_seconds": sum(record["seconds"] for record in by_run.values()),
        "run_cpu_seconds": sum(record["cpu_seconds"] for record in by_run.values()),
        "versions": versions(),
        "hardware": hardware(),
        "wall_seconds": time.time() - started,
        "cpu_seconds": cpu_seconds() - cpu_started,
        "figures": [
            name for name in (*table.figures, CURVES) if (root / name).exists()
        ],
    }
    write_json(root / "card.json", card)
    (root / "report.md").write_text(table_report(records, card), encoding="utf-8")
    return records


def _metrics(run: Run) -> list[dict[str, Any]]:
    with reading(run.directory):
        return read_jsonl(run.metrics_path)


def _row(cell: Cell, run: Run, row: dict[str, Any]) -> dict[str, Any]:
    where = {"row": cell.row, "column": cell.column, "seed": run.experiment.seed}
    return {**where, **row}
