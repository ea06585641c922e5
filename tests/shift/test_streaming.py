"""What is remembered of a stream, and when it is forgotten."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.task import Task
from jaxmeta.data.groups import Points
from jaxmeta.networks.convnet import ContextNet, ConvNet
from jaxmeta.networks.norm import STATS, STORED
from jaxmeta.shift.adaptation import Adapting, Tent
from jaxmeta.shift.arm_bn import ArmBn
from jaxmeta.shift.arm_cml import ArmCml
from jaxmeta.shift.arm_ll import ArmLl
from jaxmeta.shift.erm import Erm
from jaxmeta.shift.streaming import newest_share, stream

KEY = jax.random.key(0)
SMALL = ConvNet(num_classes=3, width=2, large=False)
CONTEXT = ContextNet(channels=1, width=2)
CML = ArmCml(network=SMALL, context=CONTEXT)
LEARNERS = {
    "erm": Erm(network=SMALL),
    "bn": ArmBn(network=SMALL),
    "cml": CML,
    "cml-set": ArmCml(network=SMALL, context=CONTEXT, norm_stats="set"),
}
IMAGES = jax.random.uniform(jax.random.key(1), (6, 16, 16, 1))
GROUPS = jnp.array([0, 0, 0, 1, 1, 1])
ALL = jnp.ones(6, bool)

streamed = jax.jit(stream, static_argnums=0)


@pytest.fixture(scope="module")
def trained():
    """Parameters and statistics of every learner, none of them at their start."""
    targets = jnp.zeros((1, 6), int)
    points = Points(IMAGES[None], targets, targets, ALL[None])
    task = Task(support=(), query=points, task_id=jnp.array(0))

    @functools.partial(jax.jit, static_argnums=0)
    def one(learner, task):
        params, state = learner.init(KEY, task)
        leaves, tree = jax.tree.flatten(params)
        keys = jax.random.split(KEY, len(leaves))
        moved = [
            leaf + 0.3 * jax.random.normal(key, leaf.shape)
            for leaf, key in zip(leaves, keys, strict=True)
        ]
        params = jax.tree.unflatten(tree, moved)
        return params, learner.loss(params, state, task, KEY)[1][1]

    return {name: one(learner, task) for name, learner in LEARNERS.items()}


@pytest.fixture(scope="module")
def answers(trained):
    """Logits of the whole stream, without and with a change of group."""
    return {
        name: (
            streamed(learner, *trained[name], IMAGES),
            streamed(learner, *trained[name], IMAGES, groups=GROUPS),
        )
        for name, learner in LEARNERS.items()
    }


def test_erm_remembers_nothing(trained, answers):
    learner = LEARNERS["erm"]
    expected = jax.jit(learner.predict)(*trained["erm"], (), IMAGES)
    for found in answers["erm"]:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_context_of_the_last_point_is_that_of_the_whole_set(trained, answers):
    at_once = jax.jit(CML.answer)(*trained["cml"], IMAGES, ALL)
    np.testing.assert_allclose(answers["cml"][0][-1], at_once[-1], rtol=1e-4, atol=1e-5)
    assert not np.allclose(answers["cml"][0][1], at_once[1], atol=1e-5)


def test_the_first_statistics_of_the_last_point_are_those_of_all(trained):
    """Deeper ones are not: early points went through the statistics of then."""
    learner = LEARNERS["bn"]
    params, state = trained["bn"]
    memory, observe = learner.remember(params, state), jax.jit(learner.observe)
    for t, image in enumerate(IMAGES):
        share = newest_share(jnp.array(t))
        memory, _ = observe(params, state, memory, image, jnp.array(t), share)
    first = memory["_Block_0"]["BatchNorm_0"]
    apply = jax.jit(functools.partial(SMALL.apply, mutable=[STATS]))
    _, kept = apply({"params": params, STATS: state}, IMAGES)
    now, then = kept[STATS]["_Block_0"]["BatchNorm_0"], state["_Block_0"]["BatchNorm_0"]
    # TRAINING keeps a tenth of the batch's own.
    for name in ("mean", "var"):
        whole = then[name] + (now[name] - then[name]) / 0.1
        np.testing.assert_allclose(first[name], whole, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["bn", "cml", "cml-set"])
def test_a_new_group_is_met_afresh(name, trained, answers):
    # The second group comes first, and nothing has been seen before it.
    alone = streamed(LEARNERS[name], *trained[name], jnp.roll(IMAGES, 3, axis=0))[:3]
    continual, episodic = answers[name]
    np.testing.assert_allclose(episodic[3:], alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(episodic[:3], continual[:3], rtol=1e-4, atol=1e-5)
    assert not np.allclose(continual[4:], alone[1:], atol=1e-5)


@pytest.mark.parametrize("name", ["bn", "cml", "cml-set"])
def test_the_first_point_is_answered_with_what_training_stored(name, trained, answers):
    learner = LEARNERS[name]
    with pytest.warns(UserWarning, match="a set of 1 point is too small"):
        alone = jax.jit(learner.answer)(*trained[name], IMAGES[:1], ALL[:1])
    np.testing.assert_allclose(answers[name][0][0], alone[0], rtol=1e-4, atol=1e-5)


def test_memory_bounds_the_share_from_below():
    shares = [float(newest_share(jnp.array(t), 4)) for t in range(7)]
    np.testing.assert_allclose(shares, [1, 1 / 2, 1 / 3, 1 / 4, 1 / 4, 1 / 4, 1 / 4])


def test_with_a_memory_the_context_is_a_running_average(trained):
    params, state = trained["cml"]
    read = jax.jit(lambda images: CML.read(params, state, images, None, STORED))
    contexts, _ = read(IMAGES)
    memory, observe = CML.remember(params, state), jax.jit(CML.observe)
    for t, image in enumerate(IMAGES):
        seen = jnp.array(t)
        share = newest_share(seen, 2)
        memory, _ = observe(params, state, memory, image, seen, share)
    # The first share is 1, every other one half.
    weights = jnp.array([1 / 32, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2])
    expected = jnp.tensordot(weights, contexts, axes=1)
    np.testing.assert_allclose(memory["mean"], expected, rtol=1e-4, atol=1e-6)


def test_arm_ll_is_refused():
    with pytest.raises(ValueError, match="ArmLl adapts to sets of points"):
        stream(ArmLl(network=SMALL), {}, {}, IMAGES)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"memory": 0}, "memory must be >= 1"),
        ({"groups": jnp.zeros(5, int)}, "one id a point"),
    ],
)
def test_wrong_arguments_are_refused(given, message, untyped):
    with pytest.raises(ValueError, match=message):
        stream(CML, {}, {}, IMAGES, **given)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_point_that_is_nan_is_not_remembered(name, trained):
    model, without = (LEARNERS[name], *trained[name]), [0, 2, 3, 4, 5]
    logits = streamed(*model, IMAGES.at[1].set(jnp.nan))
    assert np.isnan(logits[1]).all()
    expected = streamed(*model, IMAGES[np.array(without)])
    np.testing.assert_allclose(logits[np.array(without)], expected, rtol=1e-5)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_group_may_begin_with_nan(name, trained):
    model, inputs = (LEARNERS[name], *trained[name]), IMAGES.at[3].set(jnp.nan)
    logits = streamed(*model, inputs, groups=GROUPS)
    expected = streamed(*model, IMAGES[4:])
    np.testing.assert_allclose(logits[4:], expected, rtol=1e-5)


@pytest.mark.parametrize("groups", [None, []])
def test_a_stream_of_nothing(groups, trained, untyped):
    assert stream(CML, *trained["cml"], IMAGES[:0], groups=groups).shape == (0, 3)


def test_groups_in_a_list(trained, untyped):
    expected = stream(CML, *trained["cml"], IMAGES, groups=GROUPS)
    logits = stream(CML, *trained["cml"], IMAGES, groups=GROUPS.tolist())
    np.testing.assert_array_equal(logits, expected)


def test_what_cannot_be_streamed_is_named(untyped):
    adapting = Adapting(learner=CML, adapter=Tent())
    with pytest.raises(ValueError, match=r"Adapting cannot be streamed; .*adapt_st"):
        stream(adapting, {}, {}, IMAGES)
    with pytest.raises(ValueError, match="floating-point numbers, got uint8"):
        stream(CML, {}, {}, IMAGES.astype(jnp.uint8))
