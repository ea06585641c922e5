"""A GIF of what a trained policy does."""

import operator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.manipulation.render import Renderer, save_gif
from jaxmeta.rl.control import Control
from jaxmeta.rl.play import play

EVERY, FPS = 4, 20.0
"""Every fourth of 80 steps a second is drawn: as fast as it was."""

AFTER = 40
"""Steps that are shown once the task is solved."""


def film(control: Control, directory: Path, path: Path) -> None:
    """Draws the episode of the first official goal, until a while after its success.

    Args:
      control: what was trained.
      directory: its run directory.
      path: the GIF to write.

    Raises:
      CheckpointError: if there is no checkpoint.
      NoOpenGLError: where there is no OpenGL to draw with.
    """
    env = control.env("test")
    renderer = Renderer(env, 320, 240)
    goal = control.suite.goals("test")[0, :1]
    policy = control.policy(directory, env)
    states = play(env, policy, goal, jnp.zeros(1, int), keep=True).states
    states = jax.tree.map(lambda x: x[:, 0], states)
    solved = np.flatnonzero(states.metrics["success"])
    end = solved[0] + AFTER if solved.size else len(states.reward)
    rows = range(0, min(end, len(states.reward)), EVERY)
    frames = [
        renderer.frame(jax.tree.map(operator.itemgetter(i), states)) for i in rows
    ]
    save_gif(path, frames, FPS)
