"""How fast the environment compiles and steps, beside whatever else plays its tasks.

Random actions, a loop of at least 10 steps as one program, which for every batch of up
to a thousand makes as many steps of the environment. All take turns, since machines
become slower and faster meanwhile.
"""

import contextlib
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from jaxmeta.core.timing import median_seconds, on_cpu, unit
from jaxmeta.manipulation.env import ManipulationEnv
from jaxmeta.manipulation.official import VARIABLE, Official, check
from jaxmeta.manipulation.physics import MODES
from jaxmeta.manipulation.suites import Suite

LEAST_STEPS, ENV_STEPS = 10, 10_240
"""How many steps a loop has at least, and how many of an environment it should make."""

TURNS = 6
"""The first of which is not counted."""

OTHERS_STEPS = 100
"""Steps of every task for packages that play one environment."""

ALONE = "push"
"""The task that is also played without the others."""


class Program(NamedTuple):
    """A compiled loop of steps.

    Attributes:
      run: plays it once, to its end.
      num_steps: environment steps in it.
      compile_seconds: processor time of its compilation, tracing included.
      cached_seconds: the same where the persistent cache has it.
      bytes_per_env: state and scratch memory, divided by the environments.
    """

    run: Callable[[], Any]
    num_steps: int
    compile_seconds: float
    cached_seconds: float
    bytes_per_env: float


def program(tasks: Sequence[str], num_envs: int, mode: str) -> Program:
    """Compiles a batch, twice: into an empty persistent cache and from it.

    Args:
      tasks: that the environments play in turn.
      num_envs: environments in the batch, >= 1.
      mode: of the physics, "faithful" or "fast".
    """
    env = ManipulationEnv(tasks, physics=MODES[mode])
    keys = jax.random.split(jax.random.key(0), num_envs)
    state = jax.jit(jax.vmap(env.reset_task))(keys, jnp.arange(num_envs) % len(tasks))
    steps = max(LEAST_STEPS, ENV_STEPS // num_envs)
    shape = (steps, num_envs, env.action_size)
    actions = jax.random.uniform(jax.random.key(1), shape, minval=-1, maxval=1)

    def play(state, actions):
        one = lambda state, action: (jax.vmap(env.step)(state, action), None)
        return jax.lax.scan(one, state, actions)[0]

    def compiled():
        jax.clear_caches()  # what was traced before would be free
        started = time.process_time()
        found = jax.jit(play).lower(state, actions).compile()
        return found, time.process_time() - started

    with _empty_cache():
        (_, cold), (made, cached) = compiled(), compiled()
    memory = made.memory_analysis()
    assert memory is not None
    taken = memory.temp_size_in_bytes + memory.argument_size_in_bytes - actions.nbytes
    run = lambda: jax.block_until_ready(made(state, actions))
    return Program(run, steps * num_envs, cold, cached, taken / num_envs)


@contextlib.contextmanager
def _empty_cache() -> Iterator[None]:
    """A persistent cache of its own, in place of the user's."""
    before = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    with tempfile.TemporaryDirectory() as directory:
        try:
            compilation_cache.set_cache_dir(directory)
            compilation_cache.reset_cache()
            yield
        finally:
            compilation_cache.set_cache_dir(before)
            compilation_cache.reset_cache()


def sizes() -> tuple[int, ...]:
    """Batches worth measuring on this device."""
    return (64, 1024) if on_cpu() else (1024, 4096, 16384, 65536)


def rates(programs: Sequence[Program], between: Callable[[], Any]) -> list[float]:
    """Median environment steps a second of each; they take turns.

    Args:
      programs: that are measured.
      between: what else is done in every turn, `TURNS` times.
    """
    runs = [*(one.run for one in programs), between]
    *seconds, _ = median_seconds(runs, rounds=TURNS - 1)
    return [one.num_steps / s for one, s in zip(programs, seconds, strict=True)]


def measure(
    num_envs: Sequence[int] = (),
    *,
    tasks: Sequence[str] = (),
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measures every batch in both modes, one task alone, and the other packages.

    Args:
      num_envs: environments of the batches; `sizes()` when empty.
      tasks: of the mixture; all fifty when empty.
      say: told what is being compiled.

    Returns:
      `device`; `time`, what a second is; `rows`, one object a batch; `mixing`, how much
      a mixture costs over one task alone; `official` and `envpool`, steps a CPU second
      of one environment, None where they are not installed.

    Raises:
      ValueError: for a batch without environments.
      OfficialError: if `JAXMETA_METAWORLD_PYTHON` is set to something else.
    """
    num_envs = tuple(dict.fromkeys(num_envs)) or sizes()
    tasks = tasks or Suite(name="MT50").tasks
    if min(num_envs) < 1:
        raise ValueError(f"num_envs must be >= 1, got {min(num_envs)}.")
    if os.environ.get(VARIABLE):
        check()  # before much is compiled
    cases = [(tasks, n, mode) for n in num_envs for mode in MODES]
    cases.append(((ALONE,), max(num_envs), "faithful"))
    programs = []
    for names, n, mode in cases:
        say(f"compiling {_name(names, n, mode)}")
        programs.append(program(names, n, mode))
    shares = [share for turn in range(TURNS) if (share := tasks[turn::TURNS])]
    left, others = iter(shares), []

    def between():
        if share := next(left, ()):
            others.append((official_rate(share), envpool_rate(share)))

    ours = rates(programs, between)
    official, envpool = (
        statistics.harmonic_mean(found, map(len, shares)) if all(found) else None
        for found in zip(*others, strict=True)
    )
    rows = [
        {
            "tasks": list(names),
            "num_envs": n,
            "physics": mode,
            "steps_per_second": rate,
            "compile_cpu_seconds": made.compile_seconds,
            "cached_cpu_seconds": made.cached_seconds,
            "bytes_per_env": made.bytes_per_env,
        }
        for (names, n, mode), made, rate in zip(cases, programs, ours, strict=True)
    ]
    *mixed, alone = rows
    (same,) = (
        row
        for row in mixed
        if (row["num_envs"], row["physics"]) == (alone["num_envs"], alone["physics"])
    )
    return {
        "device": jax.devices()[0].device_kind,
        "time": unit(),
        "rows": rows,
        "mixing": alone["steps_per_second"] / same["steps_per_second"],
        "official": official,
        "envpool": envpool,
    }


def lines(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """What was measured as lines of text, the heading first."""
    official = found["official"]
    against = lambda rate: f"{rate / official:.2f}" if official else "–"
    rate_name = f"steps / {found['time']}"
    table = [("played", rate_name, "x official", "compile", "cached", "KiB each")]
    for row in found["rows"]:
        table.append(
            (
                _name(row["tasks"], row["num_envs"], row["physics"]),
                f"{row['steps_per_second']:,.0f}",
                against(row["steps_per_second"]),
                f"{row['compile_cpu_seconds']:.0f} CPU s",
                f"{row['cached_cpu_seconds']:.0f} CPU s",
                f"{row['bytes_per_env'] / 1024:.0f}",
            )
        )
    none = ("–", "–", "–")
    for name in ("official", "envpool"):
        if rate := found[name]:
            table.append((f"{name}, 1, CPU", f"{rate:,.0f}", against(rate), *none))
    table.append(("one task over mixed", f"{found['mixing']:.2f} x", "–", *none))
    return table


def title(found: dict[str, Any]) -> str:
    """What the lines are of."""
    return f"Manipulation, random actions, on {found['device']}"


def _name(tasks: Sequence[str], num_envs: int, mode: str) -> str:
    return f"{num_envs:,} {mode}{', one task' * (len(tasks) == 1)}"


def official_rate(tasks: Sequence[str]) -> float | None:
    """Steps a CPU second of the official package; None where it is not named."""
    if not os.environ.get(VARIABLE):
        return None
    vectors = [Suite(name="MT1", task=name).goals("train")[0, 0] for name in tasks]
    with Official() as official:
        answer = official.ask(
            "speed", tasks=list(tasks), vectors=np.stack(vectors), steps=OTHERS_STEPS
        )
    return float(answer["rate"])


def envpool_rate(tasks: Sequence[str]) -> float | None:
    """Steps a CPU second of EnvPool's Meta-World in C++; None if not installed."""
    if importlib.util.find_spec("envpool") is None:
        return None
    import envpool  # pyright: ignore[reportMissingImports]

    rng, spent = np.random.default_rng(0), 0.0
    for name in tasks:
        title = "".join(word.capitalize() for word in name.split("-"))
        env = envpool.make(f"MetaWorld/{title}-v3", env_type="gymnasium", num_envs=1)
        env.reset()
        actions = rng.uniform(-1.0, 1.0, size=(OTHERS_STEPS, 1, 4))
        started = time.process_time()
        for action in actions:
            env.step(action)
        spent += time.process_time() - started
        env.close()
    return len(tasks) * OTHERS_STEPS / spent
