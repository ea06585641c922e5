"""`jaxmeta report`."""

from jaxmeta.failures import users_mistakes
from jaxmeta.options import ReportOptions, UserError, one_line, parse


def run(argv: list[str]) -> None:
    """Renders runs and tables."""
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
