"""What the processes of one program say to each other outside compiled code.

All of it is nothing where there is one process.
"""

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


def wait_for_all(where: str) -> None:
    """Returns when every process has come to `where`.

    Example:
      >>> wait_for_all("the run directory")
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def as_first(value: bool) -> bool:
    """What the first process finds, so that all do the same.

    Example:
      >>> as_first(True)
      True
    """
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.array(value)))


def is_true_of_all(value: bool) -> bool:
    """Whether it is true in every process, so that all do the same.

    Example:
      >>> is_true_of_all(False)
      False
    """
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.process_allgather(np.array(value)).all())
