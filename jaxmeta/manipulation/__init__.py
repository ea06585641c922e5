"""Fifty manipulation tasks, after Meta-World, as pure functions."""

import contextlib
import io

# MJX prints that it did not find Warp, another backend, which nothing here needs. Brax
# imports MJX as well, so it comes first here.
with contextlib.redirect_stdout(io.StringIO()):
    from mujoco import mjx as mjx
