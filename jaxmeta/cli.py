"""The command line: `jaxmeta list | train | evaluate | reproduce | report | bench`.

JAX is imported by the commands that need it, so that help and `list` answer at once.
"""

import dataclasses
import io
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxmeta.core.names import did_you_mean
from jaxmeta.failures import (
    failures,
    plain_warnings,
    quiet_threads,
    say,
    users_mistakes,
)
from jaxmeta.options import (
    BENCHES,
    BenchOptions,
    EvaluateOptions,
    ListOptions,
    ReportOptions,
    ReproduceOptions,
    TrainOptions,
    UserError,
    one_line,
    parse,
)
from jaxmeta.settings import start_jax, suit_physics, use

USAGE = """\
usage: jaxmeta COMMAND [...]

Multi-task and meta-learning in pure-functional JAX.

commands:
  list              every experiment and table: what it is, paper, time and hardware
  train CONFIG      train an experiment (a name under configs/, or a Python file)
  evaluate RUN      measure a trained run on held-out tasks
  reproduce TABLE   run a published table, ours beside the paper's
  report RUN...     render runs and tables as Markdown and PNG
  bench NAME        measure speed on this machine

`jaxmeta COMMAND --help` lists the options of a command, and
`jaxmeta train CONFIG --help` every field of an experiment.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command.

    Exits with 0; 2, a mistake of the user's; 3, the loss was not finite; 130 after
    Ctrl-C; 141 if nobody reads the output.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that knows no ± still gets its table.
        sys.stdout.reconfigure(errors="replace")
    with quiet_threads():
        _run((argv or ["--help"])[0], argv[1:])


def _run(command: str, rest: list[str]) -> None:
    try:
        try:
            with plain_warnings():
                _command(command)(rest)
        finally:  # after a help text, too, which ends by SystemExit
            if sys.stdout is not None:
                sys.stdout.flush()
    except UserError as error:
        say(f"jaxmeta {command}: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        again = command in ("train", "reproduce")
        hint = " The same command goes on from the last checkpoint." * again
        say(f"jaxmeta {command}: interrupted.{hint}")
        sys.exit(130)
    except BrokenPipeError:
        # Python flushes both once more when it exits.
        for number, stream in enumerate((sys.stdout, sys.stderr), start=1):
            try:
                if stream is not None:
                    stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        sys.exit(141)


def _command(name: str) -> Callable[[list[str]], None]:
    if name in ("-h", "--help"):
        return lambda rest: print(USAGE, end="")
    if name == "--version":
        return lambda rest: _version()
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS, f"known: {', '.join(COMMANDS)}.")
        raise UserError(
            f"unknown command {name!r}; {hint} `jaxmeta --help` lists the commands."
        )
    return COMMANDS[name]


def _version() -> None:
    import importlib.metadata

    print(f"jaxmeta {importlib.metadata.version('jaxmeta')}")


# --------------------------------------------------------------------------- commands


def _list(argv: list[str]) -> None:
    from jaxmeta.core import catalogue

    parse(ListOptions, argv, "jaxmeta list")
    width = max(40, shutil.get_terminal_size().columns)
    wrap = lambda text, first, rest: print(
        textwrap.fill(text, width, initial_indent=first, subsequent_indent=rest)
    )
    for i, entry in enumerate(catalogue.entries()):
        if i:
            print()
        wrap(f"{entry.name}  ({entry.kind}; {entry.cost})", "", "    ")
        wrap(entry.what, "    ", "    ")
        wrap(entry.paper, "    ", "    ")


def _train(argv: list[str]) -> None:
    if not argv or argv[0].startswith("-"):
        if {"-h", "--help"} & set(argv):
            parse(TrainOptions, ["--help"], "jaxmeta train CONFIG")
        raise UserError(
            "which CONFIG? It comes first, as in `jaxmeta train msr-fc --steps 100`; "
            "`jaxmeta list` shows the experiments."
        )
    name, rest = argv[0], argv[1:]
    from jaxmeta.core import catalogue

    with users_mistakes():
        entry = catalogue.find(name, "experiment")
    start_jax()
    from jaxmeta.core.experiment import Experiment
    from jaxmeta.core.procedure import Procedure
    from jaxmeta.core.writers import check_writers

    with users_mistakes():
        default = catalogue.make(entry, Experiment | Procedure)
    options, experiment = _override(default, rest, name, entry.what)
    use(options.data)
    with users_mistakes():
        check_writers(tensorboard=options.tensorboard, wandb=options.wandb)
    run_dir = options.run_dir or Path("runs") / entry.name
    if options.diagnostics and not isinstance(experiment, Experiment):
        raise UserError(
            f"{name} has no gradients of several tasks, which --diagnostics compares."
        )
    if options.diagnostics and experiment.step_metrics is None:
        from jaxmeta.surgery.diagnostics import diagnostics_beside

        measure = diagnostics_beside(experiment.optimizer.aggregator)
        experiment = dataclasses.replace(experiment, step_metrics=measure)
    experiment = _check(experiment, run_dir)
    if options.dry_run:
        return _dry_run(experiment)
    _train_run(experiment, run_dir, options)


def _override(default, argv: list[str], name: str, what: str):
    """The options of a training, and its experiment with the fields that were given."""
    kind: Any = type(default)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Everything:
        options: Annotated[TrainOptions, tyro.conf.arg(name="")]
        experiment: Annotated[kind, tyro.conf.arg(name="")]  # pyright: ignore[reportInvalidTypeForm] - known when it is parsed

    parsed = parse(
        Everything,
        argv,
        f"jaxmeta train {name}",
        default=Everything(options=TrainOptions(), experiment=default),
        description=what,
    )
    return parsed.options, parsed.experiment


def _check(experiment, run_dir: Path | None = None):
    """Finds all that can be wrong with an experiment, and runs none of it."""
    import jax

    from jaxmeta.check import settle_and_check
    from jaxmeta.core.procedure import Procedure
    from jaxmeta.core.run import Run
    from jaxmeta.data.source import settle

    if isinstance(experiment, Procedure):
        suit_physics()
    try:
        jax.devices()
    except RuntimeError as error:
        raise UserError(f"JAX finds no device to run on: {one_line(error)}") from error
    with users_mistakes():
        if isinstance(experiment, Procedure):
            if run_dir is not None:
                Run.check(run_dir, experiment)
            experiment.check()
            return experiment
        settled = dataclasses.replace(experiment, source=settle(experiment.source))
        if run_dir is not None:  # first what needs no data at all
            Run.check(run_dir, settled)
        return settle_and_check(settled)


def _train_run(experiment, run_dir: Path, options: TrainOptions) -> None:
    from jaxmeta.core.config import to_json
    from jaxmeta.core.fit import complete, result
    from jaxmeta.core.procedure import Procedure
    from jaxmeta.core.progress import Progress
    from jaxmeta.core.run import Run
    from jaxmeta.core.writers import open_writers
    from jaxmeta.report import terminal

    with users_mistakes():
        run = Run.open(run_dir, experiment)
        if run.finished:
            print(
                f"{run_dir} is finished ({experiment.steps} steps); its result is "
                "below. Choose another --run-dir to train again."
            )
            return terminal.print_result(run, result(run))
    with failures():
        writer = open_writers(
            run.metrics_path,
            to_json(experiment),
            tensorboard=options.tensorboard,
            wandb=options.wandb,
        )
        progress = Progress(experiment.steps, unit=experiment.unit)
        try:
            measured = complete(run, writer, progress)
        finally:
            progress.close()
            writer.close()
        drawn = isinstance(experiment, Procedure) or experiment.step_metrics is not None
        if drawn:
            from jaxmeta.report.render import render

            render(run_dir)
    terminal.print_result(run, measured)
    if drawn:
        print(f"written to {run_dir}: report.md and its pictures.")


def _dry_run(experiment) -> None:
    import json

    from jaxmeta.core.config import to_json
    from jaxmeta.core.cost import estimate
    from jaxmeta.core.procedure import Procedure

    print(json.dumps(to_json(experiment), indent=2))
    own = isinstance(experiment, Procedure)
    for line in experiment.estimate() if own else estimate(experiment):
        print(line)


def _evaluate(argv: list[str]) -> None:
    options = parse(EvaluateOptions, argv, "jaxmeta evaluate")
    use(options.data)
    if options.num_tasks is not None and not 1 <= options.num_tasks < 2**31:
        raise UserError(
            f"--num-tasks must be from 1 to {2**31 - 1}, got {options.num_tasks}."
        )
    start_jax()
    from jaxmeta.core.fit import measure
    from jaxmeta.core.metrics import interval
    from jaxmeta.core.procedure import Procedure
    from jaxmeta.core.run import Run
    from jaxmeta.report import terminal

    with users_mistakes():
        run = Run.load(options.run, options.trust)
    own = isinstance(run.experiment, Procedure)
    if own:
        suit_physics()
    else:
        _check(run.experiment)
    with failures(), users_mistakes():
        if own:
            values = run.experiment.measure(run.directory, options.num_tasks)
        else:
            values = measure(run, num_tasks=options.num_tasks)
    terminal.print_result(run, {name: interval(rows) for name, rows in values.items()})


def _reproduce(argv: list[str]) -> None:
    options = parse(ReproduceOptions, argv, "jaxmeta reproduce")
    use(options.data)
    start_jax()
    from jaxmeta.core import catalogue
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
        _check(experiment)
    with failures():
        run_dir.mkdir(parents=True, exist_ok=True)
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


def _report(argv: list[str]) -> None:
    options = parse(ReportOptions, argv, "jaxmeta report")
    if not options.runs:
        raise UserError("which RUN? Give the run directories to render.")
    from jaxmeta.report.render import render

    for run in options.runs:
        with users_mistakes():
            try:
                print(render(run, beside=options.runs))
            except (AttributeError, IndexError, KeyError, TypeError) as error:
                raise UserError(
                    f"{run} is damaged: its files are not those of a run "
                    f"({one_line(error)}). Run it again."
                ) from error


def _bench(argv: list[str]) -> None:
    if not argv:
        known = "; ".join(f"{name}: {what}" for name, what in BENCHES.items())
        raise UserError(f"which NAME? There is {known}, as in `jaxmeta bench env`.")
    options = parse(BenchOptions, argv, "jaxmeta bench")
    if (out := options.out) and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise UserError(f"--out {out} must be a file in a directory that is there.")
    start_jax()
    if options.name == "env":
        suit_physics()
        from jaxmeta.manipulation import bench
    else:
        from jaxmeta.meta import bench
    from jaxmeta.core.run import git_revision, hardware, versions, write_json
    from jaxmeta.report import terminal

    with failures(), users_mistakes():
        found = bench.measure(options.num_envs or options.inner_steps, say=say)
        if out:
            card = {"versions": versions(), "hardware": hardware()}
            command = shlex.join(["jaxmeta", "bench", *argv])
            card |= {"git_revision": git_revision(), "command": command}
            write_json(out, {**found, **card})
    header, *rows = bench.lines(found)
    terminal.print_table(terminal.make_table(bench.title(found), header, rows))


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "list": _list,
    "train": _train,
    "evaluate": _evaluate,
    "reproduce": _reproduce,
    "report": _report,
    "bench": _bench,
}
