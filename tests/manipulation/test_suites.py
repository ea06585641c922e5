"""The official suites and their goals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.manipulation.suites import NUM_GOALS, Suite
from jaxmeta.manipulation.tasks import TASKS

MT10 = [
    "reach",
    "push",
    "pick-place",
    "door-open",
    "drawer-open",
    "drawer-close",
    "button-press-topdown",
    "peg-insert-side",
    "window-open",
    "window-close",
]
ML10_TEST = ["drawer-open", "door-close", "shelf-place", "sweep-into", "lever-pull"]
ML45_TEST = ["bin-picking", "box-close", "hand-insert", "door-lock", "door-unlock"]
SIZES = {
    "MT10": (10, 10),
    "MT25": (25, 25),
    "MT50": (50, 50),
    "ML10": (10, 5),
    "ML25": (25, 5),
    "ML45": (45, 5),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_goals(name):
    suite = Suite(name=name)
    for split, size in zip(("train", "test"), SIZES[name], strict=True):
        names, goals = suite.of(split), suite.goals(split)
        assert len(names) == size
        assert goals.shape == (size, NUM_GOALS, 6)
        for task, rows in zip(names, np.asarray(goals), strict=True):
            low, high = np.array(TASKS[task].low), np.array(TASKS[task].high)
            mine = rows[:, : len(low)]
            assert (mine >= low - 1e-6).all()
            assert (mine <= high + 1e-6).all()
            assert (rows[:, len(low) :] == 0).all()
            assert len(np.unique(mine, axis=0)) == NUM_GOALS
    assert suite.hides_goals == name.startswith("ML")


def test_official_lists():
    assert list(Suite(name="MT10").of("train")) == MT10
    assert list(Suite(name="ML10").of("test")) == ML10_TEST
    assert list(Suite(name="ML45").of("test")) == ML45_TEST
    assert len(Suite(name="MT50").tasks) == 50
    assert set(Suite(name="MT50").tasks) <= set(TASKS)
    ml45 = Suite(name="ML45")
    assert not set(ml45.of("train")) & set(ml45.of("test"))
    # The official leak.
    ml25 = Suite(name="ML25")
    assert set(ml25.of("train")) & set(ml25.of("test")) == {"basketball"}


def test_single_task_suites():
    mt1, ml1 = Suite(name="MT1", task="push"), Suite(name="ML1", task="push")
    np.testing.assert_array_equal(mt1.goals("train"), mt1.goals("test"))
    np.testing.assert_array_equal(mt1.goals("train"), ml1.goals("train"))
    assert not np.allclose(ml1.goals("train"), ml1.goals("test"))
    assert mt1.tasks == ml1.tasks == ("push",)


def test_recordings_used_these_goals():
    """They were made with MT1 and seed 42, as the goals were."""
    goals = np.asarray(Suite(name="MT1", task="push").goals("train"))[0]
    from pathlib import Path

    path = Path(__file__).parents[1] / "parity" / "recordings" / "push.npz"
    with np.load(path) as rows:
        vectors = np.unique(rows["vector"], axis=0)
    for vector in vectors:
        assert np.abs(goals - vector).max(axis=1).min() < 1e-6


def test_sampling_reaches_every_task_and_many_goals():
    suite = Suite(name="ML10")
    keys = jax.random.split(jax.random.key(0), 400)
    drawn = jax.jit(jax.vmap(lambda key: suite.sample_task(key, "test")))(keys)
    names = {suite.tasks[i] for i in np.asarray(drawn.task)}
    assert names == set(ML10_TEST)
    goals = {
        name: np.asarray(g)
        for name, g in zip(ML10_TEST, suite.goals("test"), strict=True)
    }
    for task, vector in zip(drawn.task[:20], drawn.vector[:20], strict=True):
        rows = goals[suite.tasks[int(task)]]
        assert (rows == np.asarray(vector)).all(axis=1).any()
    assert len(np.unique(drawn.vector, axis=0)) > 100


def test_mistakes_are_named(untyped):
    with pytest.raises(ValueError, match=r"suite 'MT11'; did you mean 'MT1' or"):
        Suite(name="MT11")
    with pytest.raises(ValueError, match=r"unknown suite 'x'; known: MT1, MT10, "):
        Suite(name="x")
    with pytest.raises(ValueError, match="MT1 needs a task, got task None"):
        Suite(name="MT1")
    with pytest.raises(ValueError, match="MT10 has tasks of its own, got task 'push'"):
        Suite(name="MT10", task="push")
    with pytest.raises(ValueError, match="unknown task 'psh'; did you mean 'push'"):
        Suite(name="ML1", task="psh")
    several = r"task 'Door'; did you mean 'door-(open|lock)' or 'door-(open|lock)'\?"
    with pytest.raises(ValueError, match=several):
        Suite(name="ML1", task="Door")
    with pytest.raises(
        ValueError, match=r"unknown task 'zzz'; jaxmeta[^ ]*TASKS holds"
    ):
        Suite(name="ML1", task="zzz")
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'x'"):
        Suite(name="MT10").goals("x")
    assert jnp.ndim(Suite(name="MT10").goals("test")) == 3
