"""The environment: fifty tasks in one program."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from jaxmeta.core.testing import compilations
from jaxmeta.manipulation.env import HORIZON, ManipulationEnv
from jaxmeta.manipulation.hand import TIPS, free_motion
from jaxmeta.manipulation.models import compile_scene
from jaxmeta.manipulation.physics import Physics
from jaxmeta.manipulation.suites import Suite
from jaxmeta.manipulation.tasks import TASKS
from jaxmeta.manipulation.training import wrap

FAST = Physics(timestep=0.0125, substeps=1)


def test_all_tasks_compile_once(room):
    num_tasks, state = len(room.tasks), room.start(0)
    state = room.step(state, jnp.zeros((num_tasks, 4)))
    actions = jnp.ones((num_tasks, 4))
    with compilations() as compiled:
        room.step(state, actions)
    assert compiled == []
    assert state.obs.shape == (num_tasks, 39)


PARTS = {
    "hand": slice(0, 3),
    "fingers": slice(3, 5),
    "free": slice(5, 8),
    "quat": slice(8, 12),
    "joints": slice(12, 15),
}
"""What is where among the positions of a state."""


@pytest.fixture(scope="module")
def compared(room):
    """`[step, task, 15]` MJX less C MuJoCo for the same actions, and who touched what.

    The hand goes up and about: contacts make chaos, in which solvers that stop after
    three iterations go apart.
    """
    rng, num_tasks = np.random.default_rng(0), len(room.tasks)
    actions = rng.uniform(-1, 1, size=(100, num_tasks, 4)).astype(np.float32)
    actions[:, :, 2] = np.abs(actions[:, :, 2])
    return in_both(room, room.start(3), actions)


def in_both(room, state, actions):
    """As `compared` has it, of actions `[step, task, 4]` from a state."""
    physics, loops = room.env.physics, []
    for i, task in enumerate(room.env.tasks):
        model = compile_scene(task.geometry, physics.timestep)
        data = mujoco.MjData(model)
        model.body("fixture").pos = state.info["play"].fixture[i]
        data.qpos[:] = state.pipeline_state.qpos[i]
        data.qvel[:] = state.pipeline_state.qvel[i]
        loops.append((task.name, model, data))
    differences, touched = [], set()
    move = jax.jit(jax.vmap(functools.partial(free_motion, count=physics.substeps)))
    for action in actions:
        free = state.info["play"].free
        state = room.step(state, jnp.asarray(action))
        path, _ = jax.tree.map(np.asarray, move(state.info["play"].drag, free))
        for i, (name, model, data) in enumerate(loops):
            own = jax.tree.map(lambda rows, i=i: rows[i], path)
            physics.step_in_c(model, data, float(action[i, 3]), own)
            real = data.contact.geom[data.contact.exclude == 0]
            pairs = [model.geom(i).name for i in real.flat]
            if {"left_pad", "right_pad", "palm"} & set(pairs):
                touched.add(name)
        theirs = np.array([data.qpos for *_, data in loops])
        differences.append(np.abs(np.asarray(state.pipeline_state.qpos) - theirs))
    return np.array(differences), touched


def test_mjx_is_mujoco(room, compared):
    """At each of 100 steps, metres; radians of hinges."""
    differences, touched = compared
    largest = {part: differences[..., places].max() for part, places in PARTS.items()}
    print(largest)
    # There a pad starts within or at what it is to move, in handle-press 12 mm deep.
    assert touched <= {"door-unlock", "drawer-close", "handle-press"}
    assert largest["hand"] <= 1e-3, largest
    assert largest["fingers"] <= 1e-3, largest
    assert largest["free"] <= 5e-4, largest
    assert largest["quat"] <= 2e-3, largest
    assert largest["joints"] <= 1e-3, largest
    names = [task.name for task in room.env.tasks]
    apart = differences[:, [name not in touched for name in names], PARTS["joints"]]
    assert apart.max() <= 1e-4


def test_mjx_is_nearly_mujoco_in_contact(room, scripted, recorded):
    """With the official policies' actions, 100 steps of every task at most."""
    state, actions = scripted
    names = [task.name for task in room.env.tasks]
    differences, touched = in_both(room, state, actions[:100])
    steps = [len(recorded[name]["action"]) - 1 for name in names]
    hands = differences[..., PARTS["hand"]].max(axis=2)
    largest = np.array([hands[:n, i].max() for i, n in enumerate(steps)])
    for i in np.argsort(-largest):
        print(f"{names[i]:26s} hand {1e3 * largest[i]:6.2f} mm")
    assert len(touched) > 40
    assert np.median(largest) < 6e-4
    assert (largest < 1e-3).sum() >= 28
    assert largest.max() < 0.04


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("room", 200),
        pytest.param("room", 10_000, marks=pytest.mark.slow),
        pytest.param("fast_room", 10_000, marks=pytest.mark.slow),
    ],
)
def test_no_action_makes_a_nan(name, steps, request):
    """Steps of every task: random, extreme, into the table, not a number."""
    room = request.getfixturevalue(name)
    state, rng, num_tasks = room.start(1), np.random.default_rng(1), len(room.tasks)
    for i in range(steps):
        kind = i // 10 % 5
        if kind == 0:
            action = rng.uniform(-1, 1, size=(num_tasks, 4))
        elif kind == 1:
            action = rng.choice([-1e6, 1e6], size=(num_tasks, 4))
        elif kind == 2:
            action = np.tile([0.0, 0.3, -1.0, 1.0], (num_tasks, 1))
        elif kind == 3:
            action = rng.choice([np.nan, np.inf, -np.inf, 1.0], size=(num_tasks, 4))
        else:  # towards the object
            seen, grip = np.asarray(state.obs), rng.choice([-1, 1], num_tasks)
            action = np.c_[20 * (seen[:, 4:7] - seen[:, :3]), grip]
        state = room.step(state, jnp.asarray(action, jnp.float32))
        reward = np.asarray(state.reward)
        kept = (state.obs, state.pipeline_state, state.info["play"])
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(kept))
        assert ((reward >= 0) & (reward <= 10)).all()


def test_actions_may_be_of_another_precision(untyped):
    env = ManipulationEnv(["reach"], physics=FAST)
    state = jax.eval_shape(env.reset, jax.random.key(0))
    after = jax.eval_shape(env.step, state, jnp.zeros(4, jnp.bfloat16))
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)


def test_actions_are_clipped_and_what_is_no_number_counts_as_nothing(room):
    num_tasks, state = len(room.tasks), room.start(2)
    actions = jnp.array([[jnp.inf, -jnp.inf, 7.0, jnp.nan], [1.0, -1.0, 1.0, 0.0]])
    wild, tame = (room.step(state, jnp.tile(x, (num_tasks, 1))) for x in actions)
    chex.assert_trees_all_equal(wild, tame)


def test_the_step_of_all_tasks_lowers_for_accelerators(room):
    traced = room.step.trace(room.start(0), jnp.zeros((len(room.tasks), 4)))
    for platform in ("tpu", "cuda"):
        assert traced.lower(lowering_platforms=(platform,)).as_text()


def test_one_hot_and_hidden_goals():
    env = ManipulationEnv(["reach", "push", "sweep"], hidden_goal=True, one_hot=True)
    task = jnp.array(1)
    state = jax.jit(env.reset_task)(jax.random.key(0), task)
    assert env.observation_size == 42
    assert state.obs.shape == (42,)
    assert state.obs[36:].tolist() == [0, 0, 0, 0, 1, 0]


def test_draws_are_within_the_box_and_accepted():
    env = ManipulationEnv(list(TASKS))
    tasks = jnp.repeat(jnp.arange(len(TASKS)), 20)
    keys = jax.random.split(jax.random.key(0), len(tasks))
    vectors = np.asarray(jax.jit(jax.vmap(env.draw))(keys, tasks))
    for i, task in enumerate(env.tasks):
        mine = vectors[np.asarray(tasks) == i]
        width = len(task.low)
        assert (mine[:, :width] >= np.array(task.low) - 1e-6).all()
        assert (mine[:, :width] <= np.array(task.high) + 1e-6).all()
        assert all(bool(task.accepts(jnp.asarray(v[:width]))) for v in mine[:3])
        assert len(np.unique(mine, axis=0)) == 20


def test_an_episode_ends_and_another_begins():
    env = wrap(ManipulationEnv(["reach"], physics=FAST), episode_length=3)
    state = jax.jit(env.reset)(jax.random.split(jax.random.key(0), 2))
    step = jax.jit(env.step)
    first, actions = state.info["play"], jnp.ones((2, 4))
    for i in range(7):
        before = state
        with compilations() as compiled:
            state = step(state, actions)
        assert state.done.tolist() == [float(i % 3 == 2)] * 2
        if i % 3 == 2:
            play = state.info["play"]
            assert not np.allclose(play.vector, before.info["play"].vector)
            assert play.steps.tolist() == [0, 0]
            assert state.info["truncation"].tolist() == [1.0, 1.0]
            # The last of the old episode, not the first of the new one.
            assert not np.allclose(state.info["final_obs"], state.obs)
            np.testing.assert_allclose(state.obs[:, :18], state.obs[:, 18:36])
    assert compiled == []
    assert not np.allclose(state.info["play"].vector, first.vector)


@pytest.mark.slow
def test_an_episode_is_solved_once_however_long_actions_are_held():
    env = ManipulationEnv(["reach"], physics=FAST)
    for repeat in (1, 5):
        envs = wrap(env, episode_length=40, action_repeat=repeat)
        state = jax.jit(envs.reset)(jax.random.split(jax.random.key(0), 16))
        step, solved, succeeded = jax.jit(envs.step), 0.0, 0.0
        for _ in range(40 // repeat):
            seen = np.asarray(state.obs)
            way = seen[:, 36:] - seen[:, :3] - TIPS
            state = step(state, jnp.asarray(np.c_[10.0 * way, np.zeros(16)]))
            solved += np.asarray(state.metrics["solved"])
            succeeded = np.maximum(succeeded, state.metrics["success"])
        assert succeeded.sum() >= 8
        np.testing.assert_array_equal(solved, succeeded)
        told = state.info["episode_metrics"]["solved"]
        np.testing.assert_array_equal(told, succeeded)


def test_agents_are_told_that_it_was_for_the_time():
    """At the default length, where the environment's own end comes first."""
    env = wrap(ManipulationEnv(["reach"], physics=FAST))
    state = jax.jit(env.reset)(jax.random.split(jax.random.key(0), 2))
    play = state.info["play"]
    late = play._replace(steps=play.steps + HORIZON - 2)
    steps = state.info["steps"] + HORIZON - 2
    state.info.update(play=late, steps=steps)
    step = jax.jit(env.step)
    for expected in (0.0, 1.0, 0.0):
        state = step(state, jnp.zeros((2, 4)))
        assert state.done.tolist() == [expected] * 2
        assert state.info["truncation"].tolist() == [expected] * 2


def test_time_is_up_after_500_steps():
    env = ManipulationEnv(["reach"], physics=FAST)
    state = jax.jit(env.reset)(jax.random.key(0))
    late = state.info["play"]._replace(steps=jnp.array(HORIZON - 2))
    state = state.replace(info={**state.info, "play": late})
    step = jax.jit(env.step)
    state = step(state, jnp.zeros(4))
    assert (float(state.done), float(state.info["truncation"])) == (0.0, 0.0)
    for _ in range(2):  # compiled, a step after the end goes on
        state = step(state, jnp.zeros(4))
        assert (float(state.done), float(state.info["truncation"])) == (1.0, 1.0)
    assert int(state.info["play"].steps) == HORIZON + 1
    with pytest.raises(ValueError, match="the episode ended after 500 steps; start an"):
        env.step(state, jnp.zeros(4))
    assert np.isfinite(state.obs).all()
    assert env.dt == pytest.approx(1 / 80)


@pytest.mark.slow
def test_either_version_of_the_reward_can_be_asked_for():
    """Far from the handle the first is minus the distance to it."""
    made = {}
    for version in ("v1", "v2"):
        env = ManipulationEnv(["door-open"], physics=FAST, reward_version=version)
        state = jax.jit(env.reset)(jax.random.key(0))
        made[version] = jax.jit(env.step)(state, jnp.zeros(4))
    np.testing.assert_array_equal(made["v1"].obs, made["v2"].obs)
    seen = np.asarray(made["v1"].obs)
    apart = np.linalg.norm(seen[4:7] - (seen[:3] + TIPS))
    assert float(made["v1"].reward) == pytest.approx(-apart, abs=1e-3)
    assert float(made["v2"].reward) > 0


def test_all_tasks_have_version_1_in_one_program(untyped):
    env = ManipulationEnv(list(TASKS), reward_version="v1")
    state = jax.eval_shape(env.reset, jax.random.key(0))
    assert jax.eval_shape(env.step, state, jnp.zeros(4)).reward.shape == ()


def test_mistakes_are_named(untyped):
    with pytest.raises(ValueError, match="unknown task 'raech'; did you mean 'reach'"):
        ManipulationEnv(["raech"])
    for tasks in ([], "reach"):
        with pytest.raises(ValueError, match="a list of at least one name, got"):
            ManipulationEnv(tasks)
    with pytest.raises(ValueError, match=r"of a suite give suite\.tasks"):
        ManipulationEnv(Suite(name="MT10"))
    with pytest.raises(ValueError, match=r"physics must be as MODES.* got 'fast'"):
        ManipulationEnv(["reach"], physics="fast")
    with pytest.raises(ValueError, match=r"a name or a ManipulationTask, .* got 7"):
        ManipulationEnv([7])
    with pytest.raises(ValueError, match='must be "v1" or "v2", got \'v3\''):
        ManipulationEnv(["reach"], reward_version="v3")
    with pytest.raises(ValueError, match=r"timestep must be positive .* got 0.0"):
        Physics(timestep=0.0)
    with pytest.raises(ValueError, match=r"must be 0.0125 s, as 0.0025 times 5 .* got"):
        Physics(timestep=0.0025, substeps=4)
    env = ManipulationEnv(["reach"])
    state = jax.eval_shape(env.reset, jax.random.key(0))
    with pytest.raises(ValueError, match=r"shape \(4,\), got \(3,\)"):
        jax.eval_shape(env.step, state, jnp.zeros(3))
    with pytest.raises(ValueError, match=r"shape \(6,\), got \(3,\)"):
        jax.eval_shape(env.reset_to, jnp.zeros(3), jnp.array(0), jax.random.key(0))


def test_what_is_known_may_be_closed_over_in_jit(untyped):
    env, key = ManipulationEnv(["reach", "push"]), jax.random.key(0)
    task, vector = jnp.array(1), np.array([0.0, 0.6, 0.02, 0.0, 0.8, 0.02])
    state = jax.jit(env.reset_to)(vector, task, key)
    shapes = jax.eval_shape(lambda action: env.step(state, action), jnp.zeros(4))
    assert shapes.obs.shape == (39,)
    for number in (task, np.int64(1), 1):
        begin = lambda key, i=number: env.reset_to(vector, i, key)
        assert jax.eval_shape(begin, key).obs.shape == (39,)
        begin = lambda key, i=number: env.reset_task(key, i)
        assert jax.eval_shape(begin, key).obs.shape == (39,)


def test_a_task_that_is_not_there_is_named(untyped):
    """In jit, where its number is not known, it is clipped."""
    env = ManipulationEnv(["reach", "push"])
    for task in (2, -1, jnp.array(7), "push", 0.5, jnp.arange(2)):
        message = re.escape(f"task must be a number in 0 to 1, got {task!r}")
        with pytest.raises(ValueError, match=message):
            env.reset_task(jax.random.key(0), task)
        with pytest.raises(ValueError, match=message):
            env.reset_to(jnp.zeros(6), task, jax.random.key(0))
    tasks = jnp.array([-1, 0, 1, 2])
    keys = jnp.tile(jax.random.PRNGKey(0), (4, 1))
    state = jax.jit(jax.vmap(env.reset_task))(keys, tasks)
    assert state.info["play"].task.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(state.obs[::3], state.obs[1:3])


def test_keys_of_another_kind_are_named(untyped):
    env = ManipulationEnv(["reach"])
    wanted = r"keys must be of JAX's default kind, key<fry>, .* got"
    other = jax.random.key(0, impl="rbg")
    for start in (env.reset, lambda key: env.reset_task(key, jnp.array(0))):
        with pytest.raises(ValueError, match=f"{wanted} key<rbg> of shape"):
            jax.eval_shape(start, other)
        with pytest.raises(ValueError, match=rf"{wanted} uint32 of shape \(4,\)"):
            jax.eval_shape(start, jax.random.key_data(other))
    with pytest.raises(ValueError, match=r"made by jax\.random\.key, got 0"):
        env.reset(0)
    with pytest.raises(ValueError, match=wanted):
        jax.eval_shape(wrap(env).reset, jax.random.split(other, 3))


@pytest.mark.parametrize("length", [0, HORIZON + 1])
def test_episodes_are_at_most_the_environments_own(length):
    with pytest.raises(ValueError, match=f"must be in 1 to 500, got {length}"):
        wrap(ManipulationEnv(["reach"]), episode_length=length)


def test_a_batch_of_no_environments_is_refused(untyped):
    env, keys = wrap(ManipulationEnv(["reach"])), jax.random.split(jax.random.key(0), 1)
    for wrong in (keys[:0], keys[0], jax.random.key_data(keys[0])):
        with pytest.raises(ValueError, match="one for each environment and at least"):
            jax.eval_shape(env.reset, wrong)


def test_a_step_is_traced_in_double_precision():
    ManipulationEnv(["reach", "push"])  # remembers where hands start, in single
    with jax.enable_x64(True):
        env = ManipulationEnv(["reach", "push"])
        state = jax.eval_shape(env.reset, jax.random.key(0))
        action = jax.ShapeDtypeStruct((4,), jnp.float64)
        after = jax.eval_shape(env.step, state, action)
    assert after.pipeline_state.qpos.dtype == state.pipeline_state.qpos.dtype
    assert after.pipeline_state.qpos.dtype == jnp.float64
