"""`jaxmeta launch`."""

import dataclasses
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxmeta.commands.train import read
from jaxmeta.core import catalogue
from jaxmeta.core.names import did_you_mean
from jaxmeta.failures import users_mistakes
from jaxmeta.launch_job import Job, Target
from jaxmeta.launch_tpu import Gke
from jaxmeta.launcher import TARGETS, Local
from jaxmeta.options import LaunchOptions, UserError, parse
from jaxmeta.supervise import free_port, run_together


def run(argv: list[str]) -> None:
    """Starts a training on many machines, or prints what would be started."""
    known = f"there is {', '.join(TARGETS)}."
    example = "as in `jaxmeta launch local msr-fc --dry-run`"
    if not argv or argv[0].startswith("-"):
        if {"-h", "--help"} & set(argv):
            parse(LaunchOptions, ["--help"], "jaxmeta launch TARGET CONFIG")
        raise UserError(f"which TARGET? {known} It comes first, {example}.")
    name, rest = argv[0], argv[1:]
    if name not in TARGETS:
        raise UserError(
            f"unknown target {name!r}; {did_you_mean(name, TARGETS, known)}"
        )
    if not rest or (rest[0].startswith("-") and not {"-h", "--help"} & set(rest)):
        raise UserError(f"which CONFIG? It comes after the target, {example}.")
    if rest[0].startswith("-"):
        parse(_everything(TARGETS[name]), ["--help"], f"jaxmeta launch {name} CONFIG")
    config, flags = rest[0], rest[1:]
    with users_mistakes():
        entry = catalogue.find(config, "experiment")
    parsed, overrides = parse(
        _everything(TARGETS[name]),
        flags,
        f"jaxmeta launch {name} {config}",
        return_unknown_args=True,
    )
    options, target = parsed.options, parsed.target
    train, _ = read(entry, overrides)  # finds what `train` would refuse
    cluster = train.cluster
    if {cluster.coordinator, cluster.num_processes, cluster.process_id} != {None}:
        raise UserError(
            "--coordinator, --num-processes and --process-id are set by the target, "
            "for every process its own; leave them out."
        )
    mount = target.mount if isinstance(target, Gke) else "runs"
    run_dir = options.run_dir or f"{mount}/{entry.name}"
    job = Job(config=config, run_dir=run_dir, overrides=tuple(overrides))
    if isinstance(target, Local) and not target.port:
        target = dataclasses.replace(target, port=free_port())
    with users_mistakes():
        text = target.render(job)
    if options.dry_run:
        print(text, end="")
    elif isinstance(target, Local):
        _check_program("jaxmeta")
        sys.exit(run_together(target.processes(job)))
    else:
        sys.exit(_give(target, text))


def _everything(kind: type[Target]) -> Any:
    """The options of a launch and of its target."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Everything:
        options: Annotated[LaunchOptions, tyro.conf.arg(name="")]
        target: Annotated[kind, tyro.conf.arg(name="")]  # pyright: ignore[reportInvalidTypeForm] - known when it is parsed

    return Everything


def _give(target: Target, text: str) -> int:
    """Gives a text to the program that starts it."""
    _check_program(target.program[0])
    with tempfile.TemporaryDirectory() as directory:
        # Not on its standard input, from which an ssh in it would read on.
        file = Path(directory, target.template)
        file.write_text(text, encoding="utf-8")
        return subprocess.run([*target.program, str(file)], check=False).returncode


def _check_program(name: str) -> None:
    if shutil.which(name) is None:
        raise UserError(
            f"{name} is not on the PATH; install it, or write the text of --dry-run "
            "where it is."
        )
