"""How the command line tells of what goes wrong: one line, and an exit code."""

import contextlib
import os
import sys
import time
import warnings
from typing import NoReturn

from jaxmeta.launch_job import PREEMPTED
from jaxmeta.options import UserError, one_line

_SECONDS_FOR_OTHERS = 3.0


@contextlib.contextmanager
def plain_warnings():
    """Shows a warning as one line of plain words, without the source it came from."""

    def show(message, category, filename, lineno, file=None, line=None):
        say(f"jaxmeta: warning: {one_line(message)}")

    with warnings.catch_warnings():
        warnings.filterwarnings("default", category=UserWarning)
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def quiet_threads():
    """Hides what threads of tensorstore print when a write fails, which is raised."""
    before = sys.unraisablehook

    def hook(unraisable):
        if "Event loop is closed" not in str(unraisable.exc_value):
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextlib.contextmanager
def users_mistakes():
    """Turns the errors that a user's input can cause into a `UserError`."""
    try:
        with disk_errors():
            yield
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(one_line(error)) from error


@contextlib.contextmanager
def disk_errors():
    """Says what to do when files cannot be read or written."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        named = f": {error.filename}" if error.filename else ""
        raise UserError(
            f"{error.strerror or error}{named}. Free some space, make it readable and "
            "writable, or choose another directory."
        ) from error


@contextlib.contextmanager
def failures():
    """Ends a run that cannot go on: 3 when it is not finite, 2 when a disk is full.

    A run that was asked to end, and can go on, ends with 42.
    """
    import jax

    from jaxmeta.core import hosts
    from jaxmeta.core.checkpoint import CheckpointError
    from jaxmeta.core.fit import NonFiniteError
    from jaxmeta.core.preemption import PreemptedError
    from jaxmeta.data.source import DataError

    try:
        with disk_errors():
            yield
    except NonFiniteError as error:
        if hosts.is_first():
            say(f"jaxmeta: {error}")
        sys.exit(3)
    except PreemptedError as error:
        if hosts.is_first():
            say(f"jaxmeta: {error}")
        sys.exit(PREEMPTED)
    except (CheckpointError, DataError) as error:
        raise UserError(one_line(error)) from error
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            "out of memory; lower tasks_per_step, set parallel.task_batch_size or run "
            "fewer environments "
            f"({one_line(error)[:120]})"
        ) from error


def of_several() -> bool:
    """Whether this process has met others."""
    jax = sys.modules.get("jax")  # not every command needs it
    return jax is not None and jax.distributed.is_initialized()


def leave(code: int) -> NoReturn:
    """Ends this process with an exit code.

    One of several would wait for the others when it exits, minutes long, while they
    wait for it in the middle of a program: so it ends at once, and they notice. The
    first, whom the others cannot do without, gives them time to make the same mistake.
    """
    if not of_several():
        sys.exit(code)
    if sys.modules["jax"].process_index() == 0:
        time.sleep(_SECONDS_FOR_OTHERS)
    os._exit(code)


def say(text: str) -> None:
    """Prints to stderr, if anybody listens."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
