"""One job at a time in a run directory."""

import contextlib
import fcntl
import json
import os
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import jax

from jaxmeta.core import hosts

LOCK = "lock.json"
"""In the run directory: who holds it, host and process, and since when."""

SECONDS = 60.0
"""How late hosts may see what another has written."""

_POLL_SECONDS = 0.5
_BEGAN = time.time()


class InUseError(ValueError):
    """A directory that another process holds."""


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds a directory until the end, however this process ends.

    The lock is the operating system's, so that none is left behind by a kill. A file
    system that knows no locks is taken as it is.

    Args:
      directory: it must be there.

    Raises:
      InUseError: naming the host and process that holds it.

    Example:
      >>> import tempfile
      >>> with locked(Path(tempfile.mkdtemp())):
      ...     pass
    """
    with (directory / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(
                f"{directory} is in use by {_holder(directory / LOCK)}; wait for it, "
                "end it, or choose another --run-dir."
            ) from None
        except OSError:
            pass
        file.truncate(0)
        me = {"host": socket.gethostname(), "process": os.getpid(), "at": _BEGAN}
        json.dump(me, file)
        file.flush()
        os.fsync(file.fileno())
        yield


def check_shared(directory: Path) -> None:
    """Makes sure that every process sees the directory that the first has locked.

    Hosts may see late what another has written to a file server.

    Raises:
      ValueError: in every process, if one of them still does not after a minute.

    Example:
      >>> check_shared(Path("runs/x"))  # alone
    """
    if jax.process_count() == 1:
        return
    held, until = hosts.numbers_of_first([_mark(directory)]), time.monotonic() + SECONDS
    while [_mark(directory)] != held and time.monotonic() < until:
        time.sleep(_POLL_SECONDS)
    seen = [_mark(directory)] == held
    if not hosts.is_true_of_all(seen):
        raise ValueError(
            f"{'another' if seen else 'this'} process does not see what process 0 "
            f"writes to {directory}; choose a --run-dir that all hosts share, on a "
            "file server or a mounted bucket."
        )


def _mark(directory: Path) -> int:
    """Tells one holding of a directory from another, below 2^31."""
    try:
        return zlib.crc32((directory / LOCK).read_bytes()) >> 1
    except OSError:
        return 0


def _holder(path: Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return f"process {found['process']} on {found['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun
        return "another process"
