"""Being asked to end: a checkpoint first, at the same step in every process."""

import signal
import threading
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils


class PreemptedError(Exception):
    """The run was asked to end and has written a checkpoint; the message says where."""


class Preemption:
    """Whether SIGTERM has come.

    JAX hears it in every program of several processes and agrees on a step. A handler
    of Python's would take its place, so there is one only where a process is alone, as
    long as this is open, and in the main thread.

    Example:
      >>> with Preemption() as preemption:
      ...     preemption.reached(3, 1)
      False
    """

    def __init__(self):
        self._heard, self._before = False, None

    def __enter__(self) -> "Preemption":
        alone = jax.process_count() == 1
        if alone and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._hear)
        return self

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._heard = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def reached(self, step: int, num_steps: int) -> bool:
        """Whether the run is to end after this step.

        Args:
          step: how many have been taken; the same in every process.
          num_steps: since the last call. JAX chooses one step and wants to hear of all.
        """
        if jax.process_count() == 1:
            return self._heard
        taken = range(step - num_steps + 1, step + 1)
        return any([multihost_utils.reached_preemption_sync_point(i) for i in taken])
