"""What `brax.training`'s agents need to learn on the tasks.

Brax's own automatic reset replays the first episode of every environment for ever,
goal included; `wrap` starts a new one with a new goal. And brax 0.14 calls
`jax.device_put_replicated`, which JAX 0.10 removed; `supply_removed` puts a replacement
back.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from brax.envs.base import Env, State, Wrapper
from brax.envs.wrappers.training import EpisodeWrapper, VmapWrapper

from jaxmeta.manipulation.env import HORIZON, ManipulationEnv
from jaxmeta.manipulation.keys import typed

BRAX_AXIS = "i"
"""Brax's name of the axis over devices."""


class AutoReset(Wrapper):
    """Starts a new episode of the same task, with a new goal, when one ends.

    `state.done` and `state.reward` are those of the episode that ended,
    `state.info["final_obs"]` is what was last seen of it, and `state.obs` what is seen
    first of the new one.

    Args:
      env: batched; the environments within it are `ManipulationEnv`s.

    Raises:
      ValueError: for episodes longer than theirs.
    """

    def __init__(self, env: EpisodeWrapper):
        if not 1 <= env.episode_length <= HORIZON:
            raise ValueError(
                f"episode_length must be in 1 to {HORIZON}, got {env.episode_length}."
            )
        super().__init__(env)

    def reset(self, rng: jax.Array) -> State:
        """Starts an episode in every environment.

        Args:
          rng: a key for each, typed or raw.

        Raises:
          ValueError: for a single key, no keys, or keys of another kind than JAX's
            default.
        """
        rng = jax.random.key_data(typed(rng))  # Brax's wrappers count its axes
        if rng.ndim != 2 or not len(rng):
            raise ValueError(
                "reset needs a row of keys, one for each environment and at least one, "
                f"got keys of shape {rng.shape[:-1]}."
            )
        state = self.env.reset(rng)
        return dataclasses.replace(state, info={**state.info, "final_obs": state.obs})

    def step(self, state: State, action: jax.Array) -> State:
        """One step of every environment, after which those that ended begin again.

        Args:
          state: of all environments.
          action: `[environment, 4]`.
        """
        fresh_start, solved = state.done > 0, state.info["play"].solved
        steps = jnp.where(fresh_start, 0.0, state.info["steps"])
        state = dataclasses.replace(
            state, done=jnp.zeros_like(state.done), info={**state.info, "steps": steps}
        )
        state = self.env.step(state, action)
        # Nothing here ends but for the time, of which Brax's own wrapper knows only
        # where its limit is shorter than the environment's.
        state.info["truncation"] = state.done
        play = state.info["play"]
        # Of the steps for which an action is held Brax shows and counts the last only.
        first = (play.solved & ~solved).astype(jnp.float32)
        state.info["episode_metrics"]["solved"] += first - state.metrics["solved"]
        single = self.unwrapped
        assert isinstance(single, ManipulationEnv)
        keys = jax.random.wrap_key_data(play.key)

        def choose(new, old):
            done = state.done.reshape(-1, *(1,) * (jnp.ndim(old) - 1)) > 0
            return jnp.where(done, new, old)

        def begin(now):
            new = jax.vmap(single.reset_task)(keys, play.task)
            fresh = (new.pipeline_state, new.obs, new.info["play"])
            return jax.tree.map(choose, fresh, now)

        # Episodes of a batch that began together end together: most steps reset none.
        now = (state.pipeline_state, state.obs, play)
        data, obs, play = jax.lax.cond(state.done.any(), begin, lambda now: now, now)
        return dataclasses.replace(
            state,
            pipeline_state=data,
            obs=obs,
            metrics={**state.metrics, "solved": first},
            info={**state.info, "play": play, "final_obs": state.obs},
        )


def wrap(
    env: Env,
    episode_length: int = HORIZON,
    action_repeat: int = 1,
    randomization_fn: Callable[..., Any] | None = None,
) -> Wrapper:
    """A batch of environments with automatic reset, for `wrap_env_fn=` of an agent.

    Args:
      env: a `ManipulationEnv`.
      episode_length: steps of an episode, at most 500.
      action_repeat: steps for which an action is held.
      randomization_fn: not used; tasks and goals are randomised by the environment.

    Raises:
      ValueError: for an episode of another length.

    Example:
      >>> envs = wrap(ManipulationEnv(["reach", "push"]), episode_length=100)
      >>> keys = jax.random.split(jax.random.key(0), 8)
      >>> jax.eval_shape(envs.reset, keys).obs.shape
      (8, 39)
    """
    del randomization_fn
    return AutoReset(EpisodeWrapper(VmapWrapper(env), episode_length, action_repeat))


def supply_removed() -> None:
    """Puts `jax.device_put_replicated` back where JAX no longer has it.

    Example:
      >>> supply_removed()
      >>> jax.device_put_replicated(1.0, jax.devices()[:1]).shape
      (1,)
    """
    if not hasattr(jax, "device_put_replicated"):
        jax.device_put_replicated = _put_replicated  # pyright: ignore[reportAttributeAccessIssue]


def _put_replicated(tree: Any, devices: Sequence[Any]) -> Any:
    """Every leaf with a leading axis over the devices, one row on each.

    They lie as what comes out of Brax's `pmap`s does, axis name included: else an agent
    would compile its training once more when it first comes back.
    """
    mesh = jax.sharding.Mesh(np.array(devices), (BRAX_AXIS,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(BRAX_AXIS))
    copies = lambda x: jnp.broadcast_to(x, (len(devices), *jnp.shape(x)))
    return jax.device_put(jax.tree.map(copies, tree), spread)
