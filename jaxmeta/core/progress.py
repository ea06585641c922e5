"""What a person sees while a run trains: a bar on a terminal, lines elsewhere."""

import contextlib
import sys
from collections.abc import Mapping

from tqdm import tqdm

from jaxmeta.core.metrics import Values, scalars

SHOWN = (
    *("train/loss", "train/accuracy", "validation/loss", "validation/accuracy"),
    *("validation/success", "validation/return"),
)


class Progress:
    """Shows steps, loss and rate on stderr.

    A run outlives whoever watches it: once stderr is closed, nothing more is shown.

    Args:
      total: steps in all.
      label: what is being trained.
      unit: what the rate counts.
      quiet: show nothing.
    """

    def __init__(
        self, total: int, label: str = "", *, unit: str = "tasks", quiet: bool = False
    ):
        self._total, self._label, self._quiet = total, label, quiet
        self._unit = unit
        self._bar = None
        if not quiet and sys.stderr is not None and sys.stderr.isatty():
            self._bar = tqdm(
                desc=label or None,
                total=total,
                unit="step",
                dynamic_ncols=True,
            )

    def resume(self, step: int) -> None:
        """Shows that the run goes on from `step`."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        elif step and not self._quiet:
            self._say(f"going on from step {step}")

    def update(self, step: int, values: Mapping[str, Values], rate: float) -> None:
        """Shows that `step` is done, at `rate` a second."""
        if self._quiet:
            return
        known = scalars(values)
        shown = [f"{name}={known[name]:.4g}" for name in SHOWN if name in known]
        shown.append(f"{rate:.0f} {self._unit}/s")
        try:
            if self._bar is not None:
                self._bar.set_postfix_str(" ".join(shown), refresh=False)
                self._bar.update(step - self._bar.n)
                return
            self._say(f"{step}/{self._total} {' '.join(shown)}")
        except OSError:
            self._quiet = True

    def _say(self, text: str) -> None:
        head = f"{self._label} " if self._label else ""
        print(f"{head}{text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()
