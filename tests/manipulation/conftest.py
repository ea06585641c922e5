"""All tasks side by side in one compiled program, made once a process."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from jaxmeta.manipulation.env import ManipulationEnv
from jaxmeta.manipulation.physics import MODES, Physics
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


def make_room(physics: Physics) -> Room:
    """The fifty tasks, and any that were added, compiled."""
    env = ManipulationEnv(list(TASKS), physics=physics)
    step = jax.jit(jax.vmap(env.step))
    reset_to = jax.jit(jax.vmap(env.reset_to))
    return Room(env, jnp.arange(len(TASKS)), reset_to, step)


@pytest.fixture(scope="session")
def room():
    """With the faithful physics."""
    return make_room(MODES["faithful"])


@pytest.fixture(scope="session")
def fast_room():
    """With the fast physics."""
    return make_room(MODES["fast"])
