"""The official scripted policies in our scene, simulated by C MuJoCo.

For work on a task's geometry: quick, with little compilation. Needs `metaworld` to be
importable for its policies; `--official DIR` names the site-packages of another
environment that has it.

    python tests/parity/closed_loop.py --official mw/lib/python3.11/site-packages \\
        --recordings tests/parity/recordings --tasks door-open --trace

With `--gif DIR` the first episode of each task is drawn into `DIR/TASK.gif`, half as
fast as it happens.
"""

import argparse
import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from jaxmeta.manipulation.env import ManipulationEnv
from jaxmeta.manipulation.hand import free_motion, moment, started
from jaxmeta.manipulation.models import compile_scene
from jaxmeta.manipulation.observation import clipped, frame, layout_of, observe
from jaxmeta.manipulation.physics import Physics
from jaxmeta.manipulation.render import Renderer, save_gif
from jaxmeta.manipulation.sensors import Poses, read, views_of
from jaxmeta.manipulation.suites import Suite
from jaxmeta.manipulation.tasks import find

PHYSICS, HORIZON = Physics(), 500
EVERY, FPS = 2, 20  # of 80 steps a second


def poses(model, data):
    """What the simulator says of a moment."""
    pads = [model.geom(f"{side}_pad").id for side in ("left", "right")]
    forces, force = np.zeros(2), np.zeros(6)
    for i, contact in enumerate(data.contact):
        pair = {contact.geom1, contact.geom2}
        for side, pad in enumerate(pads):
            other = pair - {pad}
            if pad in pair and model.geom(other.pop()).name.startswith("free"):
                mujoco.mj_contactForce(model, data, i, force)
                forces[side] += force[0]
    bodies = [data.body(name) for name in ("free", "mechanism", "fixture")]
    return Poses(
        tips=data.body("hand").xpos.copy(),
        turn=data.body("hand").xquat.copy(),
        pads=np.array([data.body(f"{side}_pad").xpos for side in ("left", "right")]),
        bodies=np.array([body.xpos for body in bodies]),
        quats=np.array([body.xquat for body in bodies]),
        joints=data.qpos[-3:].copy(),
        pad_forces=forces,
    )


class Loop:
    """One task in our scene."""

    def __init__(self, task):
        self.task, self.views, self.layout = task, views_of(task), layout_of(task)
        self.model = compile_scene(task.geometry, PHYSICS.timestep)
        self.data = mujoco.MjData(self.model)
        self.place = jax.jit(task.place)
        self.begin = jax.jit(task.begin)
        self.move = jax.jit(functools.partial(free_motion, count=PHYSICS.substeps))

        @jax.jit
        def look(poses, before, episode, action):
            now = clipped(read(self.views, poses))
            seen = frame(self.layout, now)
            before = jnp.where(jnp.isnan(before).any(), seen, before)
            obs = observe(self.layout, seen, before, episode.target, hidden=False)
            made = task.reward(now, episode, action)
            return obs, made.total, task.success(now, episode), seen

        self.look = look
        self.read = jax.jit(lambda poses: clipped(read(self.views, poses)))

    def to_jax(self):
        wide = poses(self.model, self.data)
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), wide)

    def reset(self, vector):
        place = self.place(jnp.asarray(vector, jnp.float32))
        mujoco.mj_resetData(self.model, self.data)
        self.goal = np.array(self.task.hand_start, np.float64)
        self.free = started(jnp.asarray(self.goal, jnp.float32))
        hand = moment(self.free)
        self.data.qpos[:3], self.data.qvel[:3] = hand.position, hand.velocity
        self.model.body("hand").quat = hand.turn
        self.data.qpos[5:8], self.data.qpos[8:12] = place.free, place.free_quat
        self.data.qpos[12:15] = place.joints
        self.model.body("fixture").pos = place.fixture
        mujoco.mj_forward(self.model, self.data)
        now = self.to_jax()
        first = self.read(now)
        self.episode = self.begin(jnp.asarray(vector, jnp.float32), first, first.tcp)
        nothing = jnp.full(18, jnp.nan)
        obs, _, _, self.before = self.look(now, nothing, self.episode, jnp.zeros(4))
        return np.asarray(obs)

    def step(self, action):
        low, high = np.array(self.task.hand_low), np.array(self.task.hand_high)
        self.goal = np.clip(self.goal + action[:3] / 100, low, high)
        path, self.free = self.move(jnp.asarray(self.goal, jnp.float32), self.free)
        path = jax.tree.map(np.asarray, path)
        PHYSICS.step_in_c(self.model, self.data, float(action[3]), path)
        mujoco.mj_forward(self.model, self.data)
        obs, reward, success, self.before = self.look(
            self.to_jax(), self.before, self.episode, jnp.asarray(action, jnp.float32)
        )
        return np.asarray(obs), float(reward), bool(success)

    def draw(self, renderer):
        fixture = self.model.body("fixture").pos
        target, angles = np.array(self.episode.target), np.array(self.free.arm.angles)
        return renderer.draw(0, self.data.qpos, fixture, target, angles)


def play(loop, vector, policy, *, trace=False, stop=True, watch=None):
    """Whether any step of an episode succeeds, and its length and return."""
    obs, total, solved = loop.reset(vector), 0.0, None
    for i in range(HORIZON):
        if watch is not None and i % EVERY == 0:
            watch(loop)
        action = np.clip(policy.get_action(obs.copy()), -1, 1).astype(np.float32)
        obs, reward, success = loop.step(action)
        total += reward
        if trace and i % 10 == 0:
            print(
                f"{i:4d} hand {obs[:3].round(3)} open {obs[3]:.2f} object "
                f"{obs[4:7].round(3)} second {obs[11:14].round(3)} goal "
                f"{obs[36:].round(3)} joints {loop.data.qpos[-3:].round(3)} act "
                f"{action.round(2)} reward {reward:.2f} success {success}"
            )
        if success and solved is None:
            solved = i
            if stop:
                break
    return solved is not None, i + 1, total


def film(loop, vector, policy, path):
    """An episode up to its success as a GIF, which then rests for a second."""
    renderer = Renderer(ManipulationEnv([loop.task.name]), 400, 300)
    frames = []
    watch = lambda loop: frames.append(loop.draw(renderer))
    play(loop, vector, policy, watch=watch)
    watch(loop)
    save_gif(path, [*frames, *frames[-1:] * FPS], FPS)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", type=Path, default=None)
    parser.add_argument("--recordings", type=Path, required=True)
    parser.add_argument("--tasks", nargs="*", default=None)
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--gif", type=Path, default=None)
    options = parser.parse_args()
    if options.official:
        sys.path.append(str(options.official))
    from metaworld.policies import ENV_POLICY_MAP

    for name in options.tasks or Suite(name="MT50").tasks:
        task = find(name)
        with np.load(options.recordings / f"{name}.npz") as rows:
            vectors = np.unique(rows["vector"], axis=0)[: options.episodes]
        loop, policy = Loop(task), ENV_POLICY_MAP[f"{name}-v3"]()
        if options.gif:
            options.gif.mkdir(parents=True, exist_ok=True)
            film(loop, vectors[0], policy, options.gif / f"{name}.gif")
        results = [play(loop, v, policy, trace=options.trace) for v in vectors]
        solved, lengths, _ = map(np.array, zip(*results, strict=True))
        print(
            f"{name}: {solved.sum()}/{len(solved)} solved, mean length "
            f"{lengths.mean():.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
