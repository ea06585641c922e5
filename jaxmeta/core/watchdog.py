"""Ends a run that hangs, as when another process waits for a file server."""

import os
import sys
import threading

from jaxmeta.core.writers import Row, Writer

HUNG = 4
"""The exit code of a run that hung."""


class Watchdog(Writer):
    """Ends the process when no metrics have come for some time.

    A device that waits for another cannot be interrupted, and a process that hangs goes
    on to say that it lives (one that is stopped does not, and JAX ends the others after
    `HEARTBEAT_SECONDS`). So this process ends at once, as by a kill; the run goes on
    from its last checkpoint. It watches from the first metrics, as nobody knows how
    long compilation takes, to those of the last step.

    Args:
      seconds: how long is too long.
      last: the last step.

    Example:
      >>> watchdog = Watchdog(60.0, last=2)
      >>> watchdog.write(1, {})
      >>> watchdog.close()
    """

    def __init__(self, seconds: float, last: int):
        self._seconds, self._last, self._step = seconds, last, 0
        self._heard = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def resume(self, step: int) -> None:
        self._step = step

    def write(self, step: int, values: Row) -> None:
        self._step = step
        if step >= self._last:
            return self.close()
        if self._thread.ident is None:
            self._thread.start()
        self._heard.set()

    def close(self) -> None:
        self._step = self._last
        self._heard.set()

    def _watch(self) -> None:
        while self._heard.wait(self._seconds):
            if self._step >= self._last:
                return
            self._heard.clear()
        print(
            f"jaxmeta: no step finished for {self._seconds:g} s after step "
            f"{self._step}; another process may be stopped, or log_every steps take "
            "longer (raise --watchdog). The same command goes on from the last "
            "checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(HUNG)
