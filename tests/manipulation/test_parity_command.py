"""`jaxmeta reproduce metaworld-parity`, beside a stand-in for the official package."""

import json
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.cli import main
from jaxmeta.core import catalogue
from jaxmeta.core.progress import Progress
from jaxmeta.core.run import Run
from jaxmeta.core.writers import Writers
from jaxmeta.manipulation import official
from jaxmeta.manipulation.bench import official_rate
from jaxmeta.manipulation.official import Official, OfficialError
from jaxmeta.manipulation.parity import ScriptedPlay, play
from jaxmeta.manipulation.physics import MODES
from jaxmeta.manipulation.suites import Suite

TASKS = ("reach", "door-open")

# Enough of `metaworld` to be asked questions. Its simulator moves the hand by a fixed
# length towards where the action points, and hands out a view of its state. Its policy
# goes straight for the goal, and ruins what it is shown.
PACKAGE = {
    "metaworld/__init__.py": """
        import collections
        Task = collections.namedtuple("Task", "env_name data")
        print("a greeting that is no answer")
    """,
    "metaworld/env_dict.py": """
        import pickle
        import numpy as np

        class Reach:
            SIZE = 6

            def __init__(self):
                self._random_reset_space = type("Box", (), {"low": np.zeros(self.SIZE)})

            def set_task(self, task):
                data = pickle.loads(task.data)
                assert data["env_cls"] is type(self)
                assert not data["partially_observable"]
                assert data["rand_vec"].shape == (self.SIZE,)
                self.goal = data["rand_vec"][-3:]

            def reset(self):
                self.seen = np.zeros(39)
                self.seen[:3], self.seen[36:] = [0.0, 0.6, 0.2], self.goal
                return self.seen, {}

            def step(self, action):
                assert (np.abs(action) <= 1).all()
                self.seen[:3] += 0.01 * action[:3]
                close = np.linalg.norm(self.seen[:3] - self.goal) < 0.05
                return self.seen, 0.0, False, False, {"success": float(close)}

        class Stuck(Reach):
            SIZE = 3

            def step(self, action):
                return self.seen, 0.0, False, False, {"success": 0.0}

        ALL_V3_ENVIRONMENTS = {"reach-v3": Reach, "door-open-v3": Stuck}
    """,
    "metaworld/policies.py": """
        import numpy as np

        class Straight:
            def get_action(self, seen):
                assert seen.shape == (39,) and seen.dtype == np.float64
                move = 10 * (seen[36:39] - seen[:3])
                seen[:] = np.nan
                return np.array([*move, 0.0], np.float32)

        ENV_POLICY_MAP = {"reach-v3": Straight, "door-open-v3": Straight}
    """,
}
CONFIG = '''"""Two tasks of the table."""

from jaxmeta.core import catalogue

PAPER, COST = "none", "1 min"


def get_table(quick):
    shipped = catalogue.load(catalogue.find("metaworld-parity", "table"))
    return shipped.make_table(("reach", "door-open"), 2, claims=not quick)
'''


def write(directory, version=official.VERSION):
    for name, text in PACKAGE.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(textwrap.dedent(text))
    about = directory / f"metaworld-{version}.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text(f"Metadata-Version: 2.1\nName: metaworld\nVersion: {version}\n")


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    """The stand-in, in an interpreter that is named as the official one's."""
    official._check.cache_clear()
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv(official.VARIABLE, sys.executable)
    return tmp_path


def plays(**changes):
    given = {"physics": None, "tasks": TASKS, "num_goals": 2, "horizon": 60}
    return ScriptedPlay(**given | changes)


def perform(given):
    """What is measured, and nothing else."""
    progress = Progress(given.steps, quiet=True)
    return given.perform(Path("run"), Writers(()), progress)


def by_hand(goal, horizon):
    """Steps until the stand-in's policy succeeds in the stand-in's simulator."""
    hand = np.array([0.0, 0.6, 0.2])
    for i in range(horizon):
        hand = hand + 0.01 * np.clip(10 * (goal - hand), -1, 1)
        if np.linalg.norm(hand - goal) < 0.05:
            return i + 1
    return 0


def test_the_official_package_plays_the_goals_of_the_suite():
    values = perform(plays())
    suite = Suite(name="MT50")
    goals = suite.goals("train")[suite.tasks.index("reach"), :2, 3:]
    steps = [by_hand(goal, 60) for goal in np.asarray(goals)]
    assert 10 < min(steps) < max(steps) < 60
    assert values["success"].tolist() == [1, 1, 0, 0]
    assert values["steps"].tolist() == [*steps, 60, 60]


def test_another_seed_plays_the_next_goals():
    first, second = (np.asarray(plays(seed=seed).vectors()) for seed in (0, 1))
    goals = np.asarray(Suite(name="MT50").goals("train"))
    door = Suite(name="MT50").tasks.index("door-open")
    np.testing.assert_array_equal(first[1], goals[door, :2])
    np.testing.assert_array_equal(second[1], goals[door, 2:4])


def test_actions_are_the_policies_own():
    obs = np.linspace(-0.1, 0.1, 78).reshape(2, 39).astype(np.float32)
    with Official() as package:
        actions = package.ask("act", tasks=list(TASKS), obs=obs)["actions"]
    expected = np.clip(10 * (obs[:, 36:] - obs[:, :3]), -1, 1)
    np.testing.assert_allclose(actions[:, :3], expected, rtol=1e-6)


def test_the_policies_play_in_our_environment():
    """Straight for the goal: ours takes a little longer, for its hand lags."""
    tasks, fast = ("reach",), MODES["fast"]
    theirs, ours = (
        perform(plays(tasks=tasks, physics=physics)) for physics in (None, fast)
    )
    assert ours["success"].tolist() == [1, 1]
    later = ours["steps"] - theirs["steps"]
    assert (later >= 0).all()
    assert (later < 30).all()


def test_speed_of_the_official_package(monkeypatch):
    assert official_rate(TASKS) > 0
    monkeypatch.delenv(official.VARIABLE)
    assert official_rate(TASKS) is None


class Counter:
    """An environment that succeeds when its action has been -1 for `task` steps."""

    action_size = 4

    def reset_to(self, vector, task, key):
        return State(jnp.zeros(()), task, {"success": jnp.zeros(())})

    def step(self, state, action):
        count = state.obs + (action[0] < 0)
        success = (state.task > 0) & (count == state.task)
        return State(count, state.task, {"success": success.astype(jnp.float32)})


class State(NamedTuple):
    obs: jnp.ndarray
    task: jnp.ndarray
    metrics: dict


def test_rows_that_have_succeeded_are_not_asked_again(untyped):
    asked, tasks = [], np.array([3, 0, 1])

    def act(tasks, obs):
        asked.append(tasks.tolist())
        return -np.ones((len(tasks), 4))

    seen = []
    steps = play(Counter(), act, tasks, jnp.zeros((3, 6)), horizon=4, after=seen.append)
    assert steps.tolist() == [3, 0, 1]
    assert asked == [[3, 0, 1], [3, 0], [3, 0], [0]]
    assert seen == [1, 2, 3, 4]


def test_play_ends_when_all_have_succeeded(untyped):
    act, seen = lambda tasks, obs: -np.ones((len(tasks), 4)), []
    vectors = jnp.zeros((2, 6))
    play(Counter(), act, np.array([2, 1]), vectors, horizon=9, after=seen.append)
    assert seen == [1, 2]


def reproduce(*options):
    main(["reproduce", "two.py", "--run-dir", "run", *options])


def test_the_table(package, capsys, monkeypatch):
    """Whole: three rows, every task broken down, and nothing done twice."""
    monkeypatch.setenv("COLUMNS", "80")
    (package / "two.py").write_text(CONFIG)
    reproduce("--rows", "official")
    first = capsys.readouterr()
    assert "faithful" not in first.out
    steps = [by_hand(g, 500) for g in np.asarray(plays().vectors())[0, :, 3:]]
    assert f"1.00 in {np.mean(steps):.0f}" in first.out
    cells = package / "run" / "cells"
    assert [path.name for path in cells.iterdir()] == ["official-mt50-seed0"]

    def measure(self, directory, writer, progress):
        """Of ours: all of reach and half of door-open."""
        assert self.physics in MODES.values()
        faithful = self.physics == MODES["faithful"]
        success = np.array([1, 1, faithful, 0], np.float32)
        writer.write(self.steps, {"success": float(success.mean())})
        return {"success": success, "steps": np.array([10.0, 20.0, 7.0, 500.0])}

    monkeypatch.setattr(ScriptedPlay, "perform", measure)
    reproduce()
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    table = (package / "run" / "report.md").read_text()
    assert (
        f"| reach | 1.00 in {np.mean(steps):.0f} | 1.00 in 15 | 1.00 in 15 |" in table
    )
    assert "| door-open | 0.00 | 0.50 in 7 | 0.00 |" in table
    for words in (
        "| tasks at 0.85 or more (aim: 2) | 1 | 1 misses | 1 |",
        "| least of all tasks (aim: 0.50) | 0.00 | 0.50 holds | 0.00 |",
        "| mean (aim: 0.930) | 0.500 | 0.750 misses | 0.500 |",
        "Below 0.85, faithful: door-open.",
        "costs 0.250 of the mean; it loses more than .10 on door-open, and gains as "
        "much on none.",
        "metaworld 3.1.1 and its MuJoCo, 2 goals a task",
        "1 x 12.5 ms a step, 2 goals a task",
        "each on 4 episodes, 2 of each of 2 tasks",
    ):
        assert words in table
    records = json.loads((package / "run" / "table.json").read_text())
    assert [record["value"] for record in records] == [0.5, 0.75, 0.5]
    assert [record["verdict"] for record in records] == [None, "misses", None]
    assert not (package / "run" / "curves.png").exists()
    card = json.loads((package / "run" / "card.json").read_text())
    assert {"mujoco", "mujoco-mjx"} <= card["versions"].keys()
    config = json.loads((cells / "fast-mt50-seed0" / "config.json").read_text())
    assert config["physics"]["timestep"] == 0.0125
    monkeypatch.setattr(ScriptedPlay, "perform", None)
    reproduce()
    assert capsys.readouterr().out == out
    main(["report", "run"])
    assert capsys.readouterr().out.strip() == table.strip()


def test_what_is_measured_is_no_trained_run(package, capsys):
    Run.open(package / "run", plays())
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "run"])
    assert stop.value.code == 2
    assert "run holds nothing that was trained" in capsys.readouterr().err


def test_few_goals_are_said_and_not_judged(package):
    entry = catalogue.find("metaworld-parity", "table")
    quick, full = (catalogue.load(entry).get_table(quick) for quick in (True, False))
    assert "first 3 goals" in quick.notes[0]
    assert "too few to judge" in quick.notes[0]
    assert "first 20 goals" in full.notes[0]
    assert [cell.claim for cell in quick.cells] == ["", "", ""]
    assert [cell.claim for cell in full.cells] == ["", "at least 0.93", ""]


def refused(capsys):
    with pytest.raises(SystemExit) as stop:
        reproduce()
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jaxmeta reproduce: ")
    assert err.count("\n") == 1
    assert official.VARIABLE in err
    assert "python3.11 -m venv mw" in err
    assert "mw/bin/pip install metaworld==3.1.1 packaging" in err
    return err


def test_no_official_package(package, capsys, monkeypatch):
    (package / "two.py").write_text(CONFIG)
    monkeypatch.delenv(official.VARIABLE)
    assert "is not set" in refused(capsys)
    monkeypatch.setenv(official.VARIABLE, "nowhere/python")
    assert "nowhere/python, which does not start" in refused(capsys)
    monkeypatch.setenv(official.VARIABLE, sys.executable)
    monkeypatch.setenv("PYTHONPATH", "")
    assert "No module named 'metaworld'" in refused(capsys)
    assert not (package / "run").exists()


def test_another_version_of_the_package(package, capsys, monkeypatch):
    (package / "two.py").write_text(CONFIG)
    write(package / "older", version="3.0.0")
    monkeypatch.setenv("PYTHONPATH", str(package / "older"))
    assert "metaworld 3.0.0, not 3.1.1" in refused(capsys)


def test_a_package_that_fails_says_why():
    with Official() as package, pytest.raises(OfficialError, match="KeyError: 'raech"):
        package.ask("play", task="raech", vectors=np.zeros((1, 6)), horizon=1)


def test_mistakes_are_named(untyped):
    with pytest.raises(ValueError, match="50 goals, seed 2 with num_goals 20"):
        plays(num_goals=20, seed=2)
    with pytest.raises(ValueError, match=r"num_goals must be >= 1 .* got 0 and 60"):
        plays(num_goals=0)
    with pytest.raises(ValueError, match="unknown task 'raech'; did you mean 'reach'"):
        plays(tasks=("raech",))
