"""The command line: `jaxmeta list | train | launch | evaluate | reproduce | ...`.

JAX is imported by the commands that need it, so that help and `list` answer at once.
"""

import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from jaxmeta.core.names import did_you_mean
from jaxmeta.failures import (
    leave,
    of_several,
    plain_warnings,
    quiet_threads,
    say,
)
from jaxmeta.options import UserError

USAGE = """\
usage: jaxmeta COMMAND [...]

Multi-task and meta-learning in pure-functional JAX.

commands:
  list              every experiment and table: what it is, paper, time and hardware
  train CONFIG      train an experiment (a name under configs/, or a Python file)
  launch TARGET     put a training on many machines: local, slurm, tpu-vm, gke, sky
  evaluate RUN      measure a trained run on held-out tasks
  reproduce TABLE   run a published table, ours beside the paper's
  report RUN...     render runs and tables as Markdown and PNG
  bench NAME        measure speed on this machine

`jaxmeta COMMAND --help` lists the options of a command, and
`jaxmeta train CONFIG --help` every field of an experiment.
"""

COMMANDS = ("list", "train", "launch", "evaluate", "reproduce", "report", "bench")
"""Each is the module of its name in `jaxmeta.commands`."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command.

    Exits with 0; 2, a mistake of the user's; 3, the loss was not finite; 4, it hung
    among several processes; 42, it was asked to end (SIGTERM) and has written a
    checkpoint; 130 after Ctrl-C; 141 if nobody reads the output.
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
        leave(2)
    except KeyboardInterrupt:
        again = command in ("train", "reproduce")
        hint = " The same command goes on from the last checkpoint." * again
        say(f"jaxmeta {command}: interrupted.{hint}")
        leave(130)
    except BrokenPipeError:
        # Python flushes both once more when it exits.
        for number, stream in enumerate((sys.stdout, sys.stderr), start=1):
            try:
                if stream is not None:
                    stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        leave(141)
    except Exception:  # a defect, of which the others must not wait to hear
        if not of_several():
            raise
        traceback.print_exc()
        leave(1)


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
    return importlib.import_module(f"jaxmeta.commands.{name}").run


def _version() -> None:
    import importlib.metadata

    print(f"jaxmeta {importlib.metadata.version('jaxmeta')}")
