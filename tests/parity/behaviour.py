"""The official scripted policies, closed loop in our environment, all tasks at once.

Every task plays its first goals of MT50 (seed 42) in one batch of one compiled program.
Needs `metaworld` to be importable for its policies; `--official DIR` names the
site-packages of another environment that has it.

    python tests/parity/behaviour.py --official mw/lib/python3.11/site-packages \\
        --out behaviour.json
"""

import argparse
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.manipulation.env import HORIZON, ManipulationEnv
from jaxmeta.manipulation.physics import Physics
from jaxmeta.manipulation.suites import Suite


def play(env, vectors, tasks, policies, *, horizon=HORIZON, progress=lambda step: None):
    """Plays one episode of each row.

    Returns:
      `{first: [row] step of the first success or -1, last: [row], total: [row] return,
      finite: [row]}`.
    """
    keys = jax.random.split(jax.random.key(0), len(tasks))
    state = jax.jit(jax.vmap(env.reset_to))(vectors, jnp.asarray(tasks), keys)
    step = jax.jit(jax.vmap(env.step), donate_argnums=0)
    first, total = np.full(len(tasks), -1), np.zeros(len(tasks))
    for i in range(horizon):
        seen = np.array(state.obs, np.float64)
        action = np.stack(
            [policies[t].get_action(obs) for t, obs in zip(tasks, seen, strict=True)]
        )
        state = step(state, jnp.asarray(np.clip(action, -1, 1), jnp.float32))
        success = np.asarray(state.metrics["success"]) > 0
        first = np.where(success & (first < 0), i, first)
        total += np.asarray(state.reward)
        progress(i)
    finite = np.isfinite(np.asarray(state.obs)).all(axis=1)
    return {"first": first, "last": success, "total": total, "finite": finite}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", type=Path, default=None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--goals", type=int, default=20)
    parser.add_argument("--tasks", nargs="*", default=None)
    parser.add_argument("--timestep", type=float, default=0.0025)
    parser.add_argument("--substeps", type=int, default=5)
    options = parser.parse_args()
    if options.official:
        sys.path.append(str(options.official))
    from metaworld.policies import ENV_POLICY_MAP

    suite = Suite(name="MT50")
    names = options.tasks or list(suite.tasks)
    physics = Physics(timestep=options.timestep, substeps=options.substeps)
    env = ManipulationEnv(names, physics=physics)
    goals = suite.goals("train")[:, : options.goals]
    rows = jnp.concatenate([goals[suite.tasks.index(name)] for name in names])
    tasks = np.repeat(np.arange(len(names)), options.goals)
    policies = [ENV_POLICY_MAP[f"{name}-v3"]() for name in names]
    started, cpu = time.time(), time.process_time()

    def progress(i):
        if i % 50 == 0:
            print(f"step {i}: {time.time() - started:.0f} s", flush=True)

    found = play(env, rows, tasks, policies, progress=progress)
    table = {}
    for i, name in enumerate(names):
        mine = {key: value[tasks == i] for key, value in found.items()}
        solved = mine["first"] >= 0
        table[name] = {
            "success": float(solved.mean()),
            "last_step": float(mine["last"].mean()),
            "steps": float(mine["first"][solved].mean()) if solved.any() else None,
            "return": float(mine["total"].mean()),
            "finite": bool(mine["finite"].all()),
        }
        print(name, table[name], flush=True)
    shares = np.array([row["success"] for row in table.values()])
    print(
        f"mean {shares.mean():.3f}, at least .85: {np.sum(shares >= 0.85)} of "
        f"{len(shares)}, below .5: {np.sum(shares < 0.5)}; "
        f"{time.process_time() - cpu:.0f} CPU s"
    )
    options.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
