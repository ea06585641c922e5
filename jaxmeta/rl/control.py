"""A task of the manipulation suites to be learned by trial and error, whole."""

import dataclasses
import functools
import math
from contextlib import closing
from pathlib import Path
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.best import Best
from jaxmeta.core.checkpoint import CheckpointError, Checkpoints
from jaxmeta.core.evaluate import TaskValues
from jaxmeta.core.fit import NonFiniteError
from jaxmeta.core.preemption import PreemptedError, Preemption
from jaxmeta.core.procedure import Procedure
from jaxmeta.core.progress import Progress
from jaxmeta.core.run import reading
from jaxmeta.core.types import PyTree
from jaxmeta.core.writers import Writer
from jaxmeta.manipulation.env import ManipulationEnv
from jaxmeta.manipulation.physics import Physics
from jaxmeta.manipulation.suites import NUM_GOALS, Suite, SuiteSplit
from jaxmeta.rl.play import play
from jaxmeta.rl.ppo import Policy, Ppo


@dataclasses.dataclass(frozen=True, kw_only=True)
class Control(Procedure):
    """One training run: which tasks, in which physics, by which agent, for how long.

    A run that goes on does so with the parameters of its last evaluation: the moments
    of Adam, an adapted learning rate and the episodes under way begin anew. SIGTERM
    ends it after its next evaluation. Its result is the deterministic policy's on the
    official goals: `success`, 1 if any step of an episode succeeds, and `return`.

    Raises:
      ValueError: at construction, naming the field, its value and the fix.

    Example:
      >>> Control(suite=Suite(name="MT1", task="reach")).evaluations
      10
    """

    unit: ClassVar[str] = "steps"
    measured_on: ClassVar[str] = "episodes"

    suite: Suite
    """The tasks, with the official goals that the result is measured on."""

    agent: Ppo = dataclasses.field(default_factory=Ppo)
    """What learns."""

    physics: Physics = dataclasses.field(default_factory=Physics)
    """The faithful 5 x 2.5 ms, or the fast 1 x 12.5 ms."""

    steps: int = 1_000_000  # pyright: ignore[reportIncompatibleMethodOverride] - a field
    """Steps of all environments together; rounded up to whole updates, as many before
    each evaluation."""

    evaluations: int = 10
    """Times that the policy is measured and saved on the way, at most one an update."""

    episodes: int = 32
    """Episodes of such a measurement, with goals drawn anew."""

    checkpoint: Literal["latest", "best"] = "latest"
    """Which policy is the result: the last, or the one of the largest return on the
    way. (Agents may forget what they could.)"""

    seed: int = 0
    """Root of every random number of the run."""

    def __post_init__(self):
        for name in ("steps", "evaluations", "episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}.")
        if self.checkpoint not in ("latest", "best"):
            raise ValueError(
                f"checkpoint must be 'latest' or 'best', got {self.checkpoint!r}."
            )
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be from 0 to 2**31 - 1, got {self.seed}.")

    def env(self, split: SuiteSplit) -> ManipulationEnv:
        """The environment of the tasks of a split."""
        tasks = self.suite.of(split)
        return ManipulationEnv(
            tasks,
            physics=self.physics,
            hidden_goal=self.suite.hides_goals,
            one_hot=len(tasks) > 1 and not self.suite.hides_goals,
        )

    def check(self) -> None:
        devices = jax.local_device_count()
        for name in ("num_envs", "batch_size"):
            if (count := getattr(self.agent, name)) % devices:
                raise ValueError(
                    f"agent.{name} must be a multiple of the {devices} devices, got "
                    f"{count}."
                )

    def estimate(self) -> list[str]:
        init = functools.partial(self.agent.init, self.env("train"), self.seed)
        leaves = jax.tree.leaves(jax.eval_shape(init)[1:])
        update, evaluations = self.agent.steps_per_update, self._evaluations(self.steps)
        updates = evaluations * math.ceil(self.steps / (evaluations * update))
        return [
            f"parameters: {sum(leaf.size for leaf in leaves):,}",
            f"updates: {updates:,} of {update:,} steps",
        ]

    def _evaluations(self, left: int) -> int:
        """How many are due in the steps left: no more than there are updates."""
        updates = math.ceil(left / self.agent.steps_per_update)
        return min(updates, max(1, round(self.evaluations * left / self.steps)))

    def perform(
        self, directory: Path, writer: Writer, progress: Progress
    ) -> TaskValues:
        self._train(directory, writer, progress)
        return self.measure(directory)

    def _train(self, directory: Path, writer: Writer, progress: Progress) -> None:
        env = self.env("train")
        like = self.agent.init(env, self.seed)
        with (
            closing(_checkpoints(directory, "latest")) as latest,
            closing(Best(_checkpoints(directory, "best"), like, "max")) as best,
            Preemption() as preemption,
        ):
            found = latest.restore(like)
            start, done = (None, 0) if found is None else (found[0], found[1]["step"])
            with reading(directory):
                writer.resume(done)
            progress.resume(done)

            def on_evaluation(
                step: int, params: PyTree, metrics: dict[str, float]
            ) -> None:
                now = done + step
                if not np.isfinite(list(metrics.values())).all():
                    raise NonFiniteError(
                        f"the return or loss is not finite after {now} steps; the last "
                        f"good checkpoint is in {latest.directory}. Lower the learning "
                        "rate."
                    )
                writer.write(now, dict(metrics))
                best.offer(now, params, metrics["validation/return"])
                latest.save(now, params, {"step": now})
                latest.finish()
                # Whoever sees it may interrupt, and lose nothing.
                progress.update(now, metrics, metrics["time/steps_per_second"])
                if now < self.steps and preemption.reached(now, 1):
                    raise PreemptedError(
                        f"asked to end at step {now}. The same command goes on from "
                        f"there, with the checkpoint in {latest.directory}."
                    )

            if done < self.steps:
                left = self.steps - done
                self.agent.train(
                    env,
                    steps=left,
                    evaluations=self._evaluations(left),
                    episodes=self.episodes,
                    seed=self.seed + done,
                    start=start,
                    on_evaluation=on_evaluation,
                )

    def policy(self, directory: Path, env: ManipulationEnv) -> Policy:
        """The deterministic policy of a run directory, that of `checkpoint`.

        Args:
          directory: the run directory.
          env: what it is to play.

        Raises:
          CheckpointError: if there is no checkpoint.
        """
        with closing(_checkpoints(directory, self.checkpoint)) as kept:
            found = kept.restore(self.agent.init(env, self.seed))
        if found is None:
            raise CheckpointError(
                f"{directory} has no {self.checkpoint} checkpoint: train it to its end."
            )
        return self.agent.policy(env, found[0])

    def measure(self, directory: Path, num_tasks: int | None = None) -> TaskValues:
        """Plays the policy of a run directory on the official goals.

        Args:
          directory: the run directory.
          num_tasks: on how many of the 50 goals of each task; all when None.

        Raises:
          ValueError: for more goals than there are.
          CheckpointError: if there is no checkpoint.
        """
        if num_tasks is not None and num_tasks > NUM_GOALS:
            raise ValueError(
                f"a task has {NUM_GOALS} official goals, got num_tasks {num_tasks}."
            )
        goals = self.suite.goals("test")[:, :num_tasks]
        tasks = jnp.repeat(jnp.arange(goals.shape[0]), goals.shape[1])
        vectors = goals.reshape(-1, goals.shape[-1])
        env = self.env("test")
        found = play(env, self.policy(directory, env), vectors, tasks)
        return {"success": found.solved.astype(float), "return": found.total}


def _checkpoints(directory: Path, which: Literal["latest", "best"]) -> Checkpoints:
    return Checkpoints(directory / "checkpoints" / which)
