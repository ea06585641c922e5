"""All tasks side by side in one compiled program, made once a process."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.manipulation.env import ManipulationEnv
from jaxmeta.manipulation.physics import MODES, Physics
from jaxmeta.manipulation.suites import Suite
from jaxmeta.manipulation.task import VECTOR
from jaxmeta.manipulation.tasks import TASKS

RECORDINGS = Path(__file__).parents[1] / "parity" / "recordings"


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


@pytest.fixture(scope="session")
def recorded():
    """The first episode of every task: the clean scripted policy."""
    found = {}
    for name in Suite(name="MT50").tasks:
        with np.load(RECORDINGS / f"{name}.npz") as file:
            rows = dict(file)
        found[name] = {key: x[rows["episode"] == 0] for key, x in rows.items()}
    return found


@pytest.fixture(scope="session")
def scripted(room, recorded):
    """Where those episodes start in our scene, and actions `[step, task, 4]`."""
    names = [task.name for task in room.env.tasks]
    vectors = np.zeros((len(names), VECTOR), np.float32)
    longest = max(len(rows["action"]) for rows in recorded.values())
    actions = np.zeros((longest - 1, len(names), 4), np.float32)
    for name, rows in recorded.items():
        i, vector, action = names.index(name), rows["vector"][0], rows["action"][1:]
        vectors[i, : len(vector)], actions[: len(action), i] = vector, action
    keys = jax.random.split(jax.random.key(0), len(names))
    return room.reset_to(jnp.asarray(vectors), room.tasks, keys), actions
