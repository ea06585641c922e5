"""An experiment as one frozen object: the object is the config."""

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar, Literal

import jax
import optax

from jaxmeta.core.aggregate import TaskAggregator, mean_over_tasks
from jaxmeta.core.learner import Learner
from jaxmeta.core.outer_step import StepMetrics
from jaxmeta.core.parallel import Parallel
from jaxmeta.core.task import TaskSource
from jaxmeta.core.types import Precision

MOST = 2**31 - 1
"""Steps and tasks are counted in 32 bits."""


def _at_least(minimum: int, **values: int) -> None:
    for name, value in values.items():
        if value < minimum:
            raise ValueError(f"{name} must be >= {minimum}, got {value}.")
        if value > MOST and name != "seed":
            raise ValueError(f"{name} must be at most {MOST}, got {value}.")


def _one_of(choices: tuple[str, ...], **values: str) -> None:
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"{name} must be one of {choices}, got {value!r}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How task gradients become an update: aggregate, clip, then step.

    Raises:
      ValueError: for a learning rate or clip norm that is not positive and finite.

    Example:
      >>> optimizer = Optimizer(learning_rate=1e-2, clip_norm=1.0)
      >>> aggregator, tx = optimizer.make()
    """

    aggregator: Callable[[], TaskAggregator] = mean_over_tasks
    """Makes the between-task aggregator."""

    transform: Callable[..., optax.GradientTransformation] = optax.adam
    """Makes the outer optimiser from a learning rate."""

    learning_rate: float = 1e-3
    """Outer learning rate."""

    clip_norm: float | None = None
    """Global norm to which the aggregated gradient is clipped; None: not clipped."""

    accumulate: int = 1
    """Outer steps whose gradients are averaged into one update, >= 1: a larger batch
    of tasks than fits. Between-task rules see the tasks of one step at a time, and for
    diagnostics the steps between change nothing."""

    def __post_init__(self):
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value}.")
        _at_least(1, accumulate=self.accumulate)

    def make(self) -> tuple[TaskAggregator, optax.GradientTransformation]:
        """The aggregator and the chain that follows it."""
        step = self.transform(self.learning_rate)
        if self.clip_norm is not None:
            step = optax.chain(optax.clip_by_global_norm(self.clip_norm), step)
        if self.accumulate > 1:
            step = optax.MultiSteps(step, self.accumulate).gradient_transformation()
        aggregator = self.aggregator()
        if self.accumulate > 1 and getattr(aggregator, "observe", None) is not None:
            raise ValueError(
                "this aggregator looks at losses after every step, and with accumulate "
                f"{self.accumulate} most change nothing; set accumulate to 1."
            )
        return aggregator, step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """When and on how many held-out tasks a run is measured."""

    every: int = 0
    """Steps between validations, and at the end; 0: none at all."""

    num_validation_tasks: int = 320
    """Validation tasks each time; the same tasks every time."""

    num_test_tasks: int = 1000
    """Test tasks at the end."""

    tasks_per_batch: int = 32
    """Tasks evaluated at a time."""

    checkpoint: Literal["latest", "best"] = "latest"
    """Which state is tested: the last, or the one that validated best."""

    metric: str = "loss"
    """The metric that picks the best checkpoint and heads the tables."""

    mode: Literal["min", "max"] = "min"
    """Whether the metric is better when small (min) or large (max)."""

    over_tasks: Literal["mean", "worst"] = "mean"
    """Which checkpoint is best: by the mean over validation tasks, or the worst one."""

    def __post_init__(self):
        _at_least(0, every=self.every)
        _at_least(
            1,
            num_validation_tasks=self.num_validation_tasks,
            num_test_tasks=self.num_test_tasks,
            tasks_per_batch=self.tasks_per_batch,
        )
        _one_of(("min", "max"), mode=self.mode)
        _one_of(("latest", "best"), checkpoint=self.checkpoint)
        _one_of(("mean", "worst"), over_tasks=self.over_tasks)
        if self.checkpoint == "best" and not self.every:
            raise ValueError(
                "checkpoint 'best' needs validations: set every to more than 0."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpointing:
    """When a run is saved; it is always saved at the end."""

    every: int = 0
    """Steps between checkpoints; 0: only at the end."""

    keep: int = 2
    """Checkpoints kept, >= 2: one to fall back to."""

    def __post_init__(self):
        _at_least(0, every=self.every)
        _at_least(2, keep=self.keep)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """One training run, whole: what learns, from what, how, for how long.

    Raises:
      ValueError: at construction, naming the field, its value and the fix.

    Example:
      >>> from jaxmeta.core.testing import smoke_learner, smoke_source
      >>> experiment = Experiment(learner=smoke_learner(), source=smoke_source())
      >>> experiment.tasks_per_step
      32
    """

    unit: ClassVar[str] = "tasks"
    measured_on: ClassVar[str] = "tasks"

    learner: Learner
    """The method, with its network."""

    source: TaskSource
    """Where the tasks come from."""

    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    """How task gradients become an update."""

    parallel: Parallel = dataclasses.field(default_factory=Parallel)
    """How tasks are spread over devices."""

    evaluation: Evaluation = dataclasses.field(default_factory=Evaluation)
    """When and on what the run is measured."""

    checkpoint: Checkpointing = dataclasses.field(default_factory=Checkpointing)
    """When the run is saved."""

    tasks_per_step: int = 32
    """Tasks in an outer step (the meta-batch)."""

    steps: int = 1000
    """Outer steps."""

    step_metrics: StepMetrics | None = None
    """More metrics of every step; `--diagnostics` sets surgery's own."""

    log_every: int = 100
    """Steps between lines of metrics; they run as one compiled loop."""

    seed: int = 0
    """Root of every random number of the run."""

    precision: Precision = "highest"
    """Matmul precision: highest (float32), high, default (TF32 or bfloat16), or
    BF16_BF16_F32: products of bfloat16, added up in float32. Parameters, inner loop,
    gradients of tasks and what is made of them are float32 with all of them."""

    max_skips: int = 2
    """Steps in a row with a non-finite loss or update that are skipped; one more ends
    the run."""

    def __post_init__(self):
        _at_least(
            1,
            tasks_per_step=self.tasks_per_step,
            steps=self.steps,
            log_every=self.log_every,
        )
        _at_least(0, seed=self.seed, max_skips=self.max_skips)
        if self.steps % self.optimizer.accumulate:
            raise ValueError(
                "steps must be a multiple of optimizer.accumulate "
                f"({self.optimizer.accumulate}), got {self.steps}: the last would "
                "change nothing."
            )
        for name, every in (
            ("evaluation.every", self.evaluation.every),
            ("checkpoint.every", self.checkpoint.every),
        ):
            if every % self.log_every:
                raise ValueError(
                    f"{name} must be a multiple of log_every ({self.log_every}), "
                    f"got {every}."
                )

    def check_devices(self) -> None:
        """Raises ValueError unless the devices that are here can run this."""
        if self.precision == "BF16_BF16_F32" and jax.default_backend() == "cpu":
            raise ValueError(
                "precision BF16_BF16_F32 is for accelerators; on a CPU set default."
            )
        self.parallel.check_divisible(self.tasks_per_step, "tasks_per_step")
        self.parallel.check_divisible(
            self.evaluation.tasks_per_batch, "evaluation.tasks_per_batch"
        )
