"""`jaxmeta evaluate`."""

from jaxmeta.commands.train import checked
from jaxmeta.failures import failures, users_mistakes
from jaxmeta.options import EvaluateOptions, UserError, parse
from jaxmeta.settings import start_jax, suit_physics, use


def run(argv: list[str]) -> None:
    """Measures a trained run on held-out tasks."""
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
        checked(run.experiment)
    with failures(), users_mistakes():
        if own:
            values = run.experiment.measure(run.directory, options.num_tasks)
        else:
            values = measure(run, num_tasks=options.num_tasks)
    terminal.print_result(run, {name: interval(rows) for name, rows in values.items()})
