"""Steps of the manipulation environment per second of processor time.

The official package runs beside it where `JAXMETA_METAWORLD_PYTHON` names the
interpreter of an environment that has it: it pins another MuJoCo.
"""

import os
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.manipulation.env import ManipulationEnv
from jaxmeta.manipulation.physics import Physics
from jaxmeta.manipulation.tasks import TASKS

FAITHFUL, FAST = Physics(), Physics(timestep=0.0125, substeps=1)
ROUNDS, STEPS = 5, 10

OFFICIAL = """
import time, numpy as np
from metaworld import MT1
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
rng, spent, steps = np.random.default_rng(0), 0.0, 0
for name, kind in ALL_V3_ENVIRONMENTS.items():
    env = kind()
    env.set_task(MT1(name, seed=42).train_tasks[0])
    env.reset()
    actions = rng.uniform(-1, 1, size=(100, 4))
    started = time.process_time()
    for action in actions:
        env.step(action)
    spent += time.process_time() - started
    steps += len(actions)
print(steps / spent)
"""


def runner(tasks, num_envs, physics):
    """A function that plays some steps, its number of steps and its compile time."""
    env = ManipulationEnv(tasks, physics=physics)
    keys = jax.random.split(jax.random.key(0), num_envs)
    ids = jnp.arange(num_envs) % len(tasks)
    state = jax.jit(jax.vmap(env.reset_task))(keys, ids)
    shape = (STEPS, num_envs, 4)
    actions = jax.random.uniform(jax.random.key(1), shape, minval=-1, maxval=1)

    @jax.jit
    def play(state, actions):
        one = lambda state, action: (jax.vmap(env.step)(state, action), None)
        return jax.lax.scan(one, state, actions)[0]

    started = time.process_time()
    compiled = play.lower(state, actions).compile()
    seconds = time.process_time() - started
    memory = compiled.memory_analysis()
    per_env = (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / num_envs
    run = lambda: jax.block_until_ready(compiled(state, actions))
    return run, STEPS * num_envs, seconds, per_env


def steps_per_second(runs):
    """Median steps per CPU second of each; they take turns."""
    rates = {name: [] for name in runs}
    for run, *_ in runs.values():
        run()
    for _ in range(ROUNDS):
        for name, (run, steps, *_) in runs.items():
            started = time.process_time()
            run()
            rates[name].append(steps / (time.process_time() - started))
    return {name: float(np.median(rate)) for name, rate in rates.items()}


def test_env_speed(table):
    names = list(TASKS)
    one, mixed, fast = "one task, 1024", "50 tasks mixed, 1024", "the same, fast"
    runs = {
        "50 tasks mixed, 64": runner(names, 64, FAITHFUL),
        mixed: runner(names, 1024, FAITHFUL),
        one: runner(["push"], 1024, FAITHFUL),
        fast: runner(names, 1024, FAST),
    }
    rates, official = steps_per_second(runs), official_rate()
    rows = [("environments", "env steps / CPU s", "compile, CPU s", "KiB each", "")]
    for name, rate in rates.items():
        _, _, seconds, per_env = runs[name]
        against = f"{rate / official:.2f} x official" if official else ""
        rows.append(
            (name, f"{rate:,.0f}", f"{seconds:.0f}", f"{per_env / 1024:.0f}", against)
        )
    if official:
        rows.append(("official package, one", f"{official:,.0f}", "", "", ""))
    rows.append(("mixed over one task", f"{rates[one] / rates[mixed]:.2f}", "", "", ""))
    table("Manipulation: random actions, faithful 5 x 2.5 ms, fast 1 x 12.5 ms", rows)
    assert all(rate > 0 for rate in rates.values())


def official_rate():
    """Steps per CPU second of the official package, None where it is not installed."""
    interpreter = os.environ.get("JAXMETA_METAWORLD_PYTHON")
    if not interpreter:
        return None
    command = [interpreter, "-W", "ignore", "-c", OFFICIAL]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(found.stdout.split()[-1])
