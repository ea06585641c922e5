"""Diagnostics of an outer step: definitions in float64 NumPy, then in the harness."""

import dataclasses
import functools
import itertools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import (
    Experiment,
    Learner,
    Mean,
    Optimizer,
    Parallel,
    Task,
    fit,
    init_state,
    make_train_step,
    sum_over_tasks,
    surgery,
)
from jaxmeta.core.experiment import Checkpointing
from jaxmeta.core.metrics import merge
from jaxmeta.core.outer_step import OuterStep
from jaxmeta.core.progress import Progress
from jaxmeta.core.run import Run
from jaxmeta.core.testing import (
    assert_trees_close,
    compilations,
    smoke_learner,
    smoke_source,
)
from jaxmeta.core.writers import JsonlWriter
from jaxmeta.surgery import step_diagnostics

KEY = jax.random.key(0)
ONE = Parallel(backend="vmap")

# --- the definitions, literally -------------------------------------------------------


def oracle(step, shared):
    """Totals and counts of all that is reported, from flat float64 gradients."""
    wide = lambda leaf: np.asarray(leaf.astype(jnp.float32), np.float64)
    grads = {name: wide(leaf) for name, leaf in step.task_grads.items()}
    change = {name: wide(leaf).ravel() for name, leaf in step.change.items()}
    before, after = np.float64(step.losses), np.float64(step.losses_after)
    num_tasks, length = len(before), np.linalg.norm
    rows = {name: leaf.reshape(num_tasks, -1) for name, leaf in grads.items()}
    every_g, every_d = (np.concatenate(list(x.values()), -1) for x in (rows, change))
    g = np.concatenate([rows[name] for name in shared], -1)
    d = np.concatenate([change[name] for name in shared])

    here = [i for i in range(num_tasks) if g[i].any()]
    pairs = list(itertools.combinations(here, 2))
    slopes = every_g @ every_d
    moved = every_d @ every_d
    bend = lambda i: 2 * (after[i] - before[i] - slopes[i]) / moved if moved else 0.0
    cosine = lambda i, j: g[i] @ g[j] / (length(g[i]) * length(g[j]))
    found = {name: [] for name in ("phi", "xi", "a", "b", "c", "all")}
    for i, j in pairs:
        total = g[i] + g[j]
        phi = 2 * length(g[i]) * length(g[j]) / (g[i] @ g[i] + g[j] @ g[j])
        apart = (g[i] - g[j]) @ (g[i] - g[j])
        xi = (1 - cosine(i, j) ** 2) * apart / (total @ total)
        lower = bend(i) + bend(j)
        lipschitz = abs(lower)
        long_enough = length(d) * (lower - xi * lipschitz) >= 2 * length(total)
        met = {
            "a": cosine(i, j) <= -phi,
            "b": lower >= xi * lipschitz,
            "c": lower > xi * lipschitz and long_enough,
        }
        met["all"] = all(met.values())
        for name, value in {"phi": phi, "xi": xi, **met}.items():
            found[name].append(value)
    averages = {
        "conflicting": [cosine(i, j) < 0 for i, j in pairs],
        "similarity": found["phi"],
        "curvature_bound": found["xi"],
        "theorem_2a": found["a"],
        "theorem_2b": found["b"],
        "theorem_2c": found["c"],
        "theorem_2": found["all"],
        "hurt": [slopes[i] > 0 for i in here],
        "curvature": [sum(map(bend, range(num_tasks)))],
    }
    if not moved:  # a step of nothing tells nothing of curvature
        unknown = ("theorem_2b", "theorem_2c", "theorem_2", "curvature")
        averages |= dict.fromkeys(unknown, ())
    sums = {name: (np.sum(x), len(x)) for name, x in averages.items()}
    lengths = length(d) * length(g.sum(0))
    sums["alignment"] = (-(d @ g.sum(0)) / lengths if lengths else 0.0, 1)
    there = np.isin(np.arange(num_tasks), here)
    cosines = np.zeros((num_tasks, num_tasks))
    for i, j in itertools.product(here, here):
        cosines[i, j] = cosine(i, j)
    sums["cosines"] = (cosines, there[:, None] & there)
    sums["norms"] = (length(g, axis=1), there)
    sums["predicted_change"] = (slopes * there, there)
    return {f"diagnostics/{name}": Mean(*x) for name, x in sums.items()}


MASK = {"body": True, "scale": True, "half": True, "head": False}
SHAPES = {"body": (3, 2), "scale": (), "half": (5,), "head": (16,)}
TASKS = 5


def drawn(seed, absent=(), moves=1.0):
    """A step whose tasks bend by known amounts; `half` is bfloat16, `scale` 0-d."""
    rng = np.random.default_rng(seed)
    kind = lambda name: jnp.bfloat16 if name == "half" else jnp.float32
    lengths = 10.0 ** rng.uniform(-1.0, 1.0, size=TASKS)
    lengths[list(absent)] = 0.0
    sides = rng.choice([-1.0, 1.0], size=TASKS)  # of a direction that all care about
    grads, change = {}, {}
    for name, shape in SHAPES.items():
        per_task = lambda x, shape=shape: x.reshape(-1, *[1] * len(shape))
        pull = per_task(sides) * rng.normal(size=(1, *shape))
        grad = per_task(lengths) * (pull + rng.normal(size=(TASKS, *shape)))
        grads[name] = jnp.asarray(grad, kind(name))
        change[name] = jnp.asarray(rng.normal(size=shape) * moves, kind(name))
    flat = lambda x: np.float64(x.astype(jnp.float32)).reshape(*x.shape[:1], -1)
    slopes = sum(flat(grads[n]) @ flat(change[n][None])[0] for n in SHAPES)
    moved = sum(np.sum(flat(leaf[None]) ** 2) for leaf in change.values())
    bends = rng.uniform(0.1, 2.0, size=TASKS) * (lengths > 0)
    losses = rng.uniform(0.5, 2.0, size=TASKS)
    after = losses + slopes + 0.5 * bends * moved
    ids = jnp.arange(TASKS)
    return OuterStep(grads, change, jnp.float32(losses), jnp.float32(after), ids)


diagnose = jax.jit(step_diagnostics)
DIAGNOSE = {
    "all shared": (diagnose, [*SHAPES]),
    "masked": (
        jax.jit(functools.partial(step_diagnostics, mask=MASK)),
        [name for name, ours in MASK.items() if ours],
    ),
}
CASES = {
    "short step": {"moves": 0.3},
    "long step": {"moves": 100.0},
    "absent task": {"absent": [1], "moves": 3.0},
    "two tasks left": {"absent": [0, 2, 4], "moves": 3.0},
    "no change": {"moves": 0.0},
}


def assert_means_close(found, expected, *, rtol, atol):
    assert set(found) == set(expected)
    for name, mean in expected.items():
        close = functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol)
        close(found[name].total, mean.total, err_msg=f"{name} (total)")
        np.testing.assert_array_equal(found[name].count, mean.count, err_msg=name)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("which", DIAGNOSE)
def test_every_quantity_is_that_of_its_definition(which, case):
    diagnosed, shared = DIAGNOSE[which]
    for seed in range(10):
        step = drawn(seed, **CASES[case])
        # Float32: the curvature is a difference of losses of up to 100 over a squared
        # change of order 1, or of larger ones over a larger one; the rest is closer.
        assert_means_close(diagnosed(step), oracle(step, shared), rtol=1e-4, atol=1e-4)


def test_the_cases_tell_every_condition_from_its_opposite():
    names = ("conflicting", "hurt", *(f"theorem_2{x}" for x in ("", "a", "b", "c")))
    for name in names:
        shares = [
            mean.total / max(mean.count, 1)
            for case, seed in itertools.product(CASES, range(10))
            for mean in [
                oracle(drawn(seed, **CASES[case]), [*SHAPES])[f"diagnostics/{name}"]
            ]
        ]
        assert 0 < np.mean(shares) < 1, name


def test_a_change_of_nothing_is_no_division_by_zero():
    found = diagnose(drawn(0, moves=0.0))
    for name in ("alignment", "hurt"):
        assert value(found, name) == 0.0
    for name in ("curvature", "theorem_2b", "theorem_2c", "theorem_2"):
        assert found[f"diagnostics/{name}"] == (0.0, 0.0)


def of_gradients(grads, change=(), bends=()):
    """A step of three tasks with one leaf; task t bends by `bends[t]` along it.

    What is not given is 0, so that tasks are absent.
    """

    def padded(values, *shape):
        gaps = np.subtract(shape, np.shape(values))
        return np.pad(np.float64(np.float32(values)), [(0, gap) for gap in gaps])

    grads, change, bends = padded(grads, 3, 3), padded(change, 3), padded(bends, 3)
    after = 1.0 + grads @ change + 0.5 * bends * (change @ change)
    arrays = (jnp.float32(x) for x in (grads, change, np.ones(3), after))
    return OuterStep(*arrays, jnp.arange(3))


def value(metrics, name):
    return np.asarray(metrics[f"diagnostics/{name}"].compute())


def test_exactly_opposed_tasks_do_not_poison_the_mean_of_xi():
    rng, counts = np.random.default_rng(0), set()
    for _ in range(40):
        first, other = rng.normal(size=(2, 3)).astype(np.float32)
        found = diagnose(of_gradients([first, -first, other]))
        mean = found["diagnostics/curvature_bound"]
        # Tasks 0 and 1 are parallel, so xi is 0 or, by rounding of its sine, infinite.
        pairs = [diagnose(of_gradients([x, other])) for x in (first, -first)]
        others = sum(value(pair, "curvature_bound") for pair in pairs)
        # The same products; their sums may be fused in another order.
        np.testing.assert_allclose(mean.total, others, rtol=1e-5)
        counts.add(float(mean.count))
        assert value(found, "cosines")[0, 1] == pytest.approx(-1, abs=1e-6)
    assert counts == {2.0, 3.0}


def test_opposed_tasks_alone_have_no_xi_that_is_not_finite():
    rng = np.random.default_rng(1)
    for _ in range(40):
        first = rng.normal(size=3).astype(np.float32)
        mean = diagnose(of_gradients([first, -first]))["diagnostics/curvature_bound"]
        assert float(mean.total) == 0.0
        assert float(mean.count) in (0.0, 1.0)


def test_xi_is_never_negative_where_tasks_nearly_cancel():
    # |g_i + g_j|^2 is a difference of rounded products here.
    first, second = [0.33, 0.92], [-0.3300042748451233, -0.9200186729431152]
    mean = diagnose(of_gradients([first, second]))
    assert float(mean["diagnostics/curvature_bound"].total) >= 0.0


def test_alignment_is_a_cosine_where_tasks_nearly_cancel():
    # As they do at the end of training: |g_1 + g_2| is 1/2000 of |g_1|.
    first = np.float32([-0.8575418591499329, 0.46079719066619873])
    second = np.float32([0.8573747873306274, -0.46125707030296326])
    found = diagnose(of_gradients([first, second], -(first + second)))
    # Float32 products of order 1 leave three digits of one of order 1/2000.
    assert value(found, "alignment") == pytest.approx(1.0, abs=2e-3)


def test_a_summed_loss_that_bends_down_meets_neither_b_nor_c():
    # L is a Lipschitz constant, at least |l|: l >= xi L fails for every l < 0.
    step = of_gradients([[1.0, 0.3], [-0.9, 0.4]], [-5.0, -1.0], bends=[-3.0, -3.0])
    found = diagnose(step)
    assert value(found, "curvature") < 0
    assert value(found, "curvature_bound") > 1
    assert value(found, "theorem_2b") == 0
    assert value(found, "theorem_2c") == 0


def test_a_task_at_its_optimum_bends_the_summed_loss_too():
    # x^2/2 at 0 has no gradient, (x - 1)^2/2 has; the step is to 1/2.
    found = diagnose(of_gradients([[0.0], [-1.0]], [0.5], bends=[1.0, 1.0]))
    # Numbers that float32 holds exactly.
    assert float(value(found, "curvature")) == 2.0


def test_orthogonal_tasks_do_not_conflict():
    found = diagnose(of_gradients([[2.0, 0.0], [0.0, 0.5]], [0.0, 0.0, 1.0]))
    assert value(found, "conflicting") == 0
    assert value(found, "theorem_2a") == 0
    assert value(found, "hurt") == 0


def test_no_task_there_counts_no_pair():
    found = diagnose(of_gradients(np.zeros((3, 2)), [1.0, 1.0]))
    for name in ("conflicting", "similarity", "curvature_bound", "theorem_2", "hurt"):
        mean = found[f"diagnostics/{name}"]
        assert (float(mean.total), float(mean.count)) == (0.0, 0.0)
    assert float(value(found, "alignment")) == 0.0


def test_a_single_task_has_no_pair_but_a_curvature():
    whole = of_gradients([[3.0, 4.0]], [-1.0], bends=[0.5])
    step = OuterStep(
        whole.task_grads[:1],
        whole.change,
        whole.losses[:1],
        whole.losses_after[:1],
        whole.task_ids[:1],
    )
    for given in (whole, step):
        found = diagnose(given)
        assert float(found["diagnostics/conflicting"].count) == 0.0
        assert float(found["diagnostics/hurt"].count) == 1.0
        # Numbers that float32 holds exactly, but for a root.
        assert value(found, "curvature") == pytest.approx(0.5, rel=1e-6)
        assert value(found, "norms")[0] == pytest.approx(5.0, rel=1e-6)
        assert value(found, "alignment") == pytest.approx(0.6, rel=1e-6)


def test_a_mask_may_be_a_function_of_the_parameters():
    step = drawn(0)
    by_name = lambda tree: {name: name != "head" for name in tree}
    found = jax.jit(functools.partial(step_diagnostics, mask=by_name))(step)
    # The same program, compiled twice.
    assert_means_close(found, DIAGNOSE["masked"][0](step), rtol=1e-6, atol=1e-6)


def test_a_mask_of_another_structure_is_refused():
    with pytest.raises(ValueError, match="mask must be a pytree like the parameters"):
        step_diagnostics(drawn(0), mask={"body": True})


def test_a_mask_that_shares_nothing_is_refused_as_the_aggregator_refuses_it():
    nothing = dict.fromkeys(SHAPES, False)
    with pytest.raises(ValueError, match="mask leaves no parameter shared"):
        step_diagnostics(drawn(0), mask=nothing)


def test_a_task_without_shared_gradient_leaves_no_trace_in_a_merged_average():
    # Two steps of a log interval; task 0 has a head gradient alone in the first.
    first, second = drawn(0), drawn(1)
    gone = {
        name: leaf.at[0].set(0) if MASK[name] else leaf
        for name, leaf in first.task_grads.items()
    }
    masked, _ = DIAGNOSE["masked"]
    both = merge(masked(first._replace(task_grads=gone)), masked(second))
    for name in ("norms", "predicted_change"):
        found, alone = value(both, name)[0], value(masked(second), name)[0]
        assert found == pytest.approx(alone, rel=1e-6), name


def test_diagnosing_is_the_same_in_any_order_of_the_tasks():
    step, order = drawn(3, absent=[2]), jnp.array([4, 2, 0, 3, 1])
    turned = jax.tree.map(lambda leaf: leaf[order], step._replace(change=()))
    turned = turned._replace(change=step.change)
    found, expected = diagnose(turned), dict(diagnose(step))
    for name in ("norms", "predicted_change"):
        mean = expected[f"diagnostics/{name}"]
        expected[f"diagnostics/{name}"] = jax.tree.map(lambda x: x[order], mean)
    mean = expected["diagnostics/cosines"]
    expected["diagnostics/cosines"] = jax.tree.map(lambda x: x[order][:, order], mean)
    # Sums over tasks in another order.
    assert_means_close(found, expected, rtol=1e-5, atol=1e-5)


# --- in the harness: quadratics, whose steps are known exactly ------------------------

SIZE, NUM_TASKS, RATE = 3, 4, 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quadratics(Learner):
    """`L_t = 1/2 (z - c_t)' A_t (z - c_t)` with `z` in two leaves, one of them 0-d."""

    def init(self, key, example):
        return {"x": jnp.float32([0.5, -0.2]), "y": jnp.float32(0.3)}, ()

    def adapt(self, params, model_state, support, key):
        return params

    def loss(self, params, model_state, task, key):
        matrix, center = task.query
        offset = jnp.concatenate([params["x"], params["y"][None]]) - center
        loss = 0.5 * offset @ matrix @ offset
        return loss, ({"loss": Mean.of(loss)}, model_state)

    def evaluate(self, params, model_state, task, key):
        return self.loss(params, model_state, task, key)[1][0]


def quadratics(seed=0, num_tasks=NUM_TASKS):
    """`[task]` matrices, centers, and the same as tasks."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(num_tasks, SIZE, SIZE))
    matrices = factors @ factors.transpose(0, 2, 1)
    centers = 2.0 * rng.normal(size=(num_tasks, SIZE))
    query = (jnp.float32(matrices), jnp.float32(centers))
    return matrices, centers, Task((), query, jnp.arange(num_tasks))


def flat(params):
    return np.concatenate([np.ravel(params["x"]), np.ravel(params["y"])])


def train(aggregator, tx, parallel, step_metrics=None, learner=None, num_steps=3):
    """States and metrics of some steps on the same tasks, and the compiled step."""
    learner = Quadratics() if learner is None else learner
    tasks = quadratics()[2]
    example = jax.tree.map(lambda x: x[0], tasks)
    state = init_state(learner, tx, aggregator, key=KEY, example=example)
    state, tasks = parallel.replicate(state), parallel.split_rows(tasks)
    step = jax.jit(
        make_train_step(
            learner, tx, aggregator, parallel=parallel, step_metrics=step_metrics
        )
    )
    states, rows = [state], []
    for i in range(num_steps):
        state, metrics = step(state, tasks, jax.random.fold_in(KEY, i))
        states.append(state)
        rows.append(metrics)
    return states, rows, step


AGGREGATORS = {
    "sum": sum_over_tasks,
    "famo": lambda: surgery.aggregate_tasks(surgery.FAMO(num_tasks=NUM_TASKS)),
    "pcgrad": lambda: surgery.pcgrad(KEY),
}


@functools.cache
def trained(name, backend, *, transform=optax.adam, diagnosed=True):
    """`train` by name, once for all tests."""
    return train(
        AGGREGATORS[name](),
        transform(RATE),
        Parallel(backend=backend),
        step_diagnostics if diagnosed else None,
    )


def test_the_curvature_of_sgd_on_quadratics_is_exact():
    matrices, centers, _ = quadratics()
    states, rows, _ = trained("sum", "vmap", transform=optax.sgd)
    for state, metrics in zip(states, rows, strict=False):
        z = flat(state.params).astype(np.float64)
        g = np.einsum("tij,tj->i", matrices, z - centers)
        expected = g @ matrices.sum(0) @ g / (g @ g)
        # Losses of order 50 in float32 over a squared change of order 1.
        np.testing.assert_allclose(value(metrics, "curvature"), expected, rtol=1e-4)
        assert value(metrics, "alignment") == pytest.approx(1.0, rel=1e-6)


def test_the_change_is_that_of_the_whole_chain():
    matrices, centers, _ = quadratics()
    states, rows, _ = trained("pcgrad", "vmap", transform=optax.adam)
    for old, new, metrics in zip(states, states[1:], rows, strict=False):
        z = flat(old.params).astype(np.float64)
        grads = np.einsum("tij,tj->ti", matrices, z - centers)
        change = flat(new.params) - z
        length = np.linalg.norm
        total = grads.sum(0)
        # The change is a difference of float32 parameters of order 1.
        close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)
        close(value(metrics, "norms"), length(grads, axis=1))
        close(value(metrics, "predicted_change"), grads @ change)
        alignment = -change @ total / length(change) / length(total)
        close(value(metrics, "alignment"), alignment)
        unit = grads / length(grads, axis=1)[:, None]
        close(value(metrics, "cosines"), unit @ unit.T)


def test_step_metrics_are_given_gradients_change_and_both_losses():
    seen = lambda step: {
        f"seen/{name}": Mean(leaf, jnp.ones_like(leaf))
        for name, leaf in {
            **{f"grad {k}": v for k, v in step.task_grads.items()},
            **{f"change {k}": v for k, v in step.change.items()},
            "losses": step.losses,
            "after": step.losses_after,
            "ids": step.task_ids.astype(jnp.float32),
        }.items()
    }
    matrices, centers, _ = quadratics()
    states, (metrics,), _ = train(
        sum_over_tasks(), optax.adam(RATE), ONE, seen, num_steps=1
    )
    old, new = (flat(state.params).astype(np.float64) for state in states)
    loss = lambda z: 0.5 * np.einsum("ti,tij,tj->t", z - centers, matrices, z - centers)
    grads = np.einsum("tij,tj->ti", matrices, old - centers)
    expected = {
        "grad x": grads[:, :2],
        "grad y": grads[:, 2],
        "change x": (new - old)[:2],
        "change y": (new - old)[2],
        "losses": loss(old),
        "after": loss(new),
        "ids": np.arange(NUM_TASKS),
    }
    for name, array in expected.items():
        # Float32 products, and parameters of order 1 whose difference is the change.
        np.testing.assert_allclose(
            metrics[f"seen/{name}"].total, array, rtol=1e-5, atol=1e-6, err_msg=name
        )
    assert float(metrics["loss"].count) == NUM_TASKS


def test_a_change_that_rounding_swallows_is_no_change():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Half(Quadratics):
        def init(self, key, example):
            params, state = super().init(key, example)
            params["x"] = params["x"].astype(jnp.bfloat16)
            return params, state

    # Steps of 1e-6 are lost in a bfloat16 of order 0.5; with `y` fixed nothing moves.
    still = lambda updates, params: {**updates, "y": jnp.zeros_like(updates["y"])}
    tx = optax.chain(optax.sgd(1e-7), optax.stateless(still))
    states, (metrics,), _ = train(
        sum_over_tasks(), tx, ONE, step_diagnostics, Half(), num_steps=1
    )
    assert_trees_close(states[1].params, states[0].params, rtol=0.0, atol=0.0)
    np.testing.assert_array_equal(value(metrics, "predicted_change"), 0.0)
    assert metrics["diagnostics/curvature"] == (0.0, 0.0)


# --- what diagnosing must not change --------------------------------------------------


@pytest.mark.parametrize("name", AGGREGATORS)
def test_diagnosing_changes_no_training(name):
    plain, diagnosed = (
        trained(name, "shard_map", diagnosed=diagnosed)[0][-1]
        for diagnosed in (False, True)
    )
    # One weighted backward pass, or the weighted sum of four: another order of sums.
    assert_trees_close(diagnosed.params, plain.params, rtol=1e-6, atol=1e-7)
    # FAMO's logits are Adam steps over gradients that may be near 0.
    assert_trees_close(diagnosed.opt_state, plain.opt_state, rtol=1e-4, atol=1e-6)
    assert int(diagnosed.skipped) == 0


def test_famo_learns_while_it_is_diagnosed():
    # It wants the losses after the step, which as a link it would ask for itself.
    states, rows, _ = trained("famo", "shard_map")
    assert np.ptp(states[-1].opt_state[0].groups.logits) > 0.01
    assert all(np.isfinite(value(row, "cosines")).all() for row in rows)


def test_the_learners_own_metrics_stay():
    plain, diagnosed = (
        trained("pcgrad", "shard_map", diagnosed=diagnosed)[1][0]
        for diagnosed in (False, True)
    )
    assert set(diagnosed) == set(plain) | {f"diagnostics/{name}" for name in REPORTED}
    for name, mean in plain.items():
        # The same sums, compiled beside others.
        assert float(diagnosed[name].compute()) == pytest.approx(
            float(mean.compute()), rel=1e-6
        )


REPORTED = (
    *("conflicting", "similarity", "curvature_bound", "cosines", "norms"),
    *("theorem_2", "theorem_2a", "theorem_2b", "theorem_2c"),
    *("predicted_change", "hurt", "alignment", "curvature"),
)

# --- devices --------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["loop", "pmap", "shard_map"])
def test_diagnostics_do_not_depend_on_the_devices(backend):
    (_, rows, _), (_, alone, _) = (trained("pcgrad", b) for b in (backend, "vmap"))
    for found, expected in zip(rows, alone, strict=True):
        # Sums over devices in another order; the curvature is a difference of losses
        # of order 10 over a squared change of order 0.01.
        assert_means_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["vmap", "pmap", "shard_map"])
def test_a_second_step_does_not_recompile(backend):
    (_, after, *_), _, step = trained("pcgrad", backend)
    tasks = Parallel(backend=backend).split_rows(quadratics()[2])
    with compilations() as compiled:
        step(after, tasks, KEY)
    assert compiled == []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoencoder(Learner):
    """Parameters of which every axis divides over four devices."""

    def init(self, key, example):
        return {"w": jax.random.normal(key, (32, 32)), "b": jnp.zeros(32)}, ()

    def adapt(self, params, model_state, support, key):
        return params

    def loss(self, params, model_state, task, key):
        out = jnp.tanh(task.query @ params["w"] + params["b"][None])
        loss = jnp.mean((out - task.query) ** 2)
        return loss, ({"loss": Mean.of(loss)}, model_state)

    def evaluate(self, params, model_state, task, key):
        return self.loss(params, model_state, task, key)[1][0]


def gathered(compiled):
    """Shapes that an all-gather of the compiled program makes."""
    found = re.findall(r"= (.*?) all-gather(?:-start)?\(", compiled.as_text())
    shapes = [shape for made in found for shape in re.findall(r"\[([\d,]*)\]", made)]
    return [tuple(map(int, shape.split(","))) if shape else () for shape in shapes]


def test_diagnosing_never_gathers_the_gradients_of_all_tasks():
    parallel, aggregator, tx = Parallel(), surgery.pcgrad(KEY), optax.sgd(0.1)
    tasks = Task((), jax.random.normal(KEY, (4, 4, 32)), jnp.arange(4))
    example = jax.tree.map(lambda x: x[0], tasks)
    state = init_state(Autoencoder(), tx, aggregator, key=KEY, example=example)
    step = make_train_step(
        Autoencoder(), tx, aggregator, parallel=parallel, step_metrics=step_diagnostics
    )
    given = parallel.replicate(state), parallel.split_rows(tasks), KEY
    shapes = gathered(jax.jit(step).lower(*given).compile())
    # The update is gathered, so the program does communicate and is read rightly.
    assert (32, 32) in shapes
    assert max(map(np.prod, shapes)) <= 32 * 32


# --- steps that are skipped -----------------------------------------------------------


def test_a_skipped_step_adds_nothing_to_the_diagnostics():
    _, _, tasks = quadratics()
    matrices, centers = tasks.query
    bad = tasks._replace(query=(matrices, centers.at[1, 0].set(jnp.nan)))
    states, (good, *_), step = trained("pcgrad", "vmap")
    after, skipped = step(states[0], bad, KEY)
    assert int(after.skipped) == 1
    diagnostics = lambda row: {k: v for k, v in row.items() if "diagnostics" in k}
    assert len(diagnostics(good)) == len(REPORTED)
    both = merge(diagnostics(good), diagnostics(skipped))
    assert_trees_close(both, diagnostics(good), rtol=0.0, atol=0.0)


def test_a_step_after_which_the_loss_overflows_does_not_spoil_an_average():
    # The step itself is good (its loss and update are finite), the next is skipped.
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Cliff(Quadratics):
        def loss(self, params, model_state, task, key):
            loss, rest = super().loss(params, model_state, task, key)
            return loss + jnp.where(params["y"] == 0.3, 0.0, jnp.inf), rest

    _, (cliff,), _ = train(
        surgery.pcgrad(KEY),
        optax.sgd(RATE),
        ONE,
        step_diagnostics,
        Cliff(),
        num_steps=1,
    )
    assert float(cliff["skipped"].compute()) == 0.0
    for name in REPORTED:
        assert np.isfinite(cliff[f"diagnostics/{name}"].total).all(), name


# --- runs -----------------------------------------------------------------------------


def test_a_resumed_run_writes_the_metrics_of_an_uninterrupted_one(tmp_path):
    def run(directory, steps):
        experiment = Experiment(
            learner=smoke_learner(),
            source=smoke_source(),
            optimizer=Optimizer(
                aggregator=functools.partial(surgery.pcgrad, key=7),
                transform=optax.sgd,
                learning_rate=0.01,
            ),
            parallel=ONE,
            checkpoint=Checkpointing(every=2),
            step_metrics=step_diagnostics,
            tasks_per_step=4,
            steps=steps,
            log_every=2,
        )
        run = Run(tmp_path / directory, experiment)
        run.directory.mkdir(exist_ok=True)
        writer = JsonlWriter(run.metrics_path)
        fit(run, writer, Progress(steps, quiet=True))
        writer.close()
        lines = run.metrics_path.read_text().splitlines()
        return [
            {name: x for name, x in row.items() if not name.startswith("time/")}
            for row in map(json.loads, lines)
        ]

    whole = run("whole", 4)
    run("halves", 2)
    assert run("halves", 4) == whole
    assert [row["step"] for row in whole] == [2, 4]
    assert all(np.shape(row["diagnostics/cosines"]) == (4, 4) for row in whole)
    assert all(f"diagnostics/{name}" in row for row in whole for name in REPORTED)
