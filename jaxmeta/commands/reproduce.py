"""`jaxmeta reproduce`."""

import contextlib
import os
import shlex
import sys
from pathlib import Path

from jaxmeta.commands.train import checked
from jaxmeta.failures import failures, say, users_mistakes
from jaxmeta.options import ReproduceOptions, UserError, parse
from jaxmeta.settings import start_jax, take_cores, use
from jaxmeta.supervise import run_together

_PLACE = "JAXMETA_JOB"
"""Set in the processes that --jobs starts: which of them it is, from 0."""


def run(argv: list[str]) -> None:
    """Runs a table, or goes on with it, and prints it."""
    options = parse(ReproduceOptions, argv, "jaxmeta reproduce")
    use(options.data)
    place = os.environ.get(_PLACE)
    if place is not None:
        take_cores(int(place), options.jobs)
    start_jax()
    from jaxmeta.core import catalogue
    from jaxmeta.core.lock import locked
    from jaxmeta.core.run import read_json
    from jaxmeta.core.table import Table
    from jaxmeta.report import terminal
    from jaxmeta.report.reproduce import check, reproduce, share_runs

    with users_mistakes():
        entry = catalogue.find(options.table, "table")
        table = catalogue.make(entry, Table, options.quick)
        table.check_rows(options.rows)
        seeds = table.seeds if options.seeds is None else options.seeds
        if seeds < 1:
            raise UserError(f"--seeds must be >= 1, got {seeds}.")
        if options.jobs < 1:
            raise UserError(f"--jobs must be >= 1, got {options.jobs}.")
        name = f"{entry.name}-quick" if options.quick else entry.name
        run_dir = options.run_dir or Path("runs") / name
        check(table, run_dir, seeds)
    if place is not None:
        with failures():
            share_runs(table, run_dir, seeds=seeds, rows=options.rows, on_run=say)
        return
    for cell in table.runs():
        with users_mistakes():
            experiment = cell.experiment(0)
        checked(experiment)
    with contextlib.ExitStack() as stack:
        with users_mistakes():
            run_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(run_dir))
        if options.jobs > 1:
            _run_in_processes(options.jobs, argv)
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


def _run_in_processes(jobs: int, argv: list[str]) -> None:
    """Does all runs; exits as the first process does that fails."""
    import jax

    if jax.default_backend() != "cpu":
        raise UserError(
            f"--jobs must be 1 on an accelerator, which is of one process, got {jobs}."
        )
    words = [sys.executable, "-c", "from jaxmeta.cli import main; main()", "reproduce"]
    processes = [({_PLACE: str(i)}, [*words, *argv]) for i in range(jobs)]
    if code := run_together(processes):
        sys.exit(code)
