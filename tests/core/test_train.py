"""The outer step against NumPy by hand, and everything that may go wrong in it."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import (
    Learner,
    Mean,
    Parallel,
    Task,
    init_state,
    make_train_step,
    mean_over_tasks,
    sum_over_tasks,
)
from jaxmeta.core.testing import SmokeLearner, compilations, smoke_learner, smoke_source

KEY = jax.random.key(0)

# Float32 sums of at most a hundred products of order 1.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


# Where devices do not matter, one compiles faster.
ONE = Parallel(backend="vmap")


def _start(learner, tx, aggregator=None, parallel=ONE):
    state = init_state(learner, tx, aggregator, key=KEY, example=smoke_source().example)
    return parallel.replicate(state)


def _make(learner, tx, aggregator=None, parallel=ONE, **settings):
    """A compiled step and the state before it."""
    step = make_train_step(learner, tx, aggregator, parallel=parallel, **settings)
    return jax.jit(step), _start(learner, tx, aggregator, parallel)


# What a step computes.


def _numpy_gradient(params, tasks, rate):
    """Loss and gradient of `SmokeLearner` for each task, by the chain rule."""
    losses, grads_w, grads_b = [], [], []
    for i in range(len(tasks.task_id)):
        xs, ys = tasks.support.inputs[i], tasks.support.targets[i]
        xq, yq = tasks.query.inputs[i], tasks.query.targets[i]
        error = (xs @ params["w"] + params["b"] - ys).mean()
        outer = xq @ params["w"] + params["b"] - rate * error - yq
        losses.append((outer**2).mean())
        # b' = b - rate * error moves with w through the mean support input.
        grads_w.append((2 * outer[:, None] * (xq - rate * xs.mean(0))).mean(0))
        grads_b.append((2 * outer).mean() * (1 - rate))
    return np.array(losses), np.array(grads_w), np.array(grads_b)


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_two_steps_equal_sgd_in_numpy(reduce, smoke_tasks):
    learner, rate = SmokeLearner(inner_rate=0.3), 0.05
    aggregator = {"mean": mean_over_tasks, "sum": sum_over_tasks}[reduce]()
    step, state = _make(learner, optax.sgd(rate), aggregator, Parallel())
    expected = {k: np.float64(v) for k, v in jax.device_get(state.params).items()}
    for i in range(2):
        tasks = smoke_tasks(i, 8)
        state, metrics = step(state, tasks, KEY)
        tasks64 = jax.tree.map(np.float64, jax.device_get(tasks))
        losses, grads_w, grads_b = _numpy_gradient(expected, tasks64, 0.3)
        over = np.mean if reduce == "mean" else np.sum
        expected["w"] = expected["w"] - rate * over(grads_w, axis=0)
        expected["b"] = expected["b"] - rate * over(grads_b, axis=0)
        np.testing.assert_allclose(metrics["loss"].compute(), losses.mean(), **CLOSE)
        assert float(metrics["loss"].count) == 8 * 4
    np.testing.assert_allclose(state.params["w"], expected["w"], **CLOSE)
    np.testing.assert_allclose(state.params["b"], expected["b"], **CLOSE)
    assert int(state.step) == 2
    assert int(state.skipped) == 0


def test_clipping_after_the_aggregator_clips_the_mean(smoke_tasks):
    learner = smoke_learner()
    tx = optax.chain(mean_over_tasks(), optax.clip_by_global_norm(1e-3), optax.sgd(1.0))
    step, state = _make(learner, tx)
    new, _ = step(state, smoke_tasks(0, 8), KEY)
    moved = jax.tree.map(lambda a, b: a - b, new.params, state.params)
    norm = np.sqrt(sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(moved)))
    # The update of norm 1e-3 is a difference of float32 parameters of order 0.01.
    np.testing.assert_allclose(norm, 1e-3, rtol=1e-4)


def test_a_state_that_holds_an_array_twice_can_be_given_away(smoke_tasks):
    def init(params):
        zeros = jnp.zeros(3)
        return {"sum": zeros, "count": zeros}

    def count(updates, state, params=None):
        del params
        return updates, {"sum": state["sum"] + 1.0, "count": state["count"] + 2.0}

    twice = optax.GradientTransformation(init, count)
    tx = optax.chain(twice, optax.sgd(0.1))
    aggregator, learner = mean_over_tasks(), smoke_learner()
    state = _start(learner, tx, aggregator)
    step = make_train_step(learner, tx, aggregator, parallel=ONE)
    step = jax.jit(step, donate_argnums=0)
    for _ in range(2):
        state, _ = step(state, smoke_tasks(0, 4), KEY)
    held = state.opt_state[1][0]
    assert (held["sum"].tolist(), held["count"].tolist()) == ([2.0] * 3, [4.0] * 3)


def test_the_learner_may_have_a_single_scalar_parameter(smoke_tasks):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Offset(SmokeLearner):
        def init(self, key, example):
            return jnp.zeros(()), ()

        def loss(self, params, model_state, task, key):
            errors = (task.query.targets - params) ** 2
            return errors.mean(), ({"loss": Mean.of(errors)}, model_state)

    tasks = smoke_tasks(0, 4)
    step, state = _make(Offset(), optax.sgd(0.5), mean_over_tasks())
    new, _ = step(state, tasks, KEY)
    # Half the gradient of a mean of squares is the step to the mean.
    expected = np.asarray(tasks.query.targets).mean()
    np.testing.assert_allclose(new.params, expected, **CLOSE)


# The order of the chain.


@pytest.mark.parametrize(
    "tx",
    [
        optax.adam(0.1),
        optax.sgd(0.1),
        optax.chain(optax.adam(0.1), mean_over_tasks()),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)),
        optax.chain(optax.trace(0.9), sum_over_tasks()),
    ],
    ids=["adam", "sgd", "adam-mean", "clip-adam", "momentum-sum"],
)
def test_a_chain_in_the_wrong_order_is_refused_with_the_right_one(tx, smoke_tasks):
    learner = smoke_learner()
    step = make_train_step(learner, tx, parallel=ONE)
    state = _start(learner, tx)
    with pytest.raises(
        ValueError, match=r"optax.chain\(mean_over_tasks\(\), "
    ) as caught:
        jax.eval_shape(step, state, smoke_tasks(0, 8), KEY)
    assert "8 tasks" in str(caught.value)


def test_a_chain_in_the_wrong_order_is_refused_where_jax_would_broadcast(smoke_tasks):
    # Four tasks and parameters `[4]`-shaped would broadcast without a word, even
    # where ranks may be promoted, as outside these tests.
    learner, tx = smoke_learner(), optax.adam(0.1)
    step = make_train_step(learner, tx, parallel=ONE)
    with (
        jax.numpy_rank_promotion("allow"),
        pytest.raises(ValueError, match="task axis is still there"),
    ):
        jax.eval_shape(step, _start(learner, tx), smoke_tasks(0, 4), KEY)


def test_tasks_that_do_not_divide_over_devices_are_refused(smoke_tasks):
    learner, tx = smoke_learner(), optax.chain(mean_over_tasks(), optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"multiple of the 4 devices .* got 6"):
        make_train_step(learner, tx)(_start(learner, tx), smoke_tasks(0, 6), KEY)


# Model state.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tracker(SmokeLearner):
    """The smoke learner with a running mean of its inputs and a count of its steps."""

    def init(self, key, example):
        params, _ = super().init(key, example)
        return params, {"mean": jnp.zeros(3), "steps": jnp.zeros((), jnp.int32)}

    def loss(self, params, model_state, task, key):
        loss, (metrics, _) = super().loss(params, model_state, task, key)
        mean = 0.9 * model_state["mean"] + 0.1 * task.query.inputs.mean(0)
        steps = model_state["steps"] + 1
        return loss, (metrics, {"mean": mean, "steps": steps})


@pytest.mark.parametrize("path", ["weights", "gradients"])
def test_model_state_goes_in_and_out_and_is_averaged_over_tasks(path, smoke_tasks):
    learner = Tracker()
    if path == "weights":
        tx, aggregator = optax.sgd(0.1), mean_over_tasks()
    else:
        tx, aggregator = optax.chain(mean_over_tasks(), optax.sgd(0.1)), None
    step, state = _make(learner, tx, aggregator, Parallel())
    mean = np.zeros(3)
    for i in range(2):
        tasks = smoke_tasks(i, 8)
        state, _ = step(state, tasks, KEY)
        mean = 0.9 * mean + 0.1 * np.asarray(tasks.query.inputs).mean((0, 1))
    np.testing.assert_allclose(state.model_state["mean"], mean, **CLOSE)
    assert int(state.model_state["steps"]) == 2


def test_model_state_keeps_its_dtypes(smoke_tasks):
    # A count that came back as a float would break `lax.scan` over steps.
    step, state = _make(Tracker(), optax.sgd(0.1), mean_over_tasks())
    new, _ = step(state, smoke_tasks(0, 8), KEY)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)


# What is not finite.


@pytest.fixture(scope="session")
def forgiving_step():
    """A compiled step that forgives two bad steps in a row, and its first state."""
    aggregator, parallel = mean_over_tasks(), Parallel()
    return _make(Tracker(), optax.adam(0.1), aggregator, parallel, max_skips=2)


def _spoil(tasks: Task, rows, value=jnp.nan) -> Task:
    targets = tasks.query.targets.at[jnp.array(rows)].set(value)
    return tasks._replace(query=tasks.query._replace(targets=targets))


def _learnt(state):
    return jax.device_get((state.params, state.model_state, state.opt_state))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("rows", [[5], list(range(8))])
def test_a_non_finite_loss_changes_nothing_but_the_counters(
    rows, value, forgiving_step, smoke_tasks
):
    step, state = forgiving_step
    new, metrics = step(state, _spoil(smoke_tasks(0, 8), rows, value), KEY)
    chex.assert_trees_all_equal(_learnt(new), _learnt(state))
    assert (int(new.step), int(new.skipped)) == (1, 1)
    assert float(metrics["skipped"].compute()) == 1.0


def test_metrics_of_a_skipped_step_do_not_spoil_an_average(forgiving_step, smoke_tasks):
    step, state = forgiving_step
    _, bad = step(state, _spoil(smoke_tasks(0, 8), [0]), KEY)
    _, good = step(state, smoke_tasks(0, 8), KEY)
    both = jax.tree.map(jnp.add, bad, good)
    assert float(both["loss"].compute()) == float(good["loss"].compute())
    assert float(both["skipped"].compute()) == 0.5


def test_a_good_step_resets_the_count(forgiving_step, smoke_tasks):
    step, state = forgiving_step
    good, bad = smoke_tasks(0, 8), _spoil(smoke_tasks(0, 8), [3])
    counts = []
    for tasks in (bad, bad, good, bad):
        state, _ = step(state, tasks, KEY)
        counts.append(int(state.skipped))
    assert counts == [1, 2, 0, 1]


def test_more_bad_steps_than_forgiven_freeze_the_parameters(
    forgiving_step, smoke_tasks
):
    step, start = forgiving_step
    state, good = start, smoke_tasks(0, 8)
    for _ in range(3):
        state, _ = step(state, _spoil(good, [3]), KEY)
    for _ in range(2):
        state, metrics = step(state, good, KEY)
        assert float(metrics["skipped"].compute()) == 1.0
    assert (int(state.step), int(state.skipped)) == (5, 5)
    chex.assert_trees_all_equal(_learnt(state), _learnt(start))


def test_a_non_finite_update_of_a_finite_loss_is_skipped(smoke_tasks):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Kink(SmokeLearner):
        def loss(self, params, model_state, task, key):
            loss, rest = super().loss(params, model_state, task, key)
            # The root has no derivative at 0, where it is perfectly finite.
            return loss + jnp.sqrt(jnp.abs(params["b"])), rest

    step, state = _make(Kink(), optax.sgd(0.1), mean_over_tasks())
    new, _ = step(state, smoke_tasks(0, 8), KEY)
    assert int(new.skipped) == 1
    chex.assert_trees_all_equal(_learnt(new), _learnt(state))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Steep(SmokeLearner):
    """Finite losses and gradients whose squares are not."""

    def loss(self, params, model_state, task, key):
        loss, rest = super().loss(params, model_state, task, key)
        return loss + 1e25 * params["b"] * task.task_id, rest


def test_an_optimizer_state_that_overflows_is_not_kept(smoke_tasks):
    # Adam's second moment would be infinite for ever after, its updates 0: a run
    # that stands still without a word.
    step, state = _make(Steep(), optax.adam(0.1), mean_over_tasks())
    steep = smoke_tasks(0, 8)._replace(task_id=jnp.ones(8, jnp.int32))
    flat = smoke_tasks(0, 8)._replace(task_id=jnp.zeros(8, jnp.int32))
    state, _ = step(state, steep, KEY)
    assert int(state.skipped) == 1
    after, _ = step(state, flat, KEY)
    assert float(jnp.abs(after.params["b"] - state.params["b"])) > 0.01


def test_a_model_state_that_is_not_finite_is_not_kept(smoke_tasks):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Overflow(Tracker):
        def loss(self, params, model_state, task, key):
            loss, (metrics, state) = super().loss(params, model_state, task, key)
            return loss, (metrics, {**state, "mean": state["mean"] / task.task_id})

    step, state = _make(Overflow(), optax.sgd(0.1), mean_over_tasks())
    tasks = smoke_tasks(0, 8)._replace(task_id=jnp.zeros(8, jnp.int32))
    new, _ = step(state, tasks, KEY)
    assert int(new.skipped) == 1
    chex.assert_trees_all_equal(_learnt(new), _learnt(state))


def test_an_optimizer_state_may_start_infinite(smoke_tasks):
    # As optax's reduce_on_plateau and trackers of a minimum do.
    def update(updates, state, params=None, *, task_losses, **extra):
        del params, extra
        return updates, jnp.minimum(state, task_losses.min())

    smallest = optax.GradientTransformationExtraArgs(
        lambda params: jnp.full((2,), jnp.inf), update
    )
    tx = optax.chain(smallest, optax.sgd(0.1))
    step, state = _make(smoke_learner(), tx, mean_over_tasks())
    new, _ = step(state, smoke_tasks(0, 8), KEY)
    assert int(new.skipped) == 0
    assert np.isfinite(new.opt_state[1][0]).all()


def test_an_optimizer_state_may_hold_a_key(smoke_tasks):
    def update(updates, key, params=None):
        del params
        key, draw = jax.random.split(key)
        return jax.tree.map(lambda u: u + jax.random.normal(draw), updates), key

    noise = optax.GradientTransformation(lambda params: jax.random.key(1), update)
    tx = optax.chain(mean_over_tasks(), noise, optax.sgd(0.1))
    step, state = _make(smoke_learner(), tx)
    new, _ = step(state, smoke_tasks(0, 8), KEY)
    assert int(new.skipped) == 0
    assert new.opt_state[1][1] != state.opt_state[1][1]


# Precision, keys, compilation.


@pytest.mark.parametrize(
    ("precision", "expected"), [("highest", "HIGHEST"), ("default", "DEFAULT")]
)
def test_precision_reaches_every_matrix_product(precision, expected, smoke_tasks):
    step, state = _make(
        smoke_learner(), optax.sgd(0.1), mean_over_tasks(), precision=precision
    )
    jaxpr = jax.make_jaxpr(step)(state, smoke_tasks(0, 4), KEY)
    products = [
        eqn
        for eqn in _equations(jaxpr.jaxpr)
        if eqn.primitive.name == "dot_general" and eqn.params["precision"] is not None
    ]
    assert products
    names = {str(p.name) for eqn in products for p in eqn.params["precision"]}
    assert names == {expected}


def _equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for value in jax.tree.leaves(eqn.params, is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeyWitness(Learner):
    """Puts a number drawn from its key where its task's id says."""

    num_tasks: int = 8

    def init(self, key, example):
        return jnp.zeros(self.num_tasks), ()

    def adapt(self, params, model_state, support, key):
        return params

    def loss(self, params, model_state, task, key):
        loss = params[task.task_id] * jax.random.normal(key)
        return loss, ({"loss": Mean.of(loss)}, model_state)

    def evaluate(self, params, model_state, task, key):
        return self.loss(params, model_state, task, key)[1][0]


@pytest.mark.parametrize(
    "parallel",
    [Parallel(), Parallel(num_devices=2), Parallel(num_devices=1)]
    + [Parallel(backend=b) for b in ("loop", "vmap", "pmap")]
    + [Parallel(task_batch_size=1)],
    ids=str,
)
def test_a_slot_has_the_same_key_on_any_number_of_devices(parallel, smoke_tasks):
    step, state = _make(KeyWitness(), optax.sgd(1.0), sum_over_tasks(), parallel)
    tasks = smoke_tasks(0, 8)._replace(task_id=jnp.arange(8))
    new, _ = step(state, tasks, KEY)
    expected = [jax.random.normal(jax.random.fold_in(KEY, i)) for i in range(8)]
    np.testing.assert_allclose(-new.params, jnp.stack(expected), **CLOSE)


@pytest.mark.parametrize("backend", ["vmap", "pmap", "shard_map"])
def test_the_second_step_does_not_recompile(backend, smoke_tasks):
    parallel = Parallel(backend=backend)
    learner, tx = smoke_learner(), optax.adam(0.1)
    state = _start(learner, tx, mean_over_tasks(), parallel)
    step = make_train_step(learner, tx, mean_over_tasks(), parallel=parallel)
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(step, n=1))
    for i in range(3):
        tasks = parallel.split_rows(smoke_tasks(i, 8))
        key = jax.random.fold_in(KEY, i)
        with compilations() as compiled:
            state, _ = step(state, tasks, key)
    # One program for one combination of shapes *and placements*.
    assert compiled == []


@pytest.mark.usefixtures("untyped")  # lowering gives descriptions of arrays
@pytest.mark.parametrize("aggregator", [mean_over_tasks(), None])
def test_products_of_bfloat16_are_added_up_in_float32_and_nothing_else_is(
    aggregator, smoke_tasks
):
    first = optax.identity() if aggregator else mean_over_tasks()
    tx = optax.chain(first, optax.adam(0.1))
    step, state = _make(smoke_learner(), tx, aggregator, precision="BF16_BF16_F32")
    traced = step.trace(state, smoke_tasks(0, 4), KEY)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    learned = [line for line in products if "accumulation_type = f32" in line]
    assert learned
    for line in learned:
        assert "lhs_precision_type = bf16" in line
        assert "rhs_precision_type = bf16" in line
    # What aggregators multiply stays exact, and no array is of bfloat16.
    assert all("HIGHEST" in line for line in products if line not in learned)
    assert "xbf16>" not in text
    new, _ = jax.eval_shape(step, state, smoke_tasks(0, 4), KEY)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(new.params))


def test_a_step_of_your_own_needs_no_jit(smoke_tasks):
    learner, tx = smoke_learner(), optax.chain(mean_over_tasks(), optax.sgd(0.1))
    step, state = _make(learner, tx)
    tasks = smoke_tasks(0, 4)
    compiled, _ = step(state, tasks, KEY)
    plain, _ = make_train_step(learner, tx, parallel=ONE)(state, tasks, KEY)
    # Fused or not, the same sums.
    np.testing.assert_allclose(plain.params["w"], compiled.params["w"], **CLOSE)
