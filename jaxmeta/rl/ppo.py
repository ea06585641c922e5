"""Proximal policy optimisation: Brax's implementation, with our numbers.

Schulman et al. 2017 (arXiv 1707.06347). Policy and value are networks of their own; the
policy is a normal distribution squashed by tanh.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from brax.training.acme import running_statistics, specs
from brax.training.agents.ppo import networks as ppo_networks
from brax.training.agents.ppo import train as ppo

from jaxmeta.core.types import Array, Float, PyTree
from jaxmeta.manipulation.env import HORIZON, ManipulationEnv
from jaxmeta.manipulation.training import supply_removed, wrap

Policy: TypeAlias = Callable[[Float[Array, " obs"]], Float[Array, "4"]]
"""From an observation to an action."""

OnEvaluation: TypeAlias = Callable[[int, PyTree, dict[str, float]], None]
"""Called with the environment steps so far, the parameters and metrics."""

STD_EPS = 0.01
"""Added to the standard deviation of observations. Many of them hardly move: divided by
a deviation of 1e-6, the first time that they do is a step off every scale."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ppo:
    """The agent and its hyper-parameters.

    One update takes `batch_size * num_minibatches` stretches of `unroll_length` steps.

    Raises:
      ValueError: if the stretches of an update are no multiple of the environments, a
        count is below 1, or a number is not finite or not in its range.

    Example:
      >>> Ppo(num_envs=64, batch_size=32, num_minibatches=8).steps_per_update
      5120
    """

    num_envs: int = 256
    """Environments that play side by side."""

    unroll_length: int = 20
    """Steps of a stretch."""

    batch_size: int = 64
    """Stretches in a minibatch."""

    num_minibatches: int = 16
    """Minibatches in an update."""

    num_epochs: int = 4
    """Times that an update goes over its data."""

    learning_rate: float = 3e-4
    """Of Adam, at the start where `desired_kl` is given."""

    desired_kl: float | None = None
    """Wanted between the policy that played and the current one. Where before the step
    of a minibatch their divergence is more than twice this, the learning rate is
    divided by 1.5, where less than half multiplied, within 1e-5 to 1e-2; observations
    are then normalised by what was seen before the update. The rate is fixed when
    None."""

    entropy_cost: float = 1e-3
    """Weight of the entropy bonus, >= 0."""

    discount: float = 0.99
    """Of rewards, a step; in [0, 1]."""

    gae_lambda: float = 0.95
    """Of generalised advantage estimation; in [0, 1]."""

    clipping: float = 0.2
    """Of the ratio of probabilities, to either side."""

    reward_scale: float = 0.1
    """Rewards, at most 10, are multiplied by it."""

    max_grad_norm: float = 0.5
    """Longer gradients are shortened to this."""

    policy_layers: tuple[int, ...] = (64, 64)
    """Hidden units of the policy."""

    value_layers: tuple[int, ...] = (128, 128)
    """Hidden units of the value."""

    def __post_init__(self):
        counts = ("num_envs", "unroll_length", "batch_size", "num_minibatches")
        for name in (*counts, "num_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}.")
        for name in ("policy_layers", "value_layers"):
            if any(units < 1 for units in getattr(self, name)):
                raise ValueError(
                    f"{name} must be numbers >= 1, got {getattr(self, name)}."
                )
        for name in ("learning_rate", "clipping", "reward_scale", "max_grad_norm"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {value}.")
        if self.desired_kl is not None and not 0 < self.desired_kl < math.inf:
            raise ValueError(
                "desired_kl must be positive and finite, or None, got "
                f"{self.desired_kl}."
            )
        if self.desired_kl is not None and not 1e-5 <= self.learning_rate <= 1e-2:
            raise ValueError(
                "learning_rate must be in 1e-5 to 1e-2 where desired_kl is given, got "
                f"{self.learning_rate}."
            )
        if not 0 <= self.entropy_cost < math.inf:
            raise ValueError(
                f"entropy_cost must be >= 0 and finite, got {self.entropy_cost}."
            )
        for name in ("discount", "gae_lambda"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value}.")
        if self.batch_size * self.num_minibatches % self.num_envs:
            raise ValueError(
                "batch_size * num_minibatches must be a multiple of num_envs "
                f"({self.num_envs}), got {self.batch_size} * {self.num_minibatches}."
            )

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one update."""
        return self.batch_size * self.num_minibatches * self.unroll_length

    def init(self, env: ManipulationEnv, seed: int) -> PyTree:
        """Parameters before training: of the normaliser, the policy and the value."""
        network = self._networks(env.observation_size, env.action_size)
        keys = jax.random.split(jax.random.key(seed))
        size = specs.Array((env.observation_size,), jnp.dtype("float32"))
        params = (
            running_statistics.init_state(size, std_eps=STD_EPS),
            network.policy_network.init(keys[0]),
            network.value_network.init(keys[1]),
        )
        return jax.tree.map(jnp.asarray, params)

    def policy(self, env: ManipulationEnv, params: PyTree) -> Policy:
        """The deterministic policy: the mode of the distribution."""
        network = self._networks(env.observation_size, env.action_size)
        act = ppo_networks.make_inference_fn(network)(params, deterministic=True)
        # Nothing is drawn, but Brax asks for a key.
        return lambda obs: act(obs, jax.random.key(0))[0]

    def train(
        self,
        env: ManipulationEnv,
        *,
        steps: int,
        evaluations: int,
        episodes: int,
        seed: int,
        start: PyTree | None,
        on_evaluation: OnEvaluation,
    ) -> PyTree:
        """Trains, and tells of every evaluation.

        Args:
          env: one environment; it is batched and reset as `manipulation.training` says.
          steps: environment steps; rounded up so that updates divide evenly over the
            evaluations.
          evaluations: how often the deterministic policy is measured, evenly spaced.
          episodes: of every evaluation, with goals drawn from the boxes of the tasks.
          seed: of everything random.
          start: parameters to go on from, or None.
          on_evaluation: told of each.

        Returns:
          The parameters after the last update.
        """
        supply_removed()
        latest: list[PyTree] = []
        keep = lambda step, make_policy, params: latest.append(params)

        def progress(step, metrics):
            if step == 0:
                return  # before the first update
            on_evaluation(step, latest.pop(), _named(metrics))
            latest.clear()

        with jax.numpy_rank_promotion("allow"):  # Brax broadcasts ranks
            _, params, _ = ppo.train(
                env,
                num_timesteps=steps,
                num_evals=evaluations + 1,
                num_eval_envs=episodes,
                episode_length=HORIZON,
                wrap_env_fn=wrap,
                num_envs=self.num_envs,
                unroll_length=self.unroll_length,
                batch_size=self.batch_size,
                num_minibatches=self.num_minibatches,
                num_updates_per_batch=self.num_epochs,
                learning_rate=self.learning_rate,
                learning_rate_schedule=None
                if self.desired_kl is None
                else "ADAPTIVE_KL",
                desired_kl=self.desired_kl or 0.0,
                entropy_cost=self.entropy_cost,
                discounting=self.discount,
                gae_lambda=self.gae_lambda,
                clipping_epsilon=self.clipping,
                reward_scaling=self.reward_scale,
                max_grad_norm=self.max_grad_norm,
                normalize_observations=True,
                normalize_observations_std_eps=STD_EPS,
                network_factory=self._networks,
                deterministic_eval=True,
                restore_params=start,
                progress_fn=progress,
                policy_params_fn=keep,
                seed=seed,
            )
        return params

    def _networks(
        self,
        observation_size: Any,
        action_size: int,
        preprocess_observations_fn: Callable[..., Any] = running_statistics.normalize,
    ) -> ppo_networks.PPONetworks:
        return ppo_networks.make_ppo_networks(
            observation_size,
            action_size,
            preprocess_observations_fn=preprocess_observations_fn,
            policy_hidden_layer_sizes=self.policy_layers,
            value_hidden_layer_sizes=self.value_layers,
        )


def _named(metrics: dict[str, Any]) -> dict[str, float]:
    """Brax's metrics by our names."""
    names = {
        "validation/success": "eval/episode_solved",
        "validation/return": "eval/episode_reward",
        "train/policy_loss": "training/policy_loss",
        "train/value_loss": "training/v_loss",
        "train/entropy_loss": "training/entropy_loss",
        "time/steps_per_second": "training/sps",
    }
    return {ours: float(metrics[brax]) for ours, brax in names.items()}
