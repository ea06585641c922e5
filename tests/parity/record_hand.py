"""Records how the official hand moves while nothing touches it, to fit ours to it.

Runs in the environment of the official package, as `record.py` does:

    mw/bin/python tests/parity/record_hand.py --seeds 7 11 13 17 19 --out hand.npz

Of each task and seed an episode of the scripted policy, one with noise on its actions
and one of random actions, up to the first contact of hand or wrist; and episodes
without objects, in which the hand goes to random points and stays there. Of every
episode `goal` `[step, 3]` is the point that drags the hand in a step, and `hand`
`[step + 1, 3]` where it is, metres.
"""

import argparse
from pathlib import Path

import mujoco
import numpy as np
from metaworld import MT1, policies
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

STEPS, SUBSTEPS = 150, 5
NOISE = {"clean": 0.0, "noisy": 0.5, "random": np.inf}
# The three places where episodes start, and how many of a hundred start there.
STARTS = {"reach-v3": 50, "hammer-v3": 35, "door-close-v3": 15}
LOW, HIGH = np.array([-0.3, 0.4, 0.04]), np.array([0.35, 0.92, 0.42])
"""Where the random points are, metres."""


def of_hand(model):
    """Which geoms are parts of hand and wrist."""

    def within(body):
        while body and model.body(body).name != "right_l6":
            body = model.body_parentid[body]
        return body > 0

    return np.array([within(body) for body in model.geom_bodyid])


class Recorder:
    """Notes every step until something touches the hand.

    Attributes:
      goal: the points so far.
      hand: where the hand was.
      touched: whether anything has touched it.
    """

    def __init__(self, env):
        self.model, self.data = env.model, env.data
        self.parts = of_hand(env.model)
        self.goal, self.hand, self.touched = [], [self._hand()], False

    def _hand(self):
        return self.data.body("hand").xpos.copy()

    def step(self, ctrl, n_frames=None):
        """Takes the place of the environment's `do_simulation`."""
        del n_frames
        self.data.ctrl[:] = ctrl
        for _ in range(SUBSTEPS):
            mujoco.mj_step(self.model, self.data)
            pairs = self.parts[self.data.contact.geom]
            # Officially reset hands may touch their lock; that is over at once.
            self.touched |= (
                bool((pairs[:, 0] != pairs[:, 1]).any()) and len(self.goal) > 0
            )
        self.goal.append(self.data.mocap_pos[0].copy())
        self.hand.append(self._hand())

    def episode(self):
        """What was noted, the last step without contact."""
        cut = len(self.goal) - self.touched
        return np.array(self.goal[:cut]), np.array(self.hand[: cut + 1])


def of_policy(name, task, kind, seed):
    """An episode of a task."""
    env = ALL_V3_ENVIRONMENTS[name]()
    env.set_task(task)
    env._partially_observable = False
    env.__dict__.pop("sawyer_observation_space", None)
    policy, rng = policies.ENV_POLICY_MAP[name](), np.random.default_rng(seed)
    obs, _ = env.reset()
    recorder, noise = Recorder(env), NOISE[kind]
    env.do_simulation = recorder.step
    for _ in range(STEPS):
        if kind == "random":
            action = rng.uniform(-1, 1, size=4)
        else:
            action = policy.get_action(obs) + noise * rng.normal(size=4)
        obs, *_ = env.step(np.clip(action, -1, 1).astype(np.float32))
        if recorder.touched:
            break
    return recorder.episode()


def of_points(name, task, seed):
    """An episode in which nothing is there to be touched."""
    env, rng = ALL_V3_ENVIRONMENTS[name](), np.random.default_rng(seed)
    env.set_task(task)
    env.reset()
    env.model.geom_contype[:] = env.model.geom_conaffinity[:] = 0
    recorder, left = Recorder(env), 0
    gain = rng.choice([10, 25])
    for _ in range(STEPS):
        if left == 0:
            anywhere = rng.uniform(LOW, HIGH)
            nearby = recorder.hand[-1] + rng.normal(scale=0.05, size=3)
            point = anywhere if rng.random() < 0.7 else np.clip(nearby, LOW, HIGH)
            left, grip = int(rng.integers(10, 60)), rng.choice([-1, 1])
        left -= 1
        move = np.clip(gain * (point - recorder.hand[-1]), -1, 1) / 100
        goal = np.clip(env.data.mocap_pos[0] + move, env.mocap_low, env.mocap_high)
        env.data.mocap_pos[0] = goal
        recorder.step((grip, -grip))
    return recorder.episode()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[7])
    parser.add_argument("--points", type=int, default=240)
    options = parser.parse_args()
    found = {}
    for seed in options.seeds:
        for name in ALL_V3_ENVIRONMENTS:
            tasks = MT1(name, seed=seed).train_tasks
            for kind, task in zip(NOISE, tasks, strict=False):
                found[f"{name}/{kind}/{seed}"] = of_policy(name, task, kind, seed)
            print(name, seed, flush=True)
    for name, share in STARTS.items():
        task = MT1(name, seed=1).train_tasks[0]
        for i in range(options.points * share // 100):
            found[f"points/{name}/{i}"] = of_points(name, task, i)
    arrays = {
        f"{key}/{part}": x
        for key, episode in found.items()
        for part, x in zip(("goal", "hand"), episode, strict=True)
    }
    np.savez_compressed(options.out, **arrays)


if __name__ == "__main__":
    main()
