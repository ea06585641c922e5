"""What the processes of one program say to each other outside compiled code.

All of it is nothing where there is one process.
"""

import contextlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils


def is_first() -> bool:
    """Whether this process is the one that writes files and talks.

    Example:
      >>> is_first()
      True
    """
    return jax.process_index() == 0


def as_first(value: bool) -> bool:
    """What the first process finds, so that all do the same.

    Example:
      >>> as_first(True)
      True
    """
    return numbers_of_first([value]) == [1]


def numbers_of_first(numbers: Sequence[int]) -> list[int]:
    """Those of the first process, from 0 to 2^31 - 1, so that all do the same.

    Example:
      >>> numbers_of_first([3, 5])
      [3, 5]
    """
    if jax.process_count() == 1:
        return list(numbers)
    share = multihost_utils.broadcast_one_to_all
    row = np.zeros(share(np.array(len(numbers), np.int32)), np.int32)
    if is_first():
        row[:] = numbers
    return share(row).tolist() if len(row) else []


def is_true_of_all(value: bool) -> bool:
    """Whether it is true in every process, so that all do the same.

    Example:
      >>> is_true_of_all(False)
      False
    """
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.process_allgather(np.array(value)).all())


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What fails within in one process fails in all, so that all do the same.

    Raises:
      Exception: what was raised here, or ValueError if it was in another process.

    Example:
      >>> with together():
      ...     int("?")
      Traceback (most recent call last):
      ValueError: invalid literal for int() with base 10: '?'
    """
    failed = None
    try:
        yield
    except Exception as error:  # whatever it is, the others must hear of it
        failed = error
    if not is_true_of_all(failed is None):
        raise failed or ValueError("it failed in another process")
