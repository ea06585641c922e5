"""Tables for a terminal: what fits into 80 columns; the rest is in `report.md`."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jaxmeta.core.metrics import Interval
from jaxmeta.core.run import Run, read_json
from jaxmeta.report.markdown import Record, norm_text, number

METHOD_WIDTH = 10
"""The least that the first column is folded to."""


def line(record: Record) -> str:
    """One finished cell in a line."""
    verdict = f", {record['verdict']}" if record["verdict"] else ""
    return (
        f"{record['row']}, {record['column']}: {number(record['value'])}"
        f" (published {record['published'] or 'none'}{verdict})"
    )


def make_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> Table:
    """A table whose first column gives way when the terminal is narrow."""
    table = Table(
        title=escape(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    for i, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=i > 0)
    for row in rows:
        table.add_row(*(escape(text) for text in row))
    return table


def print_table(table: Table) -> None:
    """Prints to stdout.

    Raises:
      BrokenPipeError: if nobody reads it (rich by itself would end the process).
    """
    console = Console()
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def show(title: str, records: Sequence[Record]) -> None:
    """Prints a reproduced table; ± is half of a 95 % interval of the mean.

    Over tasks it says how much tasks differ. Over seeds it says how much training runs
    do, and is shown if any cell has several. Where the terminal is too narrow, columns
    that can be missed are left out.
    """
    columns = {
        "method": [record["row"] for record in records],
        "problem": [record["column"] for record in records],
        "published": [record["published"] or "–" for record in records],
        "ours": [number(record["value"]) for record in records],
        "± tasks": [_half(record["low"], record["high"]) for record in records],
        "± seeds": [_half(r["seed_low"], r["seed_high"]) for r in records],
        "floor": [number(record["floor"]) for record in records],
        "s": [f"{record['seconds']:.0f}" for record in records],
        "verdict": [record["verdict"] or "–" for record in records],
    }
    if all(record["seed_low"] is None for record in records):
        del columns["± seeds"]
    width = Console().width
    for spare in ("s", "floor", "± seeds", "± tasks"):
        widths = [max(map(len, [name, *columns[name]])) for name in columns]
        if METHOD_WIDTH + sum(widths[1:]) + 2 * len(widths[1:]) <= width:
            break
        columns.pop(spare, None)
    rows = list(zip(*columns.values(), strict=True))
    print_table(make_table(title, list(columns), rows))


def _half(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "–"
    return number((high - low) / 2, 2)


def print_result(run: Run, result: Mapping[str, Interval]) -> None:
    """Prints the test metrics of a run.

    Args:
      run: whose they are.
      result: every metric with its interval.
    """
    of = run.experiment.measured_on
    rows = [
        (
            name,
            f"{value.mean:.4g}",
            f"[{value.low:.4g}, {value.high:.4g}]",
            f"{value.smallest:.4g} to {value.largest:.4g}",
            str(value.count),
        )
        for name, value in result.items()
    ]
    columns = ("test metric", "mean", f"95 % over {of}", "range", of)
    title, card = str(run.directory), run.directory / "card.json"
    if card.exists() and (norm_stats := read_json(card).get("norm_stats")):
        title += f", {norm_text(norm_stats)}"
    print_table(make_table(title, columns, rows))
