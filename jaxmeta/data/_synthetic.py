"""What the synthetic sources share; their tasks never run out."""

from typing import get_args

import jax
import jax.numpy as jnp

from jaxmeta.core.task import Examples, Task
from jaxmeta.core.types import Array, PRNGKey, Split

_SPLITS: tuple[str, ...] = get_args(Split)


def split_stream(key: PRNGKey, split: Split) -> PRNGKey:
    """The key of `split`'s own stream: `fold_in(key, index of the split)`.

    Args:
      key: a task's key.
      split: which part of the distribution.

    Raises:
      ValueError: if `split` is none of the three.

    Example:
      >>> key = jax.random.key(0)
      >>> bool(split_stream(key, "train") == split_stream(key, "test"))
      False
    """
    if split not in _SPLITS:
        raise ValueError(f"split must be one of {_SPLITS}, got {split!r}.")
    return jax.random.fold_in(key, _SPLITS.index(split))


def regression_task(inputs: Array, targets: Array, num_support: int) -> Task:
    """The first `num_support` examples to adapt to, the others to be measured on.

    Args:
      inputs: `[n, ...]`.
      targets: `[n, ...]`.
      num_support: fewer than n.

    Returns:
      A task with task_id 0: tasks that are drawn afresh have no identity.

    Example:
      >>> task = regression_task(jnp.zeros((5, 3)), jnp.zeros(5), 2)
      >>> task.support.inputs.shape, task.query.inputs.shape
      ((2, 3), (3, 3))
    """
    both = Examples(inputs, targets)
    return Task(
        support=jax.tree.map(lambda x: x[:num_support], both),
        query=jax.tree.map(lambda x: x[num_support:], both),
        task_id=jnp.zeros((), jnp.int32),
    )
