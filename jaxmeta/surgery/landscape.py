"""The two-task landscape on which Adam stalls and PCGrad does not.

Yu, Kumar, Gupta, Levine, Hausman, Finn, Gradient Surgery for Multi-Task Learning,
NeurIPS 2020 (arXiv 2001.06782), figure 1 and appendix D. Two parameters, two tasks,
each with a deep and steep valley: at the start the gradients point almost exactly
against each other (cos = -0.999), and that of task 0 is 3.5 times as long. The valleys
meet only where theta_1 = -2 and theta_2 goes to infinity.
"""

import dataclasses

import jax.numpy as jnp

from jaxmeta.core.learner import Learner
from jaxmeta.core.metrics import Mean
from jaxmeta.core.task import DeviceSource, Task
from jaxmeta.core.types import Array, Float, Int, Scalar

NUM_TASKS = 2
CLIP = 5e-6
"""Where the logarithm is cut off: a loss is never below its factor times log 5e-6."""


def first_loss(theta: Float[Array, "2"]) -> Scalar:
    """The loss of task 0: `20 log max(|0.5 theta_1 + tanh theta_2|, 5e-6)`.

    Args:
      theta: `[2]`.

    Returns:
      `[]`, at least -244.1, at the bottom of the valley.

    Source: Yu et al. 2020, appendix D.

    Example:
      >>> round(float(first_loss(jnp.array([2.0, 0.0]))), 4)
      0.0
    """
    return 20 * _clipped_log(0.5 * theta[0] + jnp.tanh(theta[1]))


def second_loss(theta: Float[Array, "2"]) -> Scalar:
    """The loss of task 1: `25 log max(|0.5 theta_1 - tanh theta_2 + 2|, 5e-6)`.

    Args:
      theta: `[2]`.

    Returns:
      `[]`, at least -305.1, at the bottom of the valley.

    Source: Yu et al. 2020, appendix D.

    Example:
      >>> round(float(second_loss(jnp.array([-2.0, 0.0]))), 4)
      0.0
    """
    return 25 * _clipped_log(0.5 * theta[0] - jnp.tanh(theta[1]) + 2)


def _clipped_log(x: Scalar) -> Scalar:
    return jnp.log(jnp.maximum(jnp.abs(x), CLIP))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Landscape(Learner):
    """Two parameters `theta` `[2]` on the landscape; there is nothing to adapt.

    The loss of a task is `first_loss` where its `task_id` is 0, `second_loss` where it
    is 1. Metrics: `loss`, `theta_1` and `theta_2`, the last two the same for both
    tasks. A mean over tasks of `loss` is half of the sum that the paper draws.

    Source: Yu et al. 2020, figure 1 and appendix D.

    Example:
      >>> import jax
      >>> from jaxmeta.core.task import Task
      >>> learner, task = Landscape(), Task((), (), jnp.array(1))
      >>> theta, _ = learner.init(jax.random.key(0), task)
      >>> loss, (metrics, _) = learner.loss(theta, (), task, jax.random.key(1))
      >>> round(float(loss), 2), sorted(metrics)
      (29.43, ['loss', 'theta_1', 'theta_2'])
    """

    start: tuple[float, float] = (0.5, -3.0)
    """Where theta starts, whatever the seed."""

    def init(self, key, example):
        del key, example
        return jnp.array(self.start, jnp.float32), ()

    def adapt(self, params, model_state, support, key):
        del model_state, support, key
        return params

    def loss(self, params, model_state, task, key):
        del key
        first, second = first_loss(params), second_loss(params)
        loss = jnp.where(task.task_id == 0, first, second)
        metrics = {
            "loss": Mean.of(loss),
            "theta_1": Mean.of(params[0]),
            "theta_2": Mean.of(params[1]),
        }
        return loss, (metrics, model_state)

    def evaluate(self, params, model_state, task, key):
        return self.loss(params, model_state, task, key)[1][0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LandscapeSource(DeviceSource):
    """The two tasks of the landscape in turn: slot i of a batch is task `i % 2`.

    A task has neither support nor query, only its `task_id`; nothing is random.

    Source: Yu et al. 2020, appendix D.

    Example:
      >>> import jax
      >>> source, slots = LandscapeSource(), jnp.arange(4)
      >>> source.sample(jax.random.key(0), slots, split="train").task_id.tolist()
      [0, 1, 0, 1]
    """

    def read(self):
        return ()

    def sample_task(self, data, key, slot: Int[Array, ""], *, split):
        del data, key, split
        return Task(support=(), query=(), task_id=slot % NUM_TASKS)
