"""Training an agent in a run directory, and measuring it on the official goals."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.checkpoint import CheckpointError
from jaxmeta.core.evaluate import TaskValues
from jaxmeta.core.fit import NonFiniteError
from jaxmeta.core.progress import Progress
from jaxmeta.core.run import Run, reading
from jaxmeta.core.types import Array, Float, Int, PyTree
from jaxmeta.core.writers import Writer
from jaxmeta.manipulation.env import HORIZON, ManipulationEnv
from jaxmeta.rl.control import Control
from jaxmeta.rl.ppo import Policy


def check(control: Control) -> Control:
    """Raises ValueError for what is wrong with an experiment on this machine."""
    devices = jax.local_device_count()
    if control.agent.num_envs % devices:
        raise ValueError(
            f"agent.num_envs must be a multiple of the {devices} devices, got "
            f"{control.agent.num_envs}."
        )
    return control


def estimate(control: Control) -> list[str]:
    """Size of an experiment, a line each; nothing is compiled."""
    params = jax.eval_shape(
        functools.partial(control.agent.init, control.env("train"), control.seed)
    )
    update = control.agent.steps_per_update
    return [
        f"parameters: {sum(leaf.size for leaf in jax.tree.leaves(params[1:])):,}",
        f"updates: {math.ceil(control.steps / update):,} of {update:,} steps",
    ]


def learn(run: Run[Control], writer: Writer, progress: Progress) -> None:
    """Trains to the last step, from the newest checkpoint if there is one.

    A run that goes on does so with the parameters of its last evaluation: the moments
    of Adam and the episodes under way begin anew.

    Raises:
      NonFiniteError: when a return or a loss is not finite any more.
      CheckpointError: if a checkpoint cannot be written or none can be read.
    """
    control, latest = run.experiment, run.latest
    env = control.env("train")
    found = latest.restore(control.agent.init(env, control.seed))
    start, done = (None, 0) if found is None else (found[0], found[1]["step"])
    with reading(run.directory):
        writer.resume(done)
    progress.resume(done)
    if done >= control.steps:
        return

    def on_evaluation(step: int, params: PyTree, metrics: dict[str, float]) -> None:
        if not np.isfinite(list(metrics.values())).all():
            raise NonFiniteError(
                f"the return or loss is not finite after {done + step} steps; the last "
                f"good checkpoint is in {latest.directory}. Lower the learning rate."
            )
        writer.write(done + step, dict(metrics))
        progress.update(done + step, metrics, metrics["time/steps_per_second"])
        latest.save(done + step, params, {"step": done + step})

    left = control.steps - done
    control.agent.train(
        env,
        steps=left,
        evaluations=max(1, round(control.evaluations * left / control.steps)),
        episodes=control.episodes,
        seed=control.seed + done,
        start=start,
        on_evaluation=on_evaluation,
    )
    latest.close()


def measure(run: Run[Control], *, num_tasks: int | None = None) -> TaskValues:
    """Plays the deterministic policy of a run on the official goals of its suite.

    Args:
      run: a run with a checkpoint.
      num_tasks: how many goals of every task; all 50 when None.

    Returns:
      `{"success": [episode] 1 if any step succeeded, "return": [episode]}`.

    Raises:
      CheckpointError: if there is no checkpoint to measure.
    """
    control = run.experiment
    env, checkpoints = control.env("test"), run.latest
    found = checkpoints.restore(control.agent.init(env, control.seed))
    checkpoints.close()
    if found is None:
        raise CheckpointError(
            f"{run.directory} has no checkpoint: train it to its end."
        )
    goals = control.suite.goals("test")[:, :num_tasks]
    tasks = jnp.repeat(jnp.arange(goals.shape[0]), goals.shape[1])
    policy = control.agent.policy(env, found[0])
    return play(env, policy, goals.reshape(-1, goals.shape[-1]), tasks)


def play(
    env: ManipulationEnv,
    policy: Policy,
    vectors: Float[Array, "episode 6"],
    tasks: Int[Array, " episode"],
) -> TaskValues:
    """Plays whole episodes side by side.

    Args:
      env: one environment.
      policy: from an observation to an action.
      vectors: `[episode, 6]` the draws that the episodes begin with.
      tasks: `[episode]` which of the environment's tasks each is.

    Returns:
      As `measure`.
    """

    def one(state: Any, _):
        with jax.numpy_rank_promotion("allow"):  # Brax broadcasts ranks
            action = jax.vmap(policy)(state.obs)
        state = jax.vmap(env.step)(state, action)
        return state, state.reward

    @jax.jit
    def episodes(vectors, tasks, keys):
        state = jax.vmap(env.reset_to)(vectors, tasks, keys)
        state, rewards = jax.lax.scan(one, state, length=HORIZON)
        return state.info["play"].solved, rewards.sum(axis=0)

    keys = jax.random.split(jax.random.key(0), len(tasks))
    solved, returns = episodes(vectors, tasks, keys)
    return {"success": np.asarray(solved, np.float64), "return": np.asarray(returns)}
