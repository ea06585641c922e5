"""Processes that belong together: started at once, and none outlives the others."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence

Process = tuple[dict[str, str], list[str]]
"""Environment variables beside those that there are, and the words of a command."""

GRACE_SECONDS = 20.0
"""How long the others have to notice that one has ended; JAX needs ten."""

_POLL_SECONDS = 0.1


def run_together(processes: Sequence[Process]) -> int:
    """Runs processes to their end.

    What ends one (SIGTERM, Ctrl-C) is passed on to all. When one fails, those that have
    not ended after `GRACE_SECONDS` are killed.

    Args:
      processes: what to run. Proxies are left out of their environment, for they would
        be asked for the way to this very machine.

    Returns:
      The exit code of the first that failed (128 and its number for a signal), or 0.

    Example:
      >>> import sys
      >>> run_together([({}, [sys.executable, "-c", f"exit({i})"]) for i in (0, 3)])
      3
    """
    direct = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    running = [
        subprocess.Popen(
            words, env={**direct, **environ}, stdout=subprocess.PIPE, text=True
        )
        for environ, words in processes
    ]
    showing = [threading.Thread(target=_show, args=(p,)) for p in running]
    for thread in showing:
        thread.start()

    def pass_on(number: int, frame: object) -> None:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        return _wait(running)
    finally:
        for process in running:
            process.kill()
            process.wait()
        for thread in showing:
            thread.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(process: subprocess.Popen) -> None:
    """Prints what a process prints, but for what JAX's collectives do."""
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            if "connected peer ranks" not in line:
                print(line, end="", flush=True)


def _wait(running: list[subprocess.Popen]) -> int:
    failed, until = 0, float("inf")
    while any(process.poll() is None for process in running):
        codes = [code for p in running if (code := p.poll())]
        if codes and not failed:
            failed, until = codes[0], time.monotonic() + GRACE_SECONDS
        if time.monotonic() > until:
            break
        time.sleep(_POLL_SECONDS)
    codes = [code for p in running if (code := p.poll())]
    failed = failed or (codes[0] if codes else 0)
    return 128 - failed if failed < 0 else failed


def free_port(among: Iterable[int] = (0,)) -> int:
    """A port of this machine that nobody listens on.

    Args:
      among: what is tried, in order; 0 leaves the choice to the system.

    Raises:
      OSError: if none is free.

    Example:
      >>> 0 < free_port() < 65536
      True
    """
    for port in among:
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return tried.getsockname()[1]
    raise OSError("no port is free; give one with --port.")
