"""The official scripted policies, closed loop: in our environment and in their own.

They were written for the official simulator and are never tuned on ours, so whether
they succeed here says whether things move here as they do there.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.evaluate import TaskValues
from jaxmeta.core.procedure import Procedure
from jaxmeta.core.progress import Progress
from jaxmeta.core.types import Array, Float, Int
from jaxmeta.core.writers import Writer
from jaxmeta.manipulation.env import HORIZON, ManipulationEnv
from jaxmeta.manipulation.official import Official, check
from jaxmeta.manipulation.physics import Physics
from jaxmeta.manipulation.suites import NUM_GOALS, Suite

EVERY = 25
"""Steps between two looks at the progress."""


def play(
    env: ManipulationEnv,
    act: Callable[[np.ndarray, np.ndarray], np.ndarray],
    tasks: Int[np.ndarray, "row"],
    vectors: Float[Array, "row 6"],
    *,
    horizon: int = HORIZON,
    after: Callable[[int], None] = lambda step: None,
) -> Int[np.ndarray, "row"]:
    """Plays one episode a row, all in one batch.

    Args:
      env: with the tasks.
      act: actions `[n, 4]` for the tasks `[n]` and observations `[n, 39]` of the rows
        that have not succeeded yet. The others stand still from then on.
      tasks: `[row]` which of the environment's tasks.
      vectors: `[row, 6]` the draws that say where things and goal are.
      horizon: most steps of an episode, >= 1.
      after: called with the number of steps done.

    Returns:
      `[row]` steps until the first success, 0 where there was none.
    """
    keys = jax.random.split(jax.random.key(0), len(tasks))
    state = jax.jit(jax.vmap(env.reset_to))(vectors, jnp.asarray(tasks), keys)
    step = jax.jit(jax.vmap(env.step), donate_argnums=0)
    steps = np.zeros(len(tasks), np.int64)
    for i in range(1, horizon + 1):
        going = np.flatnonzero(steps == 0)
        if not going.size:
            break
        actions = np.zeros((len(tasks), env.action_size), np.float32)
        actions[going] = act(tasks[going], np.asarray(state.obs)[going])
        state = step(state, jnp.asarray(actions))
        solved = np.asarray(state.metrics["success"])[going] > 0
        steps[going[solved]] = i
        after(i)
    return steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScriptedPlay(Procedure):
    """How often, and how soon, the official scripted policies succeed.

    Of every task the first goals of MT50 (seed 42) are played, the same in our
    environment and in the official one. Measures, one value a task and goal, goals of a
    task together: `success`, 1 if any step of the episode succeeds, else 0, and `steps`
    to the first success, the horizon where there is none.

    Raises:
      ValueError: for an unknown task, no goals or more than there are, and an episode
        of no steps or of more than the environment's.
    """

    unit: ClassVar[str] = "episodes"
    measured_on: ClassVar[str] = "episodes"

    physics: Physics | None
    """Of our environment; None: the official package plays in its own."""

    tasks: tuple[str, ...] = dataclasses.field(
        default_factory=lambda: Suite(name="MT50").tasks
    )
    """Official names without version."""

    num_goals: int = 20
    """Goals of a task."""

    horizon: int = HORIZON
    """Most steps of an episode."""

    seed: int = 0
    """Which goals: another seed plays the next ones."""

    def __post_init__(self):
        if self.num_goals < 1 or not 1 <= self.horizon <= HORIZON:
            raise ValueError(
                f"num_goals must be >= 1 and horizon in 1 to {HORIZON}, got "
                f"{self.num_goals} and {self.horizon}."
            )
        if (self.seed + 1) * self.num_goals > NUM_GOALS:
            raise ValueError(
                f"a task has {NUM_GOALS} goals, seed {self.seed} with num_goals "
                f"{self.num_goals} is beyond them; take fewer."
            )
        for name in self.tasks:
            Suite(name="MT1", task=name)

    @property
    def steps(self) -> int:
        return len(self.tasks) if self.physics is None else self.horizon

    def check(self) -> None:
        check()

    def vectors(self) -> Float[Array, "task goal 6"]:
        """`[task, num_goals, 6]` the draws that are played."""
        suite, first = Suite(name="MT50"), self.seed * self.num_goals
        rows = jnp.array([suite.tasks.index(name) for name in self.tasks])
        return suite.goals("train")[rows, first : first + self.num_goals]

    def perform(
        self, directory: Path, writer: Writer, progress: Progress
    ) -> TaskValues:
        del directory
        with Official() as official:
            where = self._theirs if self.physics is None else self._ours
            steps = where(official, progress)
        solved = steps > 0
        steps = np.where(solved, steps, float(self.horizon))
        values = {"success": solved.astype(np.float64), "steps": steps}
        writer.write(self.steps, {name: float(x.mean()) for name, x in values.items()})
        return values

    def _theirs(self, official: Official, progress: Progress) -> np.ndarray:
        found, started = [], time.perf_counter()
        for i, (name, vectors) in enumerate(
            zip(self.tasks, np.asarray(self.vectors()), strict=True), start=1
        ):
            answer = official.ask(
                "play", task=name, vectors=vectors, horizon=self.horizon
            )
            found.append(answer["steps"])
            rate = i * self.num_goals / (time.perf_counter() - started)
            progress.update(i, {}, rate)
        return np.concatenate(found)

    def _ours(self, official: Official, progress: Progress) -> np.ndarray:
        assert self.physics is not None
        env, names = ManipulationEnv(self.tasks, physics=self.physics), self.tasks
        tasks = np.repeat(np.arange(len(names)), self.num_goals)
        started = time.perf_counter()

        def act(numbers: np.ndarray, obs: np.ndarray) -> np.ndarray:
            asked = np.array(names)[numbers]
            return official.ask("act", tasks=asked, obs=obs)["actions"]

        def after(step: int) -> None:
            if step % EVERY == 0:
                seconds = time.perf_counter() - started
                progress.update(step, {}, len(tasks) * step / self.horizon / seconds)

        vectors = self.vectors().reshape(len(tasks), -1)
        return play(env, act, tasks, vectors, horizon=self.horizon, after=after)
