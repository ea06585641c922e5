"""`jaxmeta bench`."""

import shlex
from typing import Any

from jaxmeta.failures import failures, say, users_mistakes
from jaxmeta.options import BENCHES, BenchOptions, UserError, parse
from jaxmeta.settings import start_jax, suit_physics


def run(argv: list[str]) -> None:
    """Measures a cost and prints it."""
    if not argv:
        known = "; ".join(f"{name}: {what}" for name, what in BENCHES.items())
        raise UserError(f"which NAME? There is {known}, as in `jaxmeta bench env`.")
    options = parse(BenchOptions, argv, "jaxmeta bench")
    for flag, file in (("--out", options.out), ("--plot", options.plot)):
        if file and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise UserError(
                f"{flag} {file} must be a file in a directory that is there."
            )
    if options.plot and options.plot.suffix != ".png":
        raise UserError(f"--plot {options.plot} must end in .png.")
    start_jax()
    if options.name == "env":
        suit_physics()
        from jaxmeta.manipulation import bench
    elif options.name == "scaling":
        suit_physics()  # halves the time to compile
        from jaxmeta import scaling as bench
    else:
        from jaxmeta.meta import bench
    from jaxmeta.core.run import git_revision, hardware, versions, write_json
    from jaxmeta.report import terminal

    numbers = options.num_envs or options.inner_steps or options.devices
    given: dict[str, Any] = {}
    if options.utilisation is not None:
        given["utilisation"] = options.utilisation
    with failures(), users_mistakes():
        found = bench.measure(numbers, say=say, **given)
        if options.out:
            card = {"versions": versions(), "hardware": hardware()}
            command = shlex.join(["jaxmeta", "bench", *argv])
            card |= {"git_revision": git_revision(), "command": command}
            write_json(options.out, {**found, **card})
        if options.plot:
            from jaxmeta.report.scaling import draw_efficiency

            draw_efficiency(options.plot, found["rows"])
    header, *rows = bench.lines(found)
    terminal.print_table(terminal.make_table(bench.title(found), header, rows))
