"""`jaxmeta bench`."""

import shlex

from jaxmeta.failures import failures, say, users_mistakes
from jaxmeta.options import BENCHES, BenchOptions, UserError, parse
from jaxmeta.settings import start_jax, suit_physics


def run(argv: list[str]) -> None:
    """Measures a speed and prints it."""
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
