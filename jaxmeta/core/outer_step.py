"""What one outer step saw and did, and more metrics made of it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxmeta.core.metrics import Mean, Metrics
from jaxmeta.core.types import Params, TaskIds, TaskLosses


class OuterStep(NamedTuple):
    """What one outer step saw and did, for `step_metrics`.

    Attributes:
      task_grads: gradient of every task, every leaf `[task, *p]`.
      change: what the step added to the parameters, every leaf `[*p]`.
      losses: `[task]` before the step.
      losses_after: `[task]` of the same tasks with the same keys after it.
      task_ids: `[task]`.
    """

    task_grads: Params
    change: Params
    losses: TaskLosses
    losses_after: TaskLosses
    task_ids: TaskIds


StepMetrics = Callable[[OuterStep], Metrics]
"""More metrics of a step; their names have a prefix of their own, `diagnostics/x`."""


def named(metrics: Any) -> Metrics:
    """What `step_metrics` returned, if that is metrics with a prefix of their own."""
    fits = isinstance(metrics, Mapping) and all(
        "/" in name and isinstance(mean, Mean) for name, mean in metrics.items()
    )
    if not fits:
        raise ValueError(
            "step_metrics must return {'prefix/name': Mean}, as "
            f"surgery.step_diagnostics does, got {metrics!r:.80}."
        )
    return metrics
