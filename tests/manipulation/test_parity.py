"""Rewards, successes and observations against recordings of the official package.

`tests/parity/record.py` makes the recordings; JAXMETA_RECORDINGS names a directory with
other, larger ones. The functions see recorded positions and angles only.
"""

import functools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.manipulation.observation import clipped, frame, layout_of, observe
from jaxmeta.manipulation.suites import Suite
from jaxmeta.manipulation.task import Readings
from jaxmeta.manipulation.tasks import find

RECORDINGS = Path(
    os.environ.get(
        "JAXMETA_RECORDINGS", Path(__file__).parents[1] / "parity" / "recordings"
    )
)
SHARE = 0.999


@pytest.fixture(scope="module", params=Suite(name="MT50").tasks)
def played(request):
    """A task, its recording, and what ours says of every row."""
    task = find(request.param)
    with np.load(RECORDINGS / f"{task.name}.npz") as file:
        rows = dict(file)
    now = Readings(*(jnp.asarray(rows[name], jnp.float32) for name in Readings._fields))
    vector, tcp, action = (
        jnp.asarray(rows[name], jnp.float32)
        for name in ("vector", "start_tcp", "action")
    )
    # Row 0 of an episode is its reset.
    _, first = np.unique(rows["episode"], return_index=True)
    start = jax.tree.map(lambda x: x[first[rows["episode"]]], now)
    before = np.maximum(np.arange(len(vector)) - 1, first[rows["episode"]])

    layout = layout_of(task)

    def one(vector, start, tcp, now, before, action):
        now, before = clipped(now), clipped(before)
        episode = task.begin(vector, start, tcp)
        frames = frame(layout, now), frame(layout, before)
        look = functools.partial(observe, layout, *frames, episode.target)
        seen = look(hidden=False), look(hidden=True)
        made = {
            "reward": task.reward(now, episode, action),
            "reward_v1": task.reward_v1(now, episode, action),
        }
        success = task.success(now, episode)
        return task.accepts(vector), seen, made, success

    ours = jax.jit(jax.vmap(one))(
        vector, start, tcp, now, jax.tree.map(lambda x: x[before], now), action
    )
    steps = np.setdiff1d(np.arange(len(vector)), first)
    return task, rows, jax.device_get(ours), steps


# Those of version 1 go up to several thousand, which float32 holds to a few 1e-4.
@pytest.mark.parametrize(("version", "rtol"), [("reward", 0), ("reward_v1", 1e-4)])
def test_rewards_are_the_official_ones(played, version, rtol):
    _, rows, (_, _, made, _), steps = played
    ours, theirs = made[version].total[steps], rows[version][steps]
    close = np.isclose(ours, theirs, atol=1e-4, rtol=rtol)
    assert np.isfinite(ours).all()
    worst = np.argmax(np.abs(ours - theirs))
    assert close.mean() >= SHARE, (
        f"{close.mean():.4f} of rewards agree; at row {steps[worst]} ours is "
        f"{ours[worst]}, theirs {theirs[worst]}"
    )


def test_successes_are_the_official_ones(played):
    _, rows, (*_, success), steps = played
    assert rows["success"][steps].any()
    assert np.mean(success[steps] == rows["success"][steps]) >= SHARE


def test_observations_are_the_official_ones(played):
    """With and without the goal."""
    _, rows, (_, (seen, hidden), _, _), _ = played
    official = rows["observation"]
    # Positions in float32, metres.
    np.testing.assert_allclose(seen, official, atol=1e-5)
    masked = np.where(np.arange(39) < 36, official, 0.0)
    np.testing.assert_allclose(hidden, masked, atol=1e-5)


@pytest.mark.parametrize("name", Suite(name="MT50").tasks)
def test_hidden_goals_are_zeros_officially(name):
    """Which the test above takes for granted."""
    with np.load(RECORDINGS / "hidden.npz") as file:
        shown, hidden = file[name]
    assert (shown[:, 36:] != 0).any()
    np.testing.assert_array_equal(hidden, np.where(np.arange(39) < 36, shown, 0.0))


def test_every_recorded_draw_is_accepted(played):
    task, rows, (accepts, *_), _ = played
    assert accepts.all()
    vector = rows["vector"]
    assert (vector >= np.array(task.low) - 1e-6).all()
    assert (vector <= np.array(task.high) + 1e-6).all()


def test_terms_are_named_and_finite(played):
    _, _, (_, _, made, _), _ = played
    for version in made.values():
        assert version.terms
        assert all(np.isfinite(x).all() for x in version.terms.values())


def test_terms_of_version_1_add_up(played):
    _, _, (_, _, made, _), _ = played
    total, terms = made["reward_v1"]
    np.testing.assert_allclose(sum(terms.values()), total, rtol=1e-5, atol=1e-5)
