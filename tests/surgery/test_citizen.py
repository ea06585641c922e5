"""Surgery among other transformations: meshes, wrappers, keys, mistakes, both forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxmeta import (
    init_state,
    make_train_step,
    mean_over_tasks,
    sum_over_tasks,
    surgery,
)
from jaxmeta.core.testing import (
    assert_trees_close,
    compilations,
    smoke_learner,
    smoke_source,
)

KEY, NUM_TASKS, SIZE = jax.random.key(0), 6, 8
WEIGHTINGS = {
    "sum": surgery.Sum(),
    "mean": surgery.Mean(),
    "random": surgery.RandomWeights(),
    "pcgrad": surgery.PCGrad(),
    "gradvac": surgery.GradVac(num_tasks=NUM_TASKS),
    "mgda": surgery.MGDA(),
    "cagrad": surgery.CAGrad(),
    "upgrad": surgery.UPGrad(),
    "dualproj": surgery.DualProj(),
    "imtl-g": surgery.IMTLG(),
    "aligned-mtl": surgery.AlignedMTL(),
    "nash-mtl": surgery.NashMTL(),
    "fairgrad": surgery.FairGrad(),
    "gradnorm": surgery.GradNorm(num_tasks=NUM_TASKS),
    "uncertainty": surgery.Uncertainty(num_tasks=NUM_TASKS),
    "dwa": surgery.DWA(num_tasks=NUM_TASKS),
    "group-dro": surgery.GroupDRO(num_tasks=NUM_TASKS),
    "q-ffl": surgery.QFFL(),
}
by_name = pytest.mark.parametrize("name", WEIGHTINGS)


@pytest.fixture(scope="module")
def task_grads():
    keys = jax.random.split(jax.random.key(1), 2)
    shapes = {"w": (NUM_TASKS, SIZE), "m": (NUM_TASKS, 3, SIZE)}
    return {
        name: jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def params_like(task_grads):
    return jax.tree.map(lambda g: jnp.zeros(g.shape[1:]), task_grads)


# Typed axes of explicit meshes are not what the shape annotations expect.
@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize(
    "name", ["pcgrad", "gradvac", "upgrad", "gradnorm", "group-dro"]
)
def test_the_state_is_stable_on_a_mesh(task_grads, kind, name):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(kind,))
    tx = optax.chain(surgery.aggregate_tasks(WEIGHTINGS[name]), optax.adam(0.1))
    losses = jnp.arange(1.0, NUM_TASKS + 1)
    expected, _ = tx.update(
        task_grads, tx.init(params_like(task_grads)), task_losses=losses
    )
    spread = lambda tree, *axes: jax.tree.map(
        lambda x: jax.device_put(
            x, NamedSharding(mesh, P(*[None] * (x.ndim - 1), "x"))
        ),
        tree,
    )
    with jax.set_mesh(mesh):
        params, grads = spread(params_like(task_grads)), spread(task_grads)
        state = tx.init(params)
        update = jax.jit(tx.update)
        first = [x.sharding for x in jax.tree.leaves(state)]
        updates, state = update(grads, state, params, task_losses=losses)
        assert [x.sharding for x in jax.tree.leaves(state)] == first
        with compilations() as compiled:
            update(grads, state, params, task_losses=losses)
    assert compiled == []
    assert all("x" in x.sharding.spec for x in jax.tree.leaves(updates))
    assert_trees_close(jax.device_get(updates), jax.device_get(expected), rtol=1e-5)


def test_replicas_are_averaged_before_surgery(task_grads):
    """Each replica sees part of every task's data; its gradients are off by noise."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    noise = jax.random.normal(jax.random.key(2), (4, NUM_TASKS, SIZE))
    parts = task_grads["w"][None] + noise - noise.mean(axis=0, keepdims=True)
    tx = surgery.pcgrad(0)

    @jax.jit
    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=P("data"), out_specs=P(), check_vma=False
    )
    def averaged_first(part):
        grads = jax.lax.pmean(part[0], "data")
        return tx.update(grads, tx.init(None))[0]

    whole = tx.update(task_grads["w"], tx.init(None))[0]
    np.testing.assert_allclose(averaged_first(parts), whole, rtol=1e-5, atol=1e-6)
    each = [tx.update(part, tx.init(None))[0] for part in parts]
    assert np.abs(np.mean(each, axis=0) - whole).max() > 0.01


@by_name
def test_low_memory_is_the_full_form(name):
    """Quadratic losses; solvers amplify what rounding makes of the Gram matrix."""
    rng = np.random.default_rng(3)
    centers = jnp.asarray(rng.normal(size=(NUM_TASKS, 12)), jnp.float32)
    scales = jnp.asarray(rng.uniform(0.5, 2.0, NUM_TASKS), jnp.float32)
    losses_of = lambda x: scales * jnp.sum(jnp.square(x[None] - centers), axis=1)
    params, weighting = jnp.zeros(12), WEIGHTINGS[name]
    full = surgery.aggregate_tasks(weighting, KEY)
    low = surgery.low_memory(losses_of, weighting, KEY)
    full_state, low_state = full.init(params), low.init(params)
    for _ in range(2):
        grads = jax.jacrev(losses_of)(params)
        expected, full_state = full.update(
            grads, full_state, params, task_losses=losses_of(params)
        )
        updates, low_state, _ = low.update(params, low_state)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(updates, expected, rtol=1e-4, atol=1e-4 * scale)
        params = params - 0.01 * expected
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        low_state,
        full_state,
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_memory_in_half_precision(dtype):
    """Gradients of 1e-4: their products would vanish in float16."""
    rng = np.random.default_rng(4)
    directions = jnp.asarray(rng.normal(size=(4, 8)) * 1e-4, dtype)
    losses_of = lambda x: directions @ x
    updates, *_ = surgery.low_memory(losses_of, surgery.PCGrad()).update(
        jnp.zeros(8, dtype), surgery.low_memory(losses_of, surgery.PCGrad()).init(None)
    )
    expected, _ = surgery.pcgrad(0).update(
        directions.astype(jnp.float32), surgery.pcgrad(0).init(None)
    )
    assert updates.dtype == dtype
    # Two (bfloat16) or three digits.
    np.testing.assert_allclose(
        updates.astype(jnp.float32), expected, rtol=0.05, atol=1e-5
    )


def test_low_memory_has_no_use_for_feedback():
    with pytest.raises(ValueError, match=r"FAMO learns from .* use aggregate_tasks"):
        surgery.low_memory(lambda x: x, surgery.FAMO(num_tasks=2))


@pytest.mark.parametrize(
    ("weighting", "link"),
    [(surgery.Sum(), sum_over_tasks), (surgery.Mean(), mean_over_tasks)],
)
def test_sum_and_mean_are_the_links_of_the_core(task_grads, weighting, link):
    ours, theirs = surgery.aggregate_tasks(weighting), link()
    found, _ = ours.update(task_grads, ours.init(None))
    expected, _ = theirs.update(task_grads, theirs.init(None))
    assert_trees_close(found, expected)


def test_random_weights_are_a_softmax_of_normal_numbers():
    tasks = surgery.Tasks(jnp.eye(3), jnp.zeros(3), jnp.arange(3))
    keys = jax.random.split(jax.random.key(5), 4000)
    weigh = lambda key: surgery.RandomWeights().weigh(tasks, (), key)[0]
    weights = np.asarray(jax.vmap(weigh)(keys), np.float64)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-5)
    assert (weights > 0).all()
    # Differences of logarithms are those of independent N(0, 1): variance 2.
    gaps = np.log(weights[:, 0]) - np.log(weights[:, 1])
    assert abs(gaps.mean()) < 4 * np.sqrt(2 / 4000)
    assert abs(gaps.var() - 2.0) < 4 * 2 * np.sqrt(2 / 4000)


def test_random_weights_change_from_step_to_step(task_grads):
    tx = surgery.aggregate_tasks(surgery.RandomWeights(), KEY)
    one, state = tx.update(task_grads, tx.init(None))
    two, _ = tx.update(task_grads, state)
    again, _ = tx.update(task_grads, tx.init(None))
    assert not np.allclose(one["w"], two["w"])
    np.testing.assert_array_equal(one["w"], again["w"])


@pytest.mark.parametrize("options", [{"granularity": "leaf"}, {"mask": True}])
@pytest.mark.parametrize("where", ["w", "m"])
def test_a_nan_reaches_every_leaf(task_grads, options, where):
    if "mask" in options:
        options = {"mask": {"w": True, "m": False}}
    bad = {**task_grads, where: task_grads[where].at[0].set(jnp.nan)}
    tx = surgery.pcgrad(0, **options)
    updates, _ = tx.update(bad, tx.init(params_like(task_grads)))
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(updates))


@pytest.mark.parametrize("name", ["gradvac", "gradnorm", "uncertainty", "group-dro"])
@pytest.mark.parametrize("task", [NUM_TASKS, -1])
def test_an_unknown_task_is_not_taken_for_another(task_grads, name, task):
    tx = surgery.aggregate_tasks(WEIGHTINGS[name])
    ids = jnp.arange(NUM_TASKS).at[0].set(task)
    updates, _ = tx.update(
        task_grads, tx.init(None), task_losses=jnp.ones(NUM_TASKS), task_ids=ids
    )
    assert np.isnan(updates["w"]).all()


def test_unknown_extra_arguments_are_ignored(task_grads):
    tx = surgery.pcgrad(0)
    plain, _ = tx.update(task_grads, tx.init(None))
    found, _ = tx.update(task_grads, tx.init(None), value=3.0, nonsense="x")
    assert_trees_close(found, plain)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.MultiSteps(tx, every_k_schedule=2),
        lambda tx: optax.apply_if_finite(tx, 5),
        lambda tx: optax.masked(tx, {"w": True, "b": False}),
    ],
    ids=["MultiSteps", "apply_if_finite", "masked"],
)
@pytest.mark.usefixtures("untyped")
def test_the_step_says_where_wrappers_go(wrap):
    learner, source = smoke_learner(), smoke_source()
    tx = wrap(optax.chain(surgery.pcgrad(0), optax.adam(0.1)))
    if isinstance(tx, optax.MultiSteps):
        tx = tx.gradient_transformation()
    tasks = source.sample(KEY, jnp.arange(4), split="train")
    state = init_state(learner, tx, key=KEY, example=source.example)
    with pytest.raises(ValueError, match=r"goes around what follows the aggregator"):
        make_train_step(learner, tx)(state, tasks, KEY)


def test_mistakes_are_named(task_grads, untyped):
    with pytest.raises(TypeError, match=r"must be a Weighting such as .*PCGrad"):
        surgery.aggregate_tasks(surgery.PCGrad)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="must be a Weighting"):
        surgery.aggregate_tasks(sum_over_tasks())  # pyright: ignore[reportArgumentType]
    tx = surgery.pcgrad(0)
    with pytest.raises(ValueError, match="each of the 1 parameters, got 2"):
        tx.update(task_grads, tx.init(None), {"w": jnp.zeros(SIZE)})
    with pytest.raises(ValueError, match="floating type, got int32"):
        tx.update(jnp.ones((2, 3), jnp.int32), tx.init(None))
