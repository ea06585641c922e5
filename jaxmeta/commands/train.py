"""`jaxmeta train`."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxmeta.cluster import agree, join
from jaxmeta.core import catalogue
from jaxmeta.core.catalogue import Entry
from jaxmeta.failures import failures, users_mistakes
from jaxmeta.options import TrainOptions, UserError, one_line, parse
from jaxmeta.settings import start_jax, suit_physics, use


def run(argv: list[str]) -> None:
    """Trains an experiment, or goes on where it stopped."""
    if not argv or argv[0].startswith("-"):
        if {"-h", "--help"} & set(argv):
            parse(TrainOptions, ["--help"], "jaxmeta train CONFIG")
        raise UserError(
            "which CONFIG? It comes first, as in `jaxmeta train msr-fc --steps 100`; "
            "`jaxmeta list` shows the experiments."
        )
    name, rest = argv[0], argv[1:]
    with users_mistakes():
        entry = catalogue.find(name, "experiment")
    options, experiment = read(entry, rest)
    from jaxmeta.core.experiment import Experiment
    from jaxmeta.core.writers import check_writers

    use(options.data)
    if not options.dry_run:
        join(options.cluster)
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
    experiment = checked(experiment, run_dir)
    if options.dry_run:
        return _dry_run(experiment)
    agree(experiment, options.cluster)
    _perform(experiment, run_dir, options)


def read(entry: Entry, argv: list[str]):
    """The options of a training, and its experiment with the fields that were given."""
    start_jax()
    from jaxmeta.core.experiment import Experiment
    from jaxmeta.core.procedure import Procedure

    with users_mistakes():
        default = catalogue.make(entry, Experiment | Procedure)
    kind: Any = type(default)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Everything:
        options: Annotated[TrainOptions, tyro.conf.arg(name="")]
        experiment: Annotated[kind, tyro.conf.arg(name="")]  # pyright: ignore[reportInvalidTypeForm] - known when it is parsed

    parsed = parse(
        Everything,
        argv,
        f"jaxmeta train {entry.name}",
        default=Everything(options=TrainOptions(), experiment=default),
        description=entry.what,
    )
    return parsed.options, parsed.experiment


def checked(experiment, run_dir: Path | None = None):
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


def _perform(experiment, run_dir: Path, options: TrainOptions) -> None:
    from jaxmeta.core import hosts
    from jaxmeta.core.fit import complete, result
    from jaxmeta.core.lock import check_shared, locked
    from jaxmeta.core.procedure import Procedure
    from jaxmeta.core.progress import Progress
    from jaxmeta.core.run import Run
    from jaxmeta.report import terminal

    first = hosts.is_first()
    with contextlib.ExitStack() as stack:
        with users_mistakes():
            run = Run.open(run_dir, experiment) if first else Run(run_dir, experiment)
            if first:
                stack.enter_context(locked(run_dir))
            check_shared(run_dir)
            if hosts.as_first(run.finished):
                if first:
                    print(
                        f"{run_dir} is finished ({experiment.steps} steps); its result "
                        "is below. Choose another --run-dir to train again."
                    )
                    terminal.print_result(run, result(run))
                return
        stack.enter_context(failures())
        writer = _writers(run, options)
        progress = Progress(experiment.steps, unit=experiment.unit, quiet=not first)
        try:
            measured = complete(run, writer, progress)
        finally:
            progress.close()
            writer.close()
        if not first:
            return
        drawn = isinstance(experiment, Procedure) or experiment.step_metrics is not None
        if drawn:
            from jaxmeta.report.render import render

            render(run_dir)
    terminal.print_result(run, measured)
    if drawn:
        print(f"written to {run_dir}: report.md and its pictures.")


def _writers(run, options: TrainOptions):
    """Files from the first process alone, and a watchdog where there are several."""
    import jax

    from jaxmeta.core import hosts
    from jaxmeta.core.config import to_json
    from jaxmeta.core.watchdog import Watchdog
    from jaxmeta.core.writers import Writers, open_writers

    members = []
    if hosts.is_first():
        members += open_writers(
            run.metrics_path,
            to_json(run.experiment),
            tensorboard=options.tensorboard,
            wandb=options.wandb,
        ).members
    if jax.process_count() > 1:
        seconds = options.cluster.watchdog
        members.append(Watchdog(seconds, last=run.experiment.steps))
    return Writers(tuple(members))


def _dry_run(experiment) -> None:
    import json

    from jaxmeta.core.config import to_json
    from jaxmeta.core.cost import estimate
    from jaxmeta.core.procedure import Procedure

    print(json.dumps(to_json(experiment), indent=2))
    own = isinstance(experiment, Procedure)
    for line in experiment.estimate() if own else estimate(experiment):
        print(line)
