"""How long programs take, measured so that they can be compared.

On a CPU its processor time counts, which a busy machine disturbs less than the clock;
on an accelerator the clock does.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np


def on_cpu() -> bool:
    """Whether processor time is what counts here."""
    return jax.default_backend() == "cpu"


def unit() -> str:
    """What a second is here.

    Example:
      >>> unit() in ("CPU s", "s")
      True
    """
    return "CPU s" if on_cpu() else "s"


def median_seconds(runs: Sequence[Callable[[], Any]], rounds: int = 5) -> list[float]:
    """Median seconds of each; they take turns, after one turn that is not counted.

    Args:
      runs: each runs a program to its end.
      rounds: turns that are counted, >= 1.

    Example:
      >>> (seconds,) = median_seconds([lambda: None])
      >>> 0.0 <= seconds < 1.0
      True
    """
    clock = time.process_time if on_cpu() else time.perf_counter
    spent: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(rounds):
        for run, mine in zip(runs, spent, strict=True):
            started = clock()
            run()
            mine.append(clock() - started)
    return [float(np.median(mine)) for mine in spent]
