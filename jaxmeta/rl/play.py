"""Whole episodes of a policy, side by side."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmeta.core.types import Array, Float, Int
from jaxmeta.manipulation.env import HORIZON, ManipulationEnv
from jaxmeta.rl.ppo import Policy


class Played(NamedTuple):
    """What came of some episodes.

    Attributes:
      solved: `[episode]` whether any step succeeded.
      total: `[episode]` the return, not discounted.
      states: the states passed through, `[step, episode, ...]`, those before each step.
    """

    solved: np.ndarray
    total: np.ndarray
    states: Any


def play(
    env: ManipulationEnv,
    policy: Policy,
    vectors: Float[Array, "episode 6"],
    tasks: Int[Array, " episode"],
    *,
    keep: bool = False,
) -> Played:
    """Plays episodes to their end.

    Args:
      env: one environment.
      policy: from an observation to an action.
      vectors: `[episode, 6]` the draws that the episodes begin with.
      tasks: `[episode]` which of the environment's tasks each is.
      keep: whether the states are kept; otherwise None is in their place.
    """

    def one(state: Any, _):
        with jax.numpy_rank_promotion("allow"):  # Brax broadcasts ranks
            action = jax.vmap(policy)(state.obs)
        after = jax.vmap(env.step)(state, action)
        return after, (after.reward, state if keep else None)

    @jax.jit
    def episodes(vectors, tasks, keys):
        state = jax.vmap(env.reset_to)(vectors, tasks, keys)
        state, (rewards, states) = jax.lax.scan(one, state, length=HORIZON)
        return state.info["play"].solved, rewards.sum(axis=0), states

    keys = jax.random.split(jax.random.key(0), len(tasks))
    return Played(*jax.device_get(episodes(vectors, tasks, keys)))
