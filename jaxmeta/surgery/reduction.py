"""Sum or mean over the tasks that are there."""

from typing import Literal, TypeAlias

import jax.numpy as jnp

from jaxmeta.core.types import TaskWeights
from jaxmeta.surgery.gram import Gram, live_tasks

Reduction: TypeAlias = Literal["sum", "mean"]


def check_reduction(reduction: str) -> None:
    """Raises ValueError for a reduction that is neither "sum" nor "mean".

    Example:
      >>> check_reduction("sum")
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be 'sum' or 'mean', got {reduction!r}.")


def reduced(weights: TaskWeights, gram: Gram, reduction: Reduction) -> TaskWeights:
    """Weights of a sum, divided by the number of live tasks for "mean".

    Example:
      >>> reduced(jnp.ones(2), jnp.eye(2), "mean").tolist()
      [0.5, 0.5]
    """
    if reduction == "sum":
        return weights
    return weights / jnp.maximum(live_tasks(gram).sum(), 1.0)
