"""All tasks side by side in one compiled program, made once a process."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from jaxmeta.manipulation.env import ManipulationEnv
from jaxmeta.manipulation.tasks import TASKS


@dataclasses.dataclass(frozen=True)
class Room:
    """An environment of every task, and its compiled functions on a batch of them."""

    env: ManipulationEnv
    tasks: jax.Array
    reset_to: Callable
    step: Callable

    def start(self, seed):
        """Every task once, with goals drawn from a seed."""
        keys = jax.random.split(jax.random.key(seed), len(self.tasks))
        draws, keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        vectors = jax.jit(jax.vmap(self.env.draw))(draws, self.tasks)
        return self.reset_to(vectors, self.tasks, keys)


@pytest.fixture(scope="session")
def room():
    """The fifty tasks, and any that were added, compiled."""
    env = ManipulationEnv(list(TASKS))
    step = jax.jit(jax.vmap(env.step))
    reset_to = jax.jit(jax.vmap(env.reset_to))
    return Room(env, jnp.arange(len(TASKS)), reset_to, step)
