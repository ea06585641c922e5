"""The tasks as a Gymnasium vector environment, in NumPy.

One program steps all of its environments; terms are Gymnasium's. Needs `gymnasium`
(`pip install jaxmeta[gymnasium]`).
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from brax.envs.base import State
from brax.envs.wrappers.training import EpisodeWrapper, VmapWrapper
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from jaxmeta.core.types import Array, Int
from jaxmeta.manipulation.env import HORIZON, ManipulationEnv, Play
from jaxmeta.manipulation.task import HAND_HIGH, HAND_LOW
from jaxmeta.manipulation.tasks import find
from jaxmeta.manipulation.training import AutoReset


class GymnasiumVectorEnv(VectorEnv):
    """A batch of environments for whoever learns with Gymnasium.

    Episodes end for the time only: `terminated` is never set. One that ends is followed
    within the same step by another of the same task, with a new goal
    (`AutoresetMode.SAME_STEP`): what is returned is seen first of the new episode, what
    was seen last of the old one is in `info["final_obs"]` and `info["final_info"]`,
    where `info["_final_obs"]` is set.

    `info` has, `[num_envs]` each, `task`, an index into `env.tasks`, `success`, whether
    it is solved now, and `solved`, whether it was at any step of the episode so far.

    Args:
      env: what is played.
      num_envs: how many of it.
      tasks: names of the tasks, one for every environment; by default each call of
        `reset` draws them uniformly from those of `env`.
      episode_length: steps of an episode, at most the 500 of `env`.

    Raises:
      ValueError: for no environments, a task that `env` has not, not as many tasks as
        environments, or an episode of no steps.

    Example:
      >>> envs = GymnasiumVectorEnv(ManipulationEnv(["reach", "push"]), num_envs=8)
      >>> envs.observation_space.shape, envs.action_space.shape
      ((8, 39), (8, 4))
    """

    def __init__(
        self,
        env: ManipulationEnv,
        num_envs: int,
        tasks: Sequence[str] | None = None,
        *,
        episode_length: int = HORIZON,
    ):
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.single_observation_space = _observation_space(env)
        self.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        batch = VmapWrapper(env)
        if tasks is not None:
            batch = _Assigned(env, _numbers(env, tasks, num_envs))
        envs = AutoReset(EpisodeWrapper(batch, episode_length, action_repeat=1))
        self._start = jax.jit(envs.reset)
        self._next = jax.jit(envs.step)
        self._state: State | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode in every environment.

        Args:
          seed: below 2^32. Environment `i` starts from the i-th key of
            `jax.random.split(jax.random.key(seed), num_envs)`, and everything after
            follows from that. By default the next that `np_random` draws.
          options: there are none.

        Returns:
          `[num_envs, observation]` what is seen, and the info.

        Raises:
          ValueError: for options, or a seed out of range.
        """
        if options:
            raise ValueError(f"there are no options for a reset, got {options}.")
        if seed is not None and not 0 <= seed < 2**32:
            raise ValueError(f"seed must be in 0 to 2^32 - 1, got {seed}.")
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**32))
        keys = jax.random.split(jax.random.key(seed), self.num_envs)
        state = self._state = self._start(keys)
        return np.array(state.obs), self._info(state)

    def step(
        self, actions: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step of 12.5 ms in every environment.

        Args:
          actions: `[num_envs, 4]` as of `ManipulationEnv`; clipped to [-1, 1].

        Returns:
          `[num_envs, observation]` what is seen; `[num_envs]` reward, terminated
          (never) and truncated; the info.

        Raises:
          RuntimeError: before the first reset.
          ValueError: for actions of another shape, or that are not numbers.
        """
        if self._state is None:
            raise RuntimeError("an environment must be reset before its first step.")
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs, 4):
            raise ValueError(
                f"actions must have shape {(self.num_envs, 4)}, got {actions.shape}."
            )
        if not jnp.issubdtype(actions.dtype, jnp.number):
            raise ValueError(f"actions must be numbers, got {actions.dtype}.")
        actions = actions.astype(np.float32)
        if (bad := np.isnan(actions).any(axis=1)).any():
            raise ValueError(
                "actions must be numbers, got nan in environments "
                f"{np.flatnonzero(bad).tolist()}."
            )
        state = self._state = self._next(self._state, actions)
        done = np.array(state.done, bool)
        info = self._info(state)
        if done.any():
            info |= self._final(state, done)
        never = np.zeros_like(done)
        return np.array(state.obs), np.array(state.reward), never, done, info

    def _info(self, state: State) -> dict[str, Any]:
        play: Play = state.info["play"]
        # Where an episode has just begun, the metrics are those of the one before.
        success = (state.metrics["success"] > 0) & (play.steps > 0)
        everywhere = np.ones(self.num_envs, bool)
        return _masked(everywhere, task=play.task, success=success, solved=play.solved)

    def _final(self, state: State, done: np.ndarray) -> dict[str, Any]:
        """What Gymnasium's own environments tell of episodes that ended."""
        seen = np.array(state.info["final_obs"])
        final_obs = np.full(self.num_envs, None, object)
        for i in np.flatnonzero(done):
            final_obs[i] = seen[i]
        success = state.metrics["success"] > 0
        # What is remembered of an episode is that of the new one by now; Brax's sums
        # are still of the old one.
        solved = state.info["episode_metrics"]["solved"] > 0
        task = state.info["play"].task
        return {
            "final_obs": final_obs,
            "_final_obs": done.copy(),
            "final_info": _masked(done, task=task, success=success, solved=solved),
            "_final_info": done.copy(),
        }


class _Assigned(VmapWrapper):
    """A batch in which every environment has its task."""

    def __init__(self, env: ManipulationEnv, tasks: Int[Array, " env"]):
        super().__init__(env)
        self._reset_task, self._tasks = env.reset_task, tasks

    def reset(self, rng: jax.Array) -> State:
        return jax.vmap(self._reset_task)(rng, self._tasks)


def _numbers(
    env: ManipulationEnv, tasks: Sequence[str], num_envs: int
) -> Int[Array, " env"]:
    """The tasks as indices into those of the environment."""
    if isinstance(tasks, str) or len(tasks) != num_envs:
        raise ValueError(
            f"tasks must be a list of {num_envs} names, one for every environment, got "
            f"{tasks!r}."
        )
    names = [task.name for task in env.tasks]
    for name in tasks:
        if name not in names:
            find(name)  # which names the nearest, if it is a misspelling
            raise ValueError(f"env has no task {name!r}, only {', '.join(names)}.")
    return jnp.array([names.index(name) for name in tasks])


def _masked(mask: np.ndarray, **values: Any) -> dict[str, np.ndarray]:
    """Values where the mask is set, zeros elsewhere, and the mask beside each."""
    found = {name: np.array(value) * mask for name, value in values.items()}
    return found | {f"_{name}": mask.copy() for name in values}


def _observation_space(env: ManipulationEnv) -> gymnasium.spaces.Box:
    """The official bounds; goals are within those of any of the tasks."""
    low = np.min([task.goal_low for task in env.tasks], axis=0)
    high = np.max([task.goal_high for task in env.tasks], axis=0)
    if env.hidden_goal:
        low = high = np.zeros(3)
    objects, one_hot = np.full(14, np.inf), np.ones(env.observation_size - 39)
    lowest = [*HAND_LOW, -1.0, *-objects]
    highest = [*HAND_HIGH, 1.0, *objects]
    return gymnasium.spaces.Box(
        np.array([*lowest, *lowest, *low, *0.0 * one_hot], np.float32),
        np.array([*highest, *highest, *high, *one_hot], np.float32),
    )
