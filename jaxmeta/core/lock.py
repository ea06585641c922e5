"""One job at a time in a run directory."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

LOCK = "lock.json"
"""In the run directory: who holds it, host and process."""


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds a directory until the end, however this process ends.

    The lock is the operating system's, so that none is left behind by a kill. A file
    system that knows no locks is taken as it is.

    Args:
      directory: it must be there.

    Raises:
      ValueError: naming the host and process that holds it.

    Example:
      >>> import tempfile
      >>> with locked(Path(tempfile.mkdtemp())):
      ...     pass
    """
    with (directory / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{directory} is in use by {_holder(directory / LOCK)}; wait for it, "
                "end it, or choose another --run-dir."
            ) from None
        except OSError:
            yield
            return
        file.truncate(0)
        json.dump({"host": socket.gethostname(), "process": os.getpid()}, file)
        file.flush()
        yield


def _holder(path: Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return f"process {found['process']} on {found['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun
        return "another process"
