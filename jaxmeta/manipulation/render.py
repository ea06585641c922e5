"""Pictures of the tasks by MuJoCo's own renderer, GIFs of episodes, a contact sheet.

Drawing needs OpenGL without a window. On Linux that is EGL, by a GPU's driver or by
Mesa on a CPU; `MUJOCO_GL=osmesa` or `glfw`, set before Python starts, chooses another.
"""

import functools
import operator
import os
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from brax.envs.base import State
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from jaxmeta.manipulation import looks
from jaxmeta.manipulation.arm import frames
from jaxmeta.manipulation.env import ManipulationEnv, Play
from jaxmeta.manipulation.tasks import TASKS

Picture: TypeAlias = UInt8[np.ndarray, "height width 3"]
"""`[height, width, 3]` red, green and blue; the first row is the top."""

MAX_SIZE = 4096
"""The longest side of a picture, pixels."""

MAX_SHAPES = 100
"""The most shapes in a picture."""

GOAL_RADIUS = 0.015
"""Of the ball that marks the goal, metres."""

CAMERA = {
    "lookat": np.array([0.03, 0.69, 0.2]),
    "distance": 1.3,
    "azimuth": 138.0,
    "elevation": -31.0,
}
"""From the robot's right, as the official corner view; metres and degrees."""

CELL, LABEL, COLUMNS = (240, 180), 24, 5
"""Size of a picture and height of its label in the contact sheet, pixels."""

mj: Any = mujoco  # compiled: its names are not known to type checkers


class NoOpenGLError(RuntimeError):
    """This machine has no OpenGL to draw with; the message says what to install."""


class Renderer:
    """Draws states of an environment: the scene, an arm, the goal as a green ball.

    It draws in the thread that made it.

    Args:
      env: whose states are drawn; of a wrapped one its `unwrapped`.
      width: of the pictures, pixels.
      height: of the pictures, pixels.

    Raises:
      ValueError: for a size that is not in 1 to 4096.
      NoOpenGLError: where there is no OpenGL, saying what to install.
    """

    def __init__(self, env: ManipulationEnv, width: int = 480, height: int = 360):
        for name, size in (("width", width), ("height", height)):
            if not (isinstance(size, int) and 1 <= size <= MAX_SIZE):
                raise ValueError(
                    f"{name} must be a whole number of pixels in 1 to {MAX_SIZE}, got "
                    f"{size!r}."
                )
        models = [looks.dressed(task, width, height) for task in env.tasks]
        self._scenes = [(model, mj.MjData(model)) for model in models]
        self._rect = mj.MjrRect(0, 0, width, height)
        # Tasks differ by numbers only: one context and one list of shapes do for all.
        self._scene = mj.MjvScene(models[0], maxgeom=MAX_SHAPES)
        self._camera = mj.MjvCamera()
        for name, value in CAMERA.items():
            setattr(self._camera, name, value)
        try:
            self._gl = _gl_context()
            self._gl.make_current()
            self._context = mj.MjrContext(models[0], mj.mjtFontScale.mjFONTSCALE_100)
        except Exception as error:
            raise NoOpenGLError(
                f"there is no OpenGL to draw with ({error}). On Linux install EGL, "
                "which needs no GPU (Debian: apt-get install libegl1 "
                "libgl1-mesa-dri), or set MUJOCO_GL to osmesa or glfw before Python "
                "starts."
            ) from error
        weakref.finalize(self, _free, self._gl, self._context).atexit = False

    def frame(self, state: State) -> Picture:
        """Draws a state.

        Args:
          state: of one environment.

        Raises:
          ValueError: for a batch of states.
        """
        data: Any = state.pipeline_state
        if (ndim := np.ndim(data.qpos)) != 1:
            raise ValueError(
                f"a state of one environment is drawn, got positions of {ndim} axes; "
                "jax.tree.map(lambda x: x[0], state) is the first of a batch."
            )
        play: Play = state.info["play"]
        return self.draw(
            int(play.task),
            np.asarray(data.qpos),
            np.asarray(play.fixture),
            np.asarray(play.episode.target),
            np.asarray(play.free.arm.angles),
        )

    def draw(
        self,
        task: int,
        qpos: Float[np.ndarray, "15"],
        fixture: Float[np.ndarray, "3"],
        target: Float[np.ndarray, "3"],
        angles: Float[np.ndarray, "7"],
    ) -> Picture:
        """Draws a task's scene.

        Args:
          task: which of the environment's tasks.
          qpos: `[15]` positions: tips, fingers, free body, mechanism.
          fixture: `[3]` where the fixture stands, metres.
          target: `[3]` the goal, metres.
          angles: `[7]` of the arm's joints, radians.
        """
        model, data = self._scenes[task]
        found = jax.device_get(_frames(jnp.asarray(angles)))
        model.body("fixture").pos = fixture
        model.body("hand").quat = found.turn
        data.qpos[:] = qpos
        mj.mj_kinematics(model, data)
        mj.mj_camlight(model, data)
        mj.mjv_updateScene(
            model,
            data,
            mj.MjvOption(),
            None,
            self._camera,
            mj.mjtCatBit.mjCAT_ALL,
            self._scene,
        )
        for capsule in looks.arm(found.origins, data.geom("palm").xpos):
            self._add(capsule)
        self._add(looks.ball(target, GOAL_RADIUS, looks.GREEN))
        picture = np.empty((self._rect.height, self._rect.width, 3), np.uint8)
        self._gl.make_current()
        mj.mjr_setBuffer(mj.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        mj.mjr_render(self._rect, self._scene, self._context)
        mj.mjr_readPixels(picture, None, self._rect, self._context)
        return np.flipud(picture).copy()

    def _add(self, capsule: looks.Capsule) -> None:
        geom = self._scene.geoms[self._scene.ngeom]
        kind = mj.mjtGeom.mjGEOM_CAPSULE
        colour = np.array([*capsule.colour, 1.0], np.float32)
        mj.mjv_initGeom(geom, kind, np.zeros(3), np.zeros(3), np.zeros(9), colour)
        mj.mjv_connector(geom, kind, capsule.radius, capsule.start, capsule.end)
        self._scene.ngeom += 1


def save_gif(path: Path, frames: Sequence[Picture], fps: float = 20.0) -> None:
    """Writes pictures as an endless GIF; all share the colours of a few of them.

    Args:
      path: the file to write, whatever it is called.
      frames: the pictures, of one size. An environment makes 80 a second.
      fps: pictures a second, rounded to hundredths of a second each; above 0 and at
        most 50, which is what viewers can.

    Raises:
      ValueError: for no pictures, several sizes or another speed.

    Example:
      >>> import tempfile
      >>> blink = [np.full((4, 4, 3), level, np.uint8) for level in (0, 255)]
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_gif(Path(folder) / "blink.gif", blink, fps=2.0)
    """
    sizes = {np.shape(frame) for frame in frames}
    if len(sizes) != 1:
        raise ValueError(f"frames must be at least one and of one size, got {sizes}.")
    if not 0 < fps <= 50:
        raise ValueError(f"fps must be above 0 and at most 50, got {fps}.")
    some = np.concatenate(frames[:: -(-len(frames) // 8)])
    palette = Image.fromarray(some).quantize(method=Image.Quantize.MAXCOVERAGE)
    # Without dithering, what stands still stays the same from one picture to the next.
    first, *rest = (
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    )
    first.save(
        path,
        format="GIF",
        save_all=True,
        append_images=rest,
        duration=round(1000 / fps),
        loop=0,
    )


def contact_sheet(path: Path) -> None:
    """Draws all fifty tasks after a reset, each with its name.

    Args:
      path: the picture to write, such as a PNG.
    """
    env = ManipulationEnv(list(TASKS))
    keys = jax.random.split(jax.random.key(0), len(TASKS))
    states = jax.jit(jax.vmap(env.reset_task))(keys, jnp.arange(len(TASKS)))
    width, height = CELL
    renderer = Renderer(env, width, height)
    font = ImageFont.load_default(LABEL * 0.6)
    rows = -(-len(TASKS) // COLUMNS)
    size = (COLUMNS * width, rows * (height + LABEL))
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for i, name in enumerate(TASKS):
        row, column = divmod(i, COLUMNS)
        x, y = column * width, row * (height + LABEL)
        frame = renderer.frame(jax.tree.map(operator.itemgetter(i), states))
        sheet.paste(Image.fromarray(frame), (x, y + LABEL))
        middle = (x + width / 2, y + LABEL / 2)
        pen.text(middle, name, fill="black", font=font, anchor="mm")
    sheet.save(path)


_frames = jax.jit(jax.default_matmul_precision("highest")(frames))


@functools.cache
def _gl_context() -> Any:
    """OpenGL without a window, one for the process."""
    if sys.platform == "linux" and not os.environ.get("MUJOCO_GL"):
        # What MuJoCo chose when it was imported would need a window.
        from mujoco.egl import GLContext
    else:
        from mujoco.gl_context import GLContext
    return GLContext(MAX_SIZE, MAX_SIZE)


def _free(gl: Any, context: Any) -> None:
    gl.make_current()
    context.free()
