"""`jaxmeta reproduce`."""

import contextlib
import shlex
from pathlib import Path

from jaxmeta.commands.train import checked
from jaxmeta.failures import failures, say, users_mistakes
from jaxmeta.options import ReproduceOptions, UserError, parse
from jaxmeta.settings import start_jax, use


def run(argv: list[str]) -> None:
    """Runs a table, or goes on with it, and prints it."""
    options = parse(ReproduceOptions, argv, "jaxmeta reproduce")
    use(options.data)
    start_jax()
    from jaxmeta.core import catalogue
    from jaxmeta.core.lock import locked
    from jaxmeta.core.run import read_json
    from jaxmeta.core.table import Table
    from jaxmeta.report import terminal
    from jaxmeta.report.reproduce import check, reproduce

    with users_mistakes():
        entry = catalogue.find(options.table, "table")
        table = catalogue.make(entry, Table, options.quick)
        table.check_rows(options.rows)
        seeds = table.seeds if options.seeds is None else options.seeds
        if seeds < 1:
            raise UserError(f"--seeds must be >= 1, got {seeds}.")
        name = f"{entry.name}-quick" if options.quick else entry.name
        run_dir = options.run_dir or Path("runs") / name
        check(table, run_dir, seeds)
    for cell in {cell.run or cell: cell for cell in table.cells}.values():
        with users_mistakes():
            experiment = cell.experiment(0)
        checked(experiment)
    with contextlib.ExitStack() as stack:
        with users_mistakes():
            run_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(run_dir))
        stack.enter_context(failures())
        records = reproduce(
            table,
            run_dir,
            seeds=seeds,
            rows=options.rows,
            command=shlex.join(["jaxmeta", "reproduce", *argv]),
            on_cell=lambda record: say(terminal.line(record)),
        )
    terminal.show(table.title, records)
    if breakdown := read_json(run_dir / "card.json")["breakdown"]:
        print()
        terminal.print_table(terminal.make_table("", breakdown[0], breakdown[1:]))
    print(
        f"written to {run_dir}: report.md, table.json, metrics.jsonl and the figures."
    )
