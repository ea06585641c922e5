"""What every adapter has to do."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.config import from_json, to_json
from jaxmeta.core.testing import compilations
from jaxmeta.networks.convnet import ContextNet, ConvNet
from jaxmeta.shift.adaptation import (
    BatchStatistics,
    Eata,
    Lame,
    Memo,
    ResetEvery,
    RunningStatistics,
    Sar,
    Tent,
)
from jaxmeta.shift.arm_bn import ArmBn
from jaxmeta.shift.arm_cml import ArmCml
from jaxmeta.shift.arm_ll import ArmLl
from jaxmeta.shift.erm import Erm


def noisy(key, point):
    """An augmentation of vectors."""
    return point + 0.1 * jax.random.normal(key, point.shape)


EAGER = {"learning_rate": 0.05, "order": "update_then_predict"}
ADAPTERS = {
    "bn-1": BatchStatistics(),
    "bn-alpha": BatchStatistics(prior=4.0),
    "bn-ema": RunningStatistics(),
    "bn-ema-before": RunningStatistics(order="predict_then_update"),
    "tent": Tent(learning_rate=0.05),
    "tent-after": Tent(steps=2, statistics=BatchStatistics(prior=4.0), **EAGER),
    "memo": Memo(augment=noisy, num_augmentations=3, points_at_once=None),
    "memo-in-parts": Memo(augment=noisy, prior=16.0, points_at_once=3),
    "lame": Lame(neighbours=2),
    "lame-own": Lame(neighbours=2, statistics=BatchStatistics()),
    "eta": Eata(max_entropy=0.9, max_similarity=0.95, **EAGER),
    "sar": Sar(max_entropy=0.9, reset_below=0.0, **EAGER),
    "sar-resetting": Sar(max_entropy=0.9, reset_below=9.0, **EAGER),
    "rdumb": ResetEvery(adapter=Eata(max_entropy=0.9, max_similarity=0.95), every=2),
    "rdumb-memo": ResetEvery(adapter=Memo(augment=noisy, num_augmentations=3), every=2),
}
UNMOVED = ("bn-1", "bn-alpha", "lame", "lame-own", "sar-resetting")

# A mean over masked rows is added up in another order than one over fewer rows.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(params=ADAPTERS.items(), ids=lambda item: item[0])
def named(request):
    return request.param


@pytest.fixture
def adapter(named):
    return named[1]


def values(tree):
    """Leaves as numbers, keys included."""
    is_key = lambda leaf: jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    plain = lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf
    return jax.tree.map(plain, tree)


def test_it_is_its_configuration(named):
    name, adapter = named
    again = from_json(
        to_json(adapter), trusted=("jaxmeta", "optax", __name__.split(".")[0])
    )
    assert again == adapter
    assert hash(again) == hash(adapter)
    assert [key for key, other in ADAPTERS.items() if other == adapter] == [name]


def test_it_compiles_once_and_is_finite(world, adapter):
    start = world.start(adapter)
    with compilations() as programs:
        state, logits = world.walk(adapter)
    assert programs.count("jit(compiled)") <= 1
    assert logits.shape == (4, 8, 3)
    assert np.isfinite(logits).all()
    chex.assert_trees_all_equal_shapes_and_dtypes(values(state), values(start))


def test_it_moves_if_it_should(world, named):
    name, adapter = named
    start, (state, _) = world.start(adapter), world.walk(adapter, 1)
    same = jax.tree.map(np.array_equal, values(start), values(state))
    assert all(jax.tree.leaves(same)) == (name in UNMOVED)


def test_padding_changes_nothing(world, adapter):
    start, x = world.start(adapter), world.batches[0, :5]
    padded = jnp.concatenate([x, jnp.full((3, 6), jnp.nan)])
    mask = jnp.arange(8) < 5
    short, answer = world.adapt(adapter, start, x, jnp.ones(5, bool))
    long, longer = world.adapt(adapter, start, padded, mask)
    chex.assert_trees_all_close(values(long), values(short), **CLOSE)
    np.testing.assert_allclose(longer[:5], answer, **CLOSE)
    assert np.isfinite(longer).all()


def test_nothing_is_learned_from_padding_alone(world, adapter):
    if isinstance(adapter, ResetEvery):
        pytest.skip("it counts batches")
    # After a batch, so that a momentum is not zero.
    state, _ = world.walk(adapter, 1)
    nothing = jnp.full((8, 6), jnp.nan)
    after, logits = world.adapt(adapter, state, nothing, jnp.zeros(8, bool))
    chex.assert_trees_all_equal(values(after), values(state))
    assert np.isfinite(logits).all()


def test_one_reading_of_nan_does_not_end_all_learning(world, adapter):
    x = world.batches.at[1, 2, 3].set(jnp.nan)
    state = world.start(adapter)
    for batch, mask in zip(x[:3], world.masks, strict=False):
        state, logits = world.adapt(adapter, state, batch, mask)
    assert np.isfinite(logits).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(values(state)))


def test_answers_depend_on_the_key_only_where_something_is_drawn(world, named):
    name, adapter = named
    answers = [
        world.adapt(
            adapter, world.start(adapter, seed), world.batches[0], world.masks[0]
        )[1]
        for seed in (0, 1)
    ]
    assert np.array_equal(*answers) == ("memo" not in name)


NETWORK = ConvNet(num_classes=3, width=2)
LEARNERS = [
    Erm(network=NETWORK),
    ArmBn(network=NETWORK),
    ArmCml(
        network=ConvNet(num_classes=3, width=2, large=False),
        context=ContextNet(channels=1, width=2),
    ),
    ArmLl(network=ConvNet(num_classes=3, width=2)),
]


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda x: type(x).__name__)
def test_every_learner_can_be_adapted(learner, image_task):
    params, model_state = jax.jit(learner.init)(jax.random.key(0), image_task)
    adapter = Tent(**EAGER)
    state = adapter.init(learner, params, model_state, jax.random.key(1))
    inputs, mask = image_task.query.inputs[0], image_task.query.mask[0]
    after, logits = jax.jit(adapter.adapt, static_argnums=0)(
        learner, state, inputs, mask
    )
    assert np.isfinite(logits).all()
    paths = [
        jax.tree_util.keystr(path)
        for path, moved in jax.tree_util.tree_leaves_with_path(
            jax.tree.map(lambda a, b: np.any(a != b), state.moved, after.moved)
        )
        if moved
    ]
    assert len(paths) >= 6
    assert all("Norm" in path for path in paths)


def same(key, point):
    """A copy that is no different."""
    del key
    return point


STILL = {"learning_rate": 1e-9}
UNCHANGED = {
    "bn-alpha": BatchStatistics(prior=1e9),
    "bn-ema": RunningStatistics(momentum=1e-9),
    "tent": Tent(statistics=BatchStatistics(prior=1e9), **STILL),
    "memo": Memo(augment=same, num_augmentations=2, **STILL),
}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", UNCHANGED)
def test_a_context_is_that_of_the_set_or_of_training(name, count, image_task):
    """Adapters that hardly move answer what the learner alone does."""
    learner, x = LEARNERS[2], image_task.query.inputs[0]
    params, model_state = jax.jit(learner.init)(jax.random.key(0), image_task)
    model_state = {**model_state, "mean": model_state["mean"] + 1.5}
    mask, adapter = jnp.arange(4) < count, UNCHANGED[name]
    expected = jax.jit(learner.answer)(params, model_state, x, mask)
    state = adapter.init(learner, params, model_state, jax.random.key(1))
    adapt = jax.jit(adapter.adapt, static_argnums=0)
    _, logits = adapt(learner, state, x, mask)
    np.testing.assert_allclose(logits[:count], expected[:count], **CLOSE)
    other = {**model_state, "mean": model_state["mean"] + 1.5}
    moved = jax.jit(learner.answer)(params, other, x, mask)
    assert np.array_equal(moved[:count], expected[:count]) == (count > 1)


@pytest.fixture(scope="module")
def image_task():
    from jaxmeta.core.task import Task
    from jaxmeta.data.groups import Points

    x = jax.random.normal(jax.random.key(7), (1, 4, 16, 16, 1))
    zeros = jnp.zeros((1, 4), jnp.int32)
    return Task((), Points(x, zeros, zeros, jnp.ones((1, 4), bool)), jnp.array(0))
