"""`jaxmeta bench env`, on an environment that costs nothing to compile."""

import dataclasses
import json
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from jaxmeta.cli import main
from jaxmeta.manipulation import bench, official


class State(NamedTuple):
    task: jax.Array
    total: jax.Array


@dataclasses.dataclass
class Adder:
    """Adds up what is done; every environment remembers its task."""

    tasks: tuple
    physics: object
    action_size = 4

    def reset_task(self, key, task):
        assert self.physics in bench.MODES.values()
        return State(task, jnp.zeros(4))

    def step(self, state, action):
        return state._replace(total=state.total + action)


@pytest.fixture(autouse=True)
def cheap(monkeypatch, untyped):
    monkeypatch.delenv(official.VARIABLE, raising=False)
    monkeypatch.setattr(bench, "ManipulationEnv", Adder)
    monkeypatch.setattr(bench, "envpool_rate", lambda tasks: None)
    # What other tests have compiled in this process is still needed.
    monkeypatch.setattr(jax, "clear_caches", lambda: None)


def test_a_program_plays_its_steps_and_leaves_the_cache_alone():
    before = jax.config.jax_compilation_cache_dir
    made = bench.program(("a", "b"), 3, "fast")
    assert jax.config.jax_compilation_cache_dir == before
    steps = bench.ENV_STEPS // 3
    assert made.num_steps == 3 * steps
    state = made.run()
    assert state.task.tolist() == [0, 1, 0]
    actions = jax.random.uniform(jax.random.key(1), (steps, 3, 4), minval=-1, maxval=1)
    assert jnp.allclose(state.total, actions.sum(axis=0), atol=1e-2)
    assert made.cached_seconds > 0
    # A state of 5 numbers; of its actions nothing.
    assert 20 <= made.bytes_per_env < 16 * steps


def test_rates_are_medians_of_turns(monkeypatch):
    now, spent = [0.0], {"a": iter([9, 1, 5, 2, 1, 9]), "b": iter([9, 4, 4, 4, 4, 4])}
    monkeypatch.setattr(bench.time, "process_time", lambda: now[0])

    def runs(name):
        def run():
            now[0] += next(spent[name])

        return bench.Program(run, 20, 0.0, 0.0, 0.0)

    # The first of each warms up.
    turns = []
    found = bench.rates([runs("a"), runs("b")], lambda: turns.append(now[0]))
    assert found == [10.0, 5.0]
    assert turns == [18.0, 23.0, 32.0, 38.0, 43.0, 56.0]


def test_every_size_in_both_modes_and_one_task_alone(monkeypatch):
    def rates(programs, between):
        assert len(programs) == 5
        for _ in range(bench.TURNS):
            between()
        return [1.0, 4.0, 2.0, 8.0, 3.0]

    monkeypatch.setattr(bench, "rates", rates)
    # Two tasks, of which each is played in one turn, half a second and an eighth.
    slow = {("reach",): 2.0, ("push",): 8.0}
    monkeypatch.setattr(bench, "official_rate", slow.__getitem__)
    said = []
    found = bench.measure([2, 4, 2], tasks=("reach", "push"), say=said.append)
    cases = [(len(r["tasks"]), r["num_envs"], r["physics"]) for r in found["rows"]]
    assert cases == [
        (2, 2, "faithful"),
        (2, 2, "fast"),
        (2, 4, "faithful"),
        (2, 4, "fast"),
        (1, 4, "faithful"),
    ]
    assert len(said) == 5
    assert found["mixing"] == 1.5
    lines = bench.lines(found)
    assert {len(line) for line in lines} == {6}
    assert lines[0][:3] == ("played", "steps / CPU s", "x official")
    assert lines[1][:3] == ("2 faithful", "1", "0.31")
    assert lines[4][:3] == ("4 fast", "8", "2.50")
    assert lines[5][0] == "4 faithful, one task"
    assert lines[6][:3] == ("official, 1, CPU", "3", "1.00")
    assert lines[7][:2] == ("one task over mixed", "1.50 x")


def test_the_command(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    out = tmp_path / "bench.json"
    main(["bench", "env", "--num-envs", "2", "--out", str(out)])
    shown = capsys.readouterr()
    assert max(map(len, shown.out.splitlines())) <= 80
    for text in ("2 faithful", "2 fast", "2 faithful, one task", "CPU s", "on cpu"):
        assert text in shown.out
    assert "compiling 2 fast\n" in shown.err
    found = json.loads(out.read_text())
    assert [row["num_envs"] for row in found["rows"]] == [2, 2, 2]
    assert all(math.isfinite(row["steps_per_second"]) for row in found["rows"])
    assert found["official"] is None
    assert found["command"].startswith("jaxmeta bench env")
    assert {"mujoco-mjx", "jax"} <= found["versions"].keys()


CASES = {
    "no name": ([], "which NAME", "env: steps, compile time", "jaxmeta bench env"),
    "unknown name": (["evn"], "evn", "env", "--help"),
    "no environments": (["env", "--num-envs", "0"], "num_envs must be >= 1, got 0"),
    "no directory": (["env", "--out", "nowhere/x.json"], "nowhere/x.json", "--out"),
    "a directory": (["env", "--out", "."], "--out ."),
    "steps of an env": (["env", "--inner-steps", "3"], "--inner-steps is not of"),
    "envs of a gradient": (
        ["meta-gradient", "--num-envs", "3"],
        "--num-envs is not of",
    ),
    "no steps": (["meta-gradient", "--inner-steps", "0"], "inner_steps must be >= 1"),
}


@pytest.mark.parametrize("name", CASES)
def test_mistakes(name, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    argv, *named = CASES[name]
    with pytest.raises(SystemExit) as stop:
        main(["bench", *argv])
    assert stop.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    for word in named:
        assert word in shown.err
