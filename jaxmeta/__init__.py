"""jaxmeta: models that change when the world does.

Multi-task and meta-learning in pure-functional JAX. Public names are loaded when they
are first used, so that `import jaxmeta` costs nothing and touches no device.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxmeta.core.aggregate import TaskAggregator as TaskAggregator
    from jaxmeta.core.aggregate import WeightsOnly as WeightsOnly
    from jaxmeta.core.aggregate import mean_over_tasks as mean_over_tasks
    from jaxmeta.core.aggregate import sum_over_tasks as sum_over_tasks
    from jaxmeta.core.evaluate import evaluate as evaluate
    from jaxmeta.core.experiment import Experiment as Experiment
    from jaxmeta.core.experiment import Optimizer as Optimizer
    from jaxmeta.core.fit import fit as fit
    from jaxmeta.core.learner import Learner as Learner
    from jaxmeta.core.metrics import Mean as Mean
    from jaxmeta.core.parallel import Parallel as Parallel
    from jaxmeta.core.parallel import map_tasks as map_tasks
    from jaxmeta.core.task import DeviceSource as DeviceSource
    from jaxmeta.core.task import Examples as Examples
    from jaxmeta.core.task import Task as Task
    from jaxmeta.core.task import TaskSource as TaskSource
    from jaxmeta.core.train import TrainState as TrainState
    from jaxmeta.core.train import init_state as init_state
    from jaxmeta.core.train import make_train_step as make_train_step
    from jaxmeta.meta.maml import Maml as Maml
    from jaxmeta.symmetry.layers import MSRConv as MSRConv
    from jaxmeta.symmetry.layers import MSRDense as MSRDense

_HOME = {
    "DeviceSource": "jaxmeta.core.task",
    "Examples": "jaxmeta.core.task",
    "Experiment": "jaxmeta.core.experiment",
    "Learner": "jaxmeta.core.learner",
    "MSRConv": "jaxmeta.symmetry.layers",
    "MSRDense": "jaxmeta.symmetry.layers",
    "Maml": "jaxmeta.meta.maml",
    "Mean": "jaxmeta.core.metrics",
    "Optimizer": "jaxmeta.core.experiment",
    "Parallel": "jaxmeta.core.parallel",
    "Task": "jaxmeta.core.task",
    "TaskAggregator": "jaxmeta.core.aggregate",
    "TaskSource": "jaxmeta.core.task",
    "TrainState": "jaxmeta.core.train",
    "WeightsOnly": "jaxmeta.core.aggregate",
    "evaluate": "jaxmeta.core.evaluate",
    "fit": "jaxmeta.core.fit",
    "init_state": "jaxmeta.core.train",
    "make_train_step": "jaxmeta.core.train",
    "map_tasks": "jaxmeta.core.parallel",
    "mean_over_tasks": "jaxmeta.core.aggregate",
    "sum_over_tasks": "jaxmeta.core.aggregate",
}

__all__ = [
    "DeviceSource",
    "Examples",
    "Experiment",
    "Learner",
    "MSRConv",
    "MSRDense",
    "Maml",
    "Mean",
    "Optimizer",
    "Parallel",
    "Task",
    "TaskAggregator",
    "TaskSource",
    "TrainState",
    "WeightsOnly",
    "evaluate",
    "fit",
    "init_state",
    "make_train_step",
    "map_tasks",
    "mean_over_tasks",
    "sum_over_tasks",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'jaxmeta' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
