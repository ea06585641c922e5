"""Pictures, where there is OpenGL to draw them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxmeta.manipulation import render
from jaxmeta.manipulation.env import ManipulationEnv
from jaxmeta.manipulation.render import (
    CAMERA,
    NoOpenGLError,
    Renderer,
    contact_sheet,
    save_gif,
)
from jaxmeta.manipulation.tasks import TASKS

NAMES = ["reach", "door-open"]


@pytest.fixture(scope="module")
def env():
    return ManipulationEnv(NAMES)


@pytest.fixture(scope="module")
def states(env):
    """Both tasks after a reset."""
    keys = jax.random.split(jax.random.key(0), 2)
    batch = jax.jit(jax.vmap(env.reset_task))(keys, jnp.arange(2))
    return [jax.tree.map(lambda rows, i=i: rows[i], batch) for i in range(2)]


@pytest.fixture(scope="module")
def renderer(env):
    """It draws pictures of 160 by 120."""
    try:
        return Renderer(env, 160, 120)
    except NoOpenGLError as error:
        pytest.skip(str(error))


def moved(state, hand=(0.0, 0.0, 0.0), goal=(0.0, 0.0, 0.0)):
    """The state with its hand and its goal elsewhere."""
    data, play = state.pipeline_state, state.info["play"]
    episode = play.episode._replace(target=play.episode.target + jnp.array(goal))
    return state.replace(
        pipeline_state=data.replace(qpos=data.qpos.at[:3].add(jnp.array(hand))),
        info={**state.info, "play": play._replace(episode=episode)},
    )


def greens(picture):
    """Where the goal's colour is: `[n, 2]` column and row."""
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    return np.argwhere((green > red + 50) & (green > blue + 50))[:, ::-1]


def projected(point, width, height):
    """Column and row of a point, for a pinhole with 45 degrees from top to bottom."""
    azimuth, elevation = np.deg2rad([CAMERA["azimuth"], CAMERA["elevation"]])
    ahead = np.array(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ]
    )
    right = np.cross(ahead, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, ahead)
    seen = point - (CAMERA["lookat"] - CAMERA["distance"] * ahead)
    focal = height / 2 / np.tan(np.deg2rad(45.0) / 2)
    across, above = focal * np.array([seen @ right, seen @ up]) / (seen @ ahead)
    return np.array([width / 2 + across, height / 2 - above])


def test_a_picture_is_not_blank(renderer, states):
    for state in states:
        picture = renderer.frame(state)
        assert picture.shape == (120, 160, 3)
        assert picture.dtype == np.uint8
        colours = np.unique(picture.reshape(-1, 3), axis=0)
        assert len(colours) > 50
        assert picture.std() > 20
    reach, door = (renderer.frame(state) for state in states)
    assert (reach != door).any(axis=-1).mean() > 0.05


def test_the_same_state_is_the_same_picture(renderer, states):
    first = renderer.frame(states[0])
    renderer.frame(states[1])
    np.testing.assert_array_equal(first, renderer.frame(states[0]))


def test_a_moving_hand_moves_in_the_picture(renderer, states):
    there = renderer.frame(states[0])
    changed = (renderer.frame(moved(states[0], hand=(0.1, 0.0, 0.0))) != there).any(-1)
    assert 0.02 < changed.mean() < 0.5
    hand = np.asarray(states[0].pipeline_state.qpos[:3])
    column, row = projected(hand, 160, 120).astype(int)
    assert changed[row - 10 : row + 10, column - 10 : column + 10].mean() > 0.3


@pytest.mark.parametrize("way", [(0.0, 0.0, 0.0), (0.2, 0.0, 0.1), (0.3, -0.2, 0.0)])
def test_the_goal_is_where_it_belongs(renderer, states, way):
    state = moved(states[0], goal=way)
    goal = np.asarray(state.info["play"].episode.target)
    spots = greens(renderer.frame(state))
    assert len(spots) > 4
    # Pixels have their middle at a half; the ball's shaded side is not as green.
    where = projected(goal, 160, 120)
    np.testing.assert_allclose(spots.mean(axis=0) + 0.5, where, atol=1.0)


def test_two_renderers_do_not_disturb_each_other(renderer, env, states):
    before = renderer.frame(states[1])
    other = Renderer(env, 40, 30)
    small = other.frame(states[1])
    assert small.shape == (30, 40, 3)
    np.testing.assert_array_equal(renderer.frame(states[1]), before)
    np.testing.assert_array_equal(other.frame(states[1]), small)
    del other
    np.testing.assert_array_equal(renderer.frame(states[1]), before)


def test_a_gif_has_its_pictures(renderer, states, tmp_path):
    ways = np.linspace(0.0, 0.2, 12)
    frames = [renderer.frame(moved(states[0], hand=(0.0, 0.0, z))) for z in ways]
    save_gif(tmp_path / "reach.gif", frames, fps=25.0)
    with Image.open(tmp_path / "reach.gif") as gif:
        assert gif.n_frames == 12
        for i, frame in enumerate(frames):
            gif.seek(i)
            assert gif.info["duration"] == 40
            off = np.abs(np.asarray(gif.convert("RGB")).astype(int) - frame)
            assert off.max() < 40
            assert off.mean() < 2


def test_the_contact_sheet_has_labels(renderer, monkeypatch, tmp_path):
    """Seven tasks: a row of five and one of two."""
    few = {name: TASKS[name] for name in list(TASKS)[:7]}
    monkeypatch.setattr(render, "TASKS", few)
    contact_sheet(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image)
    assert sheet.shape == (2 * 204, 5 * 240, 3)
    cells = sheet.reshape(2, 204, 5, 240, 3).swapaxes(1, 2).reshape(10, 204, 240, 3)
    for i, cell in enumerate(cells):
        label, picture = cell[:24], cell[24:]
        assert (label.min() < 50) == (i < 7)
        assert (picture.std() > 20) == (i < 7)
    assert (sheet[:24, -10:] == 255).all()  # labels do not run into each other


@pytest.mark.parametrize("size", [(0, 120), (160, -1), (160.0, 120), (5000, 120)])
def test_unusable_sizes_are_refused(env, size, untyped):
    with pytest.raises(ValueError, match=r"whole number of pixels in 1 to 4096, got"):
        Renderer(env, *size)


def test_mistakes_are_named(renderer, states, tmp_path, untyped):
    batch = jax.tree.map(lambda x: x[None], states[0])
    with pytest.raises(ValueError, match="one environment is drawn, got positions of"):
        renderer.frame(batch)
    path, frame = tmp_path / "no.gif", np.zeros((4, 4, 3), np.uint8)
    for frames in ([], [frame, frame[:2]]):
        with pytest.raises(ValueError, match="at least one and of one size, got"):
            save_gif(path, frames)
    for fps in (0, 51, float("nan")):
        with pytest.raises(ValueError, match=r"above 0 and at most 50, got"):
            save_gif(path, [frame], fps=fps)
    assert not path.exists()


def test_without_opengl_it_says_what_to_do(env, monkeypatch):
    def missing():
        raise ImportError("no EGL here")

    monkeypatch.setattr(render, "_gl_context", missing)
    with pytest.raises(NoOpenGLError, match=r"no EGL here.*install EGL.*MUJOCO_GL"):
        Renderer(env)
