"""Exports the official suites: which tasks, and the 50 goals of each for seed 42.

Runs in the environment of `record.py`:

    mw/bin/python tests/parity/export_goals.py --out jaxmeta/manipulation/goals.npz

The official package draws goals while it resets, one suite after another from one
global stream; the hand's descent, which draws nothing, is skipped here (`--check` shows
on MT10 that this changes no goal).
"""

import argparse
import pickle
from pathlib import Path

import metaworld
import mujoco
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.sawyer_xyz_env import SawyerXYZEnv

SEED = 42
WIDTH = 6


def skip_descent(env, steps=50):
    """Stands for 250 steps of physics in which nothing is drawn."""
    mujoco.mj_forward(env.model, env.data)
    env.init_tcp = env.tcp_center


def goals(tasks):
    """`{task: [50, 6]}`, draws of three numbers padded with zeros."""
    found = {}
    for task in tasks:
        vector = pickle.loads(task.data)["rand_vec"]
        padded = np.pad(vector, (0, WIDTH - len(vector)))
        found.setdefault(task.env_name.removesuffix("-v3"), []).append(padded)
    return {name: np.array(rows, np.float32) for name, rows in found.items()}


def suites(names):
    """Benchmarks of the official package, by name."""
    for name in names:
        yield name, getattr(metaworld, name)(seed=SEED)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    slow = goals(metaworld.MT10(seed=SEED).train_tasks) if options.check else None
    SawyerXYZEnv._reset_hand = skip_descent
    if slow is not None:
        quick = goals(metaworld.MT10(seed=SEED).train_tasks)
        assert all(np.array_equal(slow[name], quick[name]) for name in slow)
    arrays = {}
    for name, suite in suites(("MT10", "MT25", "MT50", "ML10", "ML25", "ML45")):
        for split in ("train", "test"):
            table = goals(getattr(suite, f"{split}_tasks"))
            if table:
                arrays[f"{name}/{split}/tasks"] = np.array(list(table))
                arrays[f"{name}/{split}/goals"] = np.stack(list(table.values()))
    names = [name.removesuffix("-v3") for name in ALL_V3_ENVIRONMENTS]
    one = [metaworld.ML1(f"{name}-v3", seed=SEED) for name in names]
    for split in ("train", "test"):  # ML1 trains on the goals of MT1
        tables = [goals(getattr(suite, f"{split}_tasks")) for suite in one]
        arrays[f"ML1/{split}/tasks"] = np.array(names)
        arrays[f"ML1/{split}/goals"] = np.stack(
            [table[name] for table, name in zip(tables, names, strict=True)]
        )
    np.savez_compressed(options.out, **arrays)
    print({name: x.shape for name, x in arrays.items()})


if __name__ == "__main__":
    main()
