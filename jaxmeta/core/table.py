"""A table as data: what is run for each cell, and what the paper says."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from jaxmeta.core.evaluate import TaskValues
from jaxmeta.core.experiment import Experiment
from jaxmeta.core.procedure import Procedure

Runs: TypeAlias = Mapping[tuple[str, str], Sequence[Path]]
"""Run directories by `(row, column)`, one a seed."""

Statistic: TypeAlias = Callable[[TaskValues, Experiment | Procedure], float]
"""One figure from the test values of a run, one a task, and what was run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure of a table.

    Attributes:
      row: usually the method.
      column: usually the problem.
      experiment: what is run with a seed, which decides the data set drawn, the
        initialisation and the tasks; a `Procedure` where nothing is trained.
      protocol: how ours is measured, in a few words; where it is not the paper's, it
        says so.
      published: the paper's figure as printed, None where it has none.
      floor: the best value that theory allows on the data set of a source, if known.
      accept: lowest and highest value at which the cell is called reproduced, on the
        data set of a source; None where nothing is claimed.
      claim: `accept` in words.
      statistic: what is shown of the test values of a run; the mean of the table's
        metric when None. Other figures have an interval over seeds only.
      run: the name of its runs; cells with one name show figures of the same runs. Row
        and column when None.
    """

    row: str
    column: str
    experiment: Callable[[int], Experiment | Procedure]
    protocol: str
    published: str | None = None
    floor: Callable[[Any], float] | None = None
    accept: Callable[[Any], tuple[float, float]] | None = None
    claim: str = ""
    statistic: Statistic | None = None
    run: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table to reproduce.

    Attributes:
      title: what it shows, with the unit of its figures.
      source: where the published figures are from.
      metric: the test metric in the cells.
      cells: in reading order.
      seeds: runs of each cell, unless the command line says otherwise.
      measured_on: what the interval over tasks is over, in the plural.
      notes: what a reader must know to compare, a paragraph each.
      findings: what else the runs show, a paragraph each, measured on the run
        directories by `(row, column)`.
      breakdown: the same figures task by task, measured as the findings are: lines of
        text, the heading first; none where there is nothing to break down.
      figures: `{file name: draw(path, runs)}`, called with the run directories; a
        figure whose cells were not run draws nothing.
    """

    title: str
    source: str
    metric: str
    cells: tuple[Cell, ...]
    seeds: int
    measured_on: str = "fresh held-out tasks"
    notes: tuple[str, ...] = ()
    findings: Callable[[Runs], Sequence[str]] = lambda runs: ()
    breakdown: Callable[[Runs], Sequence[Sequence[str]]] = lambda runs: ()
    figures: Mapping[str, Callable[[Path, Runs], None]] = dataclasses.field(
        default_factory=dict
    )

    def rows(self) -> list[str]:
        """Row names in reading order."""
        return list(dict.fromkeys(cell.row for cell in self.cells))

    def runs(self, rows: Sequence[str] = ()) -> list[Cell]:
        """The first cell of everything that is run, in reading order.

        Args:
          rows: of these alone; of all when empty.
        """
        distinct: dict[Any, Cell] = {}
        for cell in self.cells:
            if not rows or cell.row in rows:
                distinct.setdefault(cell.run or cell, cell)
        return list(distinct.values())

    def check_rows(self, rows: Sequence[str]) -> None:
        """Raises ValueError for a row that is not there, naming those that are."""
        for row in rows:
            if row not in self.rows():
                raise ValueError(
                    f"there is no row {row!r}; the rows are "
                    f"{', '.join(repr(name) for name in self.rows())}."
                )
