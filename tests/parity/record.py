"""Records what the official Meta-World does, to be compared with.

Runs in an environment of its own, because the official package pins another MuJoCo:

    python3.11 -m venv mw && mw/bin/pip install metaworld==3.1.1 packaging
    mw/bin/python tests/parity/record.py --out tests/parity/recordings --episodes 6

For every task it writes `TASK.npz` with some episodes of the official scripted policy
(clean, and with noise on its actions) and of random actions: raw physical quantities,
actions, observations, rewards of both versions and successes. Nothing that a reward
computes is among the quantities. Row 0 of an episode is the reset, which has no action
and no reward.

One more episode is posed: every third step everything but the robot is set at random.
Without it eight of the version 1 rewards, which want the fingers at other places than
the policies do, would never be seen beyond reaching.

`hidden.npz` has, for every task, the observations of a short episode `[2, step, 39]`
with its goal shown and again with it hidden, as the suites for meta-learning have it.
"""

import argparse
import contextlib
from pathlib import Path

import mujoco
import numpy as np
from metaworld import MT1, policies
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

# Sites and joints that rewards read beside the observed points.
LANDMARKS = {
    "assembly": "RoundNut",
    "disassemble": "RoundNut",
    "peg-insert-side": "pegHead",
    "stick-pull": "stick_end",
}
JOINTS = {
    "door-open": "doorjoint",
    "hammer": "NailSlideJoint",
    "lever-pull": "LeverAxis",
    "dial-turn": "knob_Joint_1",
}
STOP_AFTER_SUCCESS = 15


def pad_forces(env):
    """Force of the left and right pad on the main object, as the package adds it up."""
    forces = np.zeros(2)
    try:
        main = env.unwrapped._get_id_main_object()
    except (AttributeError, KeyError, NotImplementedError):
        return forces
    if main is None:
        return forces
    data = env.unwrapped.data
    for side, name in enumerate(("leftpad_geom", "rightpad_geom")):
        pad = data.geom(name).id
        for contact in data.contact:
            if {pad, main} == {contact.geom1, contact.geom2}:
                forces[side] += data.efc_force[contact.efc_address]
    return forces


def physical_quat(env, index):
    """The orientation of an observed object with w first."""
    quats = np.asarray(env._get_quat_objects()).reshape(-1, 4)
    if index >= len(quats) or not quats[index].any():
        return np.array([1.0, 0.0, 0.0, 0.0])
    quat = quats[index]
    return np.roll(quat, 1) if is_xyzw(env) else quat


def is_xyzw(env):
    """Whether the package makes the observed quaternion with SciPy (x first)."""
    return "as_quat" in type(env)._get_quat_objects.__code__.co_names


def readings(task, env):
    """The raw quantities of the moment."""
    data = env.data
    objects = np.asarray(env._get_pos_objects()).reshape(-1, 3)
    claws = data.body("rightclaw").xpos - data.body("leftclaw").xpos
    landmark, joint = np.zeros(3), 0.0
    if task in LANDMARKS:
        landmark = data.site(LANDMARKS[task]).xpos
    if task in JOINTS:
        joint = data.joint(JOINTS[task]).qpos.item()
    raw = {
        "hand": data.body("hand").xpos,
        "tcp": env.tcp_center,
        "left_pad": data.body("leftpad").xpos,
        "right_pad": data.body("rightpad").xpos,
        "opening": np.linalg.norm(claws) / 0.1,
        "object": objects[0],
        "quat": physical_quat(env, 0),
        "second": objects[1] if len(objects) > 1 else np.zeros(3),
        "second_quat": physical_quat(env, 1),
        "landmark": landmark,
        "joint": joint,
        "pad_forces": pad_forces(env),
    }
    # The simulator hands out views of what it will change.
    return {name: np.array(value, np.float64) for name, value in raw.items()}


@contextlib.contextmanager
def version_1(env):
    """Within this the environment gives its version 1 reward."""
    env.reward_function_version = "v1"
    yield
    env.reward_function_version = "v2"


def drawn(env, rng):
    """A state with joints anywhere in their range, free bodies near the finger tips."""
    qpos, qvel = env.data.qpos.copy(), env.data.qvel.copy()
    for i in range(env.model.njnt):
        joint = env.model.joint(i)
        if joint.name.startswith("right_j") or joint.name in ("r_close", "l_close"):
            continue
        at, of = joint.qposadr.item(), joint.dofadr.item()
        if joint.type == mujoco.mjtJoint.mjJNT_FREE:
            qpos[at : at + 3] = env.tcp_center + rng.normal(scale=0.03, size=3)
            quat = qpos[at + 3 : at + 7] + rng.normal(scale=0.1, size=4)
            qpos[at + 3 : at + 7] = quat / np.linalg.norm(quat)
            qvel[of : of + 6] = 0.0
        else:
            low, high = joint.range if joint.limited else (-0.2, 0.2)
            qpos[at], qvel[of] = rng.uniform(low, high), 0.0
    return qpos, qvel


def pose(env, rng):
    """Of some drawn states sets that with the object nearest to the finger tips."""

    def apart(state):
        env.set_state(*state)
        return np.linalg.norm(env._get_pos_objects()[:3] - env.tcp_center)

    env.set_state(*min((drawn(env, rng) for _ in range(5)), key=apart))


def posed(env):
    """To the object, the goal and above it by turns; every third step sets things."""

    def act(obs, rng):
        if env.curr_path_length % 3 == 2:
            pose(env, rng)
        goal = env._target_pos
        places = obs[4:7], goal, obs[4:7], goal + np.array([0.0, 0.0, 0.2])
        way = places[env.curr_path_length // 25 % 4] - env.tcp_center
        return np.append(10.0 * way + rng.normal(size=3), rng.uniform(-1, 1))

    return act


def episode(task, env, act, max_steps, rng, after=STOP_AFTER_SUCCESS):
    """Rows of one episode, some after its success, and what was drawn for it."""
    with version_1(env):  # else assembly does not note what that reward needs
        obs, _ = env.reset()
    rows = [{**readings(task, env), "observation": obs.copy(), "action": np.zeros(4)}]
    rows[0] |= {"reward": 0.0, "reward_v1": 0.0, "success": False}
    left = max_steps
    while left > 0:
        action = np.clip(act(obs, rng), -1.0, 1.0).astype(np.float32)
        obs, reward, _, truncated, info = env.step(action)
        with version_1(env):
            reward_v1, _ = env.evaluate_state(obs, action)
        # Some policies write into what they are shown.
        seen = obs.copy()
        row = {**readings(task, env), "observation": seen, "action": action}
        success = bool(info["success"])
        rewards = {"reward": reward, "reward_v1": reward_v1}
        rows.append({**row, **rewards, "success": success})
        left = min(left - 1, after) if success else left - 1
        if truncated:
            break
    stacked = {
        name: np.stack([np.array(row[name], np.float64) for row in rows])
        for name in rows[0]
    }
    stacked["vector"] = np.tile(env._last_rand_vec, (len(rows), 1))
    stacked["start_tcp"] = np.tile(env.init_tcp, (len(rows), 1))
    return stacked


def scripted(policy, noise):
    """The policy's action with Gaussian noise of this standard deviation."""
    return lambda obs, rng: policy.get_action(obs) + noise * rng.normal(size=4)


def record(task, episodes, max_steps, seed, dtype):
    """All rows of all episodes of one task."""
    benchmark = MT1(f"{task}-v3", seed=seed)
    env = ALL_V3_ENVIRONMENTS[f"{task}-v3"]()
    policy = policies.ENV_POLICY_MAP[f"{task}-v3"]()
    uniform = lambda obs, rng: rng.uniform(-1, 1, size=4)
    rng, found = np.random.default_rng(seed), []
    for i in range(episodes + 1):
        env.set_task(benchmark.train_tasks[i % len(benchmark.train_tasks)])
        env._partially_observable = False
        env.__dict__.pop("sawyer_observation_space", None)
        kind = i % 3
        if i == episodes:
            rows = episode(task, env, posed(env), max_steps, rng, after=max_steps)
        else:
            act = uniform if kind == 2 else scripted(policy, 0.5 * kind)
            rows = episode(task, env, act, max_steps // (1 + (kind == 2)), rng)
        rows["episode"] = np.full(len(rows["reward"]), i)
        found.append(rows)
    joined = {name: np.concatenate([x[name] for x in found]) for name in found[0]}
    exact = {"success": bool, "episode": np.int32}
    return {name: x.astype(exact.get(name, dtype)) for name, x in joined.items()}


def with_and_without_goal(task, seed, steps=3):
    """`[2, steps, 39]` what is seen of the same episode with the goal and without."""
    found = []
    for hidden in (False, True):
        env = ALL_V3_ENVIRONMENTS[f"{task}-v3"]()
        env.set_task(MT1(f"{task}-v3", seed=seed).train_tasks[0])
        env._partially_observable = hidden
        env.__dict__.pop("sawyer_observation_space", None)
        seen, _ = env.reset()
        rows = [seen]
        for _ in range(steps - 1):
            seen, *_ = env.step(np.array([1.0, -1.0, 0.5, 1.0], np.float32))
            rows.append(seen)
        found.append(rows)
    return np.array(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", nargs="*", default=None)
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--max-steps", type=int, default=150)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    names = options.tasks or [name.removesuffix("-v3") for name in ALL_V3_ENVIRONMENTS]
    for task in names:
        rows = record(
            task, options.episodes, options.max_steps, options.seed, options.dtype
        )
        np.savez_compressed(options.out / f"{task}.npz", **rows)
        print(
            f"{task}: {len(rows['reward'])} rows, {rows['success'].sum()} successful, "
            f"mujoco {mujoco.__version__}",
            flush=True,
        )
    path = options.out / "hidden.npz"
    hidden = dict(np.load(path)) if path.exists() else {}
    for task in names:
        hidden[task] = with_and_without_goal(task, options.seed).astype(options.dtype)
    np.savez_compressed(path, **hidden)


if __name__ == "__main__":
    main()
