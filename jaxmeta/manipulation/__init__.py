"""Fifty manipulation tasks, after Meta-World, as pure functions."""

import contextlib
import io

# MJX prints what it finds no need of. Brax imports it as well, so it comes first here.
with contextlib.redirect_stdout(io.StringIO()):
    from mujoco import mjx as mjx
