"""The tasks as a Brax environment: any mixture of them in one compiled step.

Which task an environment plays, and its goal, are part of its state. So a batch mixes
tasks freely, and a task or goal is drawn anew without compiling anything.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from brax.envs.base import Env, State
from jax.core import Tracer

from jaxmeta.core.types import Array, Bool, Float, Int, Scalar
from jaxmeta.manipulation.hand import STEP_LENGTH, Free, free_motion, moment, started
from jaxmeta.manipulation.keys import typed
from jaxmeta.manipulation.models import compile_scenes
from jaxmeta.manipulation.observation import Frame, clipped, frame, layout_of, observe
from jaxmeta.manipulation.physics import Physics, poses, start
from jaxmeta.manipulation.sensors import read, views_of
from jaxmeta.manipulation.shaping import Point
from jaxmeta.manipulation.task import (
    VECTOR,
    Episode,
    ManipulationTask,
    Readings,
    complete,
)
from jaxmeta.manipulation.tasks import find

HORIZON = 500
"""Steps of an episode; 80 of them are a second."""

NUM_DRAWS = 64
"""Draws of positions of which the first that is accepted is used."""


class Play(NamedTuple):
    """What an environment must remember, beside the simulator's state.

    Attributes:
      task: `[]` which of the environment's tasks.
      vector: `[6]` the draw that says where things and goal are.
      fixture: `[3]` where the fixture stands, metres.
      episode: what is fixed for the episode.
      drag: `[3]` the point that drags the hand, metres. The goal of the task is
        `episode.target`.
      free: the hand, had nothing ever touched it.
      before: `[18]` the frame seen one step ago.
      steps: `[]` steps taken.
      solved: `[]` whether any step succeeded so far.
      key: raw bits of the key of the next draw.
    """

    task: Int[Array, ""]
    vector: Float[Array, "6"]
    fixture: Point
    episode: Episode
    drag: Point
    free: Free
    before: Frame
    steps: Int[Array, ""]
    solved: Bool[Array, ""]
    key: Array


class Judged(NamedTuple):
    """What a task says of a moment.

    Attributes:
      seen: the frame.
      obs: `[39]` the observation.
      reward: `[]` of the version asked for.
      success: `[]` whether the task is solved now.
    """

    seen: Frame
    obs: Float[Array, "39"]
    reward: Scalar
    success: Bool[Array, ""]


class ManipulationEnv(Env):
    """Meta-World's tasks behind Brax's interface; pure, to be vmapped.

    Actions are `[4]` in [-1, 1]: three displacements of 1 cm and the grip (1 closes).
    They are clipped; what is not a number counts as 0. Observations are `[39]`, as
    `observation.observe` says, with the task's one-hot number after it if asked for.
    `state.done` is 1 after 500 steps; `state.info["truncation"]` says that it was for
    the time, which is always so: success does not end an episode. `state.metrics` has
    `success` (now) and `solved`, 1 at the first step that succeeds: summed over an
    episode, as Brax does, it says whether the episode was solved. A step after the end
    is refused, but in `jit` and `vmap` goes on, and `state.done` stays 1.

    `reset`, and the automatic reset of `training.wrap`, draw goals from the boxes of
    the tasks; `reset_to` takes a goal of a suite. For training on a meta-learning suite
    give `suite.of("train")`: `suite.tasks` holds those to test on, too.

    Args:
      tasks: official names without version, such as "door-open", or tasks of your own;
        with several, `reset` draws one of them uniformly.
      physics: the faithful 5 steps of 2.5 ms by default.
      hidden_goal: whether the goal is left out of the observation (zeros).
      one_hot: whether the number of the task is appended, one-hot.
      reward_version: "v2", in [0, 10], or "v1", up to several thousand and differing in
        scale between the tasks. Successes are the same.

    Raises:
      ValueError: for no task, an unknown one, naming the nearest, or one of your own
        that lacks something; for physics or a version of the reward that is none.

    Example:
      >>> env = ManipulationEnv(["reach", "push"])
      >>> env.observation_size, env.action_size
      (39, 4)
    """

    def __init__(
        self,
        tasks: Sequence[str | ManipulationTask],
        *,
        physics: Physics | None = None,
        hidden_goal: bool = False,
        one_hot: bool = False,
        reward_version: Literal["v1", "v2"] = "v2",
    ):
        if isinstance(tasks, str) or not isinstance(tasks, Sequence) or not tasks:
            raise ValueError(
                f"tasks must be a list of at least one name, got {tasks!r}; of a suite "
                "give suite.tasks."
            )
        if reward_version not in ("v1", "v2"):
            raise ValueError(
                f'reward_version must be "v1" or "v2", got {reward_version!r}.'
            )
        self.reward_version = reward_version
        self.tasks: tuple[ManipulationTask, ...] = tuple(
            find(task) if isinstance(task, str) else complete(task) for task in tasks
        )
        if not isinstance(physics, Physics | None):
            raise ValueError(f'physics must be as MODES["fast"] is, got {physics!r}.')
        self.physics = Physics() if physics is None else physics
        self.hidden_goal, self.one_hot = hidden_goal, one_hot
        names = [task.name for task in self.tasks]
        geometries = [task.geometry for task in self.tasks]
        self.models = compile_scenes(names, geometries, self.physics.timestep)
        stack = lambda rows: jax.tree.map(lambda *x: jnp.stack(x), *rows)
        self._views = stack([views_of(task) for task in self.tasks])
        self._layouts = stack([layout_of(task) for task in self.tasks])
        column = lambda name: jnp.array([getattr(task, name) for task in self.tasks])
        self._hand_start = column("hand_start")
        hands = stack([_started(*task.hand_start) for task in self.tasks])
        # They may be remembered from before JAX's precision was changed.
        self._started = jax.tree.map(lambda x: x.astype(float), hands)
        self._hand_low, self._hand_high = column("hand_low"), column("hand_high")
        padded = lambda x: (*x, *(0.0,) * (VECTOR - len(x)))
        self._low = jnp.array([padded(task.low) for task in self.tasks])
        self._high = jnp.array([padded(task.high) for task in self.tasks])

    @property
    def observation_size(self) -> int:
        """39, and one more for each task if they are one-hot."""
        return 39 + self.one_hot * len(self.tasks)

    @property
    def action_size(self) -> int:
        """Three displacements and the grip."""
        return 4

    @property
    def backend(self) -> str:
        """What Brax calls the simulator."""
        return "mjx"

    @property
    def dt(self) -> float:
        """Seconds of one step."""
        return self.physics.timestep * self.physics.substeps

    def reset(self, rng: Array) -> State:
        """Starts an episode of a task drawn uniformly, with a goal drawn anew.

        Args:
          rng: a key, typed or, as Brax's agents pass it, raw.

        Raises:
          ValueError: for a key that is not of JAX's default kind.
        """
        task_key, key = jax.random.split(typed(rng))
        task = jax.random.randint(task_key, (), 0, len(self.tasks))
        return self.reset_task(key, task)

    def reset_task(self, rng: Array, task: Int[Array, ""]) -> State:
        """Starts an episode of a task, with a goal drawn anew.

        Args:
          rng: a key, as of `reset`.
          task: its number among the environment's tasks. Inside `jit` or `vmap`, where
            it is not known, it is clipped.

        Raises:
          ValueError: for a number that no task has, and as `reset` does.
        """
        draw_key, key = jax.random.split(typed(rng))
        return self.reset_to(self.draw(draw_key, task), task, key)

    def draw(self, rng: Array, task: Int[Array, ""]) -> Float[Array, "6"]:
        """A draw of where things and goal are, the first of 64 that is accepted.

        The official tasks accept a third of their draws or more; where a task accepts
        none, it is the first of all. Arguments and errors are those of `reset_task`.
        """
        task = self._number(task)
        shares = jax.random.uniform(typed(rng), (NUM_DRAWS, VECTOR))
        low, high = self._low[task], self._high[task]
        vectors = low[None] + shares * (high - low)[None]
        accepts = lambda vector: self._ask(
            task, lambda t, v: t.accepts(_own(t, v)), vector
        )
        return vectors[jnp.argmax(jax.vmap(accepts)(vectors))]

    def reset_to(
        self, vector: Float[Array, "6"], task: Int[Array, ""], rng: Array
    ) -> State:
        """Starts an episode of a task from a given draw.

        Args:
          vector: `[6]` the draw, as of `draw` or of a suite.
          task: as of `reset_task`.
          rng: as of `reset`; for the draws of later episodes.

        Raises:
          ValueError: as `reset_task` does; for a draw that is not `[6]`.
        """
        if jnp.shape(vector) != (VECTOR,):
            raise ValueError(
                f"a draw must have shape ({VECTOR},), got {jnp.shape(vector)}; tasks "
                "that need three numbers ignore the others."
            )
        vector, key = jnp.asarray(vector), typed(rng)
        task = self._number(task)
        place = self._ask(task, lambda t, v: t.place(_own(t, v)), vector)
        model = self.models.of(task, place.fixture)
        free = jax.tree.map(lambda rows: rows[task], self._started)
        data: Any = start(model, moment(free), place)
        now = self._read(task, data)
        begin = lambda t, v: t.begin(_own(t, v), now, now.tcp)
        episode = self._ask(task, begin, vector)
        judged = self._judge(task, now, None, episode, jnp.zeros(4))
        play = Play(
            task=task,
            vector=vector,
            fixture=place.fixture,
            episode=episode,
            drag=self._hand_start[task],
            free=free,
            before=judged.seen,
            steps=jnp.zeros((), jnp.int32),
            solved=jnp.array(False),
            key=jax.random.key_data(key),
        )
        zero = jnp.zeros((), jnp.float32)
        info = {"play": play, "truncation": zero}
        metrics = {"success": zero, "solved": zero}
        return State(data, self._whole(task, judged.obs), zero, zero, metrics, info)

    def step(self, state: Any, action: Float[Array, "4"]) -> State:
        """One step of 12.5 ms.

        Args:
          state: whose `pipeline_state` has bodies where its joints say: after a change
            of `qpos` call `mjx.kinematics`.
          action: `[4]`.

        Raises:
          ValueError: for an action that is not `[4]`, and after the end of an episode.
        """
        if jnp.shape(action) != (4,):
            raise ValueError(
                f"an action must have shape (4,), got {jnp.shape(action)}; batches go "
                "through jax.vmap."
            )
        play: Play = state.info["play"]
        action = jnp.nan_to_num(jnp.clip(action, -1.0, 1.0)).astype(play.drag.dtype)
        over = not isinstance(play.steps, Tracer) and np.asarray(play.steps) >= HORIZON
        if np.any(over):
            raise ValueError(
                f"the episode ended after {HORIZON} steps; start another with reset, "
                "or use training.wrap, which does so itself."
            )
        drag = jnp.clip(
            play.drag + STEP_LENGTH * action[:3],
            self._hand_low[play.task],
            self._hand_high[play.task],
        )
        model = self.models.of(play.task, play.fixture)
        path, free = free_motion(drag, play.free, self.physics.substeps)
        data = self.physics.step(model, state.pipeline_state, action[3], path)
        now = self._read(play.task, data)
        judged = self._judge(play.task, now, play.before, play.episode, action)
        first = judged.success & ~play.solved
        solved = play.solved | first
        steps = play.steps + 1
        done = (steps >= HORIZON).astype(jnp.float32)
        play = play._replace(
            drag=drag, free=free, before=judged.seen, steps=steps, solved=solved
        )
        metrics = {
            "success": judged.success.astype(jnp.float32),
            "solved": first.astype(jnp.float32),
        }
        return dataclasses.replace(
            state,
            pipeline_state=data,
            obs=self._whole(play.task, judged.obs),
            reward=judged.reward,
            done=done,
            metrics={**state.metrics, **metrics},
            info={**state.info, "play": play, "truncation": done},
        )

    def _number(self, task: Int[Array, ""]) -> Int[Array, ""]:
        last = len(self.tasks) - 1
        if not isinstance(task, Tracer) and not _is_number(task, last):
            raise ValueError(f"task must be a number in 0 to {last}, got {task!r}.")
        return jnp.clip(task, 0, last)

    def _ask(self, task: Int[Array, ""], question: Any, *given: Any) -> Any:
        """What the task answers: small arithmetic, so all are asked.

        So does a `switch` under `vmap`, which takes longer to trace.
        """
        answers = [question(one, *given) for one in self.tasks]
        return jax.tree.map(lambda *rows: jnp.stack(rows)[task], *answers)

    def _read(self, task: Int[Array, ""], data: Any) -> Readings:
        views = jax.tree.map(lambda rows: rows[task], self._views)
        return clipped(read(views, poses(data)))

    def _judge(
        self,
        task: Int[Array, ""],
        now: Readings,
        before: Frame | None,
        episode: Episode,
        action: Float[Array, "4"],
    ) -> Judged:
        layout = jax.tree.map(lambda rows: rows[task], self._layouts)
        seen = frame(layout, now)
        before = seen if before is None else before
        obs = observe(layout, seen, before, episode.target, hidden=self.hidden_goal)

        def judge(one: ManipulationTask, now, episode, action):
            reward = one.reward if self.reward_version == "v2" else one.reward_v1
            return reward(now, episode, action).total, one.success(now, episode)

        return Judged(seen, obs, *self._ask(task, judge, now, episode, action))

    def _whole(self, task: Int[Array, ""], obs: Float[Array, "39"]) -> Array:
        if not self.one_hot:
            return obs
        return jnp.concatenate([obs, jax.nn.one_hot(task, len(self.tasks))])


def _is_number(x: Any, last: int) -> bool:
    x = np.asarray(x)
    return x.shape == () and np.issubdtype(x.dtype, np.integer) and x in range(last + 1)


@functools.cache
def _started(*goal: float) -> Free:
    """The hand after the official reset, which takes a while to simulate."""
    with jax.ensure_compile_time_eval():
        return jax.device_get(started(jnp.array(goal)))


def _own(task: ManipulationTask, vector: Float[Array, "6"]) -> Array:
    """The numbers of a draw that a task needs."""
    return vector[: len(task.low)]
