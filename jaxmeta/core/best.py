"""The best state that a run has seen."""

import math
import warnings
from typing import Any, Literal

from jaxmeta.core.checkpoint import CheckpointError, Checkpoints


class Best:
    """Keeps the state of the best value so far, over restarts of the run, too.

    Args:
      checkpoints: where it is kept.
      like: a state of the same tree, shapes and types.
      mode: whether a value is better when small (min) or large (max).

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> import numpy as np
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     best = Best(Checkpoints(Path(folder)), np.zeros(1), "max")
      ...     for step, value in enumerate((0.1, 0.3, 0.2)):
      ...         best.offer(step, np.array([value]), value)
      ...     best.close()
      ...     Checkpoints(Path(folder)).restore(np.zeros(1))[0]
      array([0.3])
    """

    def __init__(
        self, checkpoints: Checkpoints, like: Any, mode: Literal["min", "max"]
    ):
        self._checkpoints, self._mode = checkpoints, mode
        self._value: float | None = None
        try:
            if (found := checkpoints.restore(like)) is not None:
                self._value = found[1]["value"]
        except CheckpointError as error:  # the run itself can go on
            warnings.warn(f"starting to look for the best anew: {error}", stacklevel=2)

    def offer(self, step: int, state: Any, value: float) -> None:
        """Keeps a state if its value is better than all before.

        Args:
          step: when it was. A run that goes on may come by at other steps than before;
            the best is always stored as the latest.
          state: the state.
          value: its value.
        """
        if self._value is None or math.isnan(self._value):
            better = True
        else:
            better = value < self._value if self._mode == "min" else value > self._value
        if better:
            self._value = value
            step = max([step, *(before + 1 for before in self._checkpoints.steps())])
            self._checkpoints.save(step, state, {"value": value})
            self._checkpoints.finish()

    def close(self) -> None:
        """Releases the directory."""
        self._checkpoints.close()
