"""Whose statistics normalise what."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.objectives import cross_entropy
from jaxmeta.core.task import Examples, Task
from jaxmeta.meta.maml import Maml
from jaxmeta.meta.protonet import ProtoNet
from jaxmeta.networks.conv import Conv4
from jaxmeta.networks.mlp import MLP

KEYS = jax.random.split(jax.random.key(0), 4)
LABELS = jnp.array([0, 1, 0, 1])


def examples(key, count):
    images = jax.random.normal(key, (count, 4, 4, 1))
    return Examples(images, LABELS[:count])


TASK = Task(examples(KEYS[0], 2), examples(KEYS[1], 4), jnp.zeros((), jnp.int32))
LEARNERS = {
    "maml": Maml(
        network=Conv4(features=3, num_classes=2, num_blocks=2), objective=cross_entropy
    ),
    "protonet": ProtoNet(
        network=Conv4(features=3, num_classes=None, num_blocks=2), ways=2
    ),
}
each_learner = pytest.mark.parametrize("name", LEARNERS)


@functools.cache
def made(name, norm_stats):
    """The learner, and a start whose stored statistics are none of a batch's."""
    learner = dataclasses.replace(LEARNERS[name], norm_stats=norm_stats)
    params, state = jax.jit(learner.init)(KEYS[2], TASK)
    return learner, params, jax.tree.map(lambda x: x + 0.5, state)


@functools.cache
def adapted(name, norm_stats):
    """What becomes of them on the support set, and how it answers."""
    learner, params, state = made(name, norm_stats)
    what = jax.jit(learner.adapt)(params, state, TASK.support, KEYS[3])
    return functools.partial(jax.jit(learner.predict), params, what)


def answers(name, norm_stats, inputs):
    return adapted(name, norm_stats)(inputs)


@functools.cache
def after(name, norm_stats):
    """The statistics after a step."""
    learner, params, state = made(name, norm_stats)
    return jax.jit(learner.loss)(params, state, TASK, KEYS[3])[1][1]


@each_learner
@pytest.mark.parametrize("norm_stats", ["support", "running"])
def test_inductive_answers_do_not_depend_on_the_other_questions(name, norm_stats):
    together = answers(name, norm_stats, TASK.query.inputs)
    alone = [answers(name, norm_stats, x[None])[0] for x in TASK.query.inputs]
    np.testing.assert_allclose(together, jnp.stack(alone), rtol=1e-4, atol=1e-5)


@each_learner
def test_transductive_answers_do(name):
    together = answers(name, "query", TASK.query.inputs)
    alone = answers(name, "query", TASK.query.inputs[:2])
    assert np.abs(together[:2] - alone).max() > 1e-3


@each_learner
def test_the_support_set_normalises_the_query(name):
    # Asked about itself, the support set is normalised by itself either way.
    np.testing.assert_allclose(
        answers(name, "support", TASK.support.inputs),
        answers(name, "query", TASK.support.inputs),
        rtol=1e-4,
        atol=1e-5,
    )


@each_learner
@pytest.mark.parametrize("norm_stats", ["query", "support", "running"])
def test_only_running_statistics_are_kept(name, norm_stats):
    (_, _, state), new = made(name, norm_stats), after(name, norm_stats)
    same = jax.tree.map(lambda a, b: bool(np.all(a == b)), new, state)
    assert all(jax.tree.leaves(same)) == (norm_stats != "running")


@each_learner
def test_a_tenth_of_the_queries_statistics_is_kept(name):
    (learner, params, state), new = made(name, "running"), after(name, "running")
    # Those of the first layer's output, before which nothing is normalised.
    if name == "maml":
        descend = jax.jit(
            functools.partial(learner._descend, training=True, num_steps=1)
        )
        fast = descend(params, state.stats, TASK.support, params["rates"])
        kernel, old, new = fast["Conv3x3_0"]["kernel"], state.stats, new.stats
    else:
        kernel, old = params["params"]["Conv3x3_0"]["kernel"], state
    x = np.pad(np.asarray(TASK.query.inputs)[..., 0], ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    seen = np.einsum("nhwij,ijc->nhwc", windows, np.asarray(kernel)[:, :, 0])
    for statistic, of in (("mean", seen.mean((0, 1, 2))), ("var", seen.var((0, 1, 2)))):
        expected = 0.9 * old["BatchNorm_0"][statistic] + 0.1 * of
        got = new["BatchNorm_0"][statistic]
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm_stats", ["query", "support", "running"])
def test_the_gradient_goes_through_the_statistics(norm_stats):
    with jax.enable_x64(True):
        task, learner = (
            jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), TASK)._replace(
                task_id=TASK.task_id,
                support=TASK.support._replace(
                    inputs=TASK.support.inputs.astype(jnp.float64)
                ),
                query=TASK.query._replace(inputs=TASK.query.inputs.astype(jnp.float64)),
            ),
            dataclasses.replace(LEARNERS["maml"], norm_stats=norm_stats),
        )
        params, state = jax.jit(learner.init)(KEYS[2], task)
        loss = jax.jit(lambda p: learner.loss(p, state, task, KEYS[3])[0])
        grads = jax.jit(jax.grad(loss))(params)
        rng = np.random.default_rng(0)
        way = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), params)
        step = 1e-6
        ahead, behind = (
            loss(jax.tree.map(lambda p, w, s=s: p + s * w, params, way))
            for s in (step, -step)
        )
        slope = sum(
            jnp.vdot(g, w)
            for g, w in zip(jax.tree.leaves(grads), jax.tree.leaves(way), strict=True)
        )
        # Kinks of relu and pooling are nowhere near: the same at any such step.
        np.testing.assert_allclose((ahead - behind) / (2 * step), slope, rtol=1e-5)


def test_a_network_without_statistics_needs_no_choice():
    learner = Maml(network=MLP(features=(2,)), norm_stats="support")
    flat = Task(
        Examples(jnp.ones((2, 3)), jnp.ones((2, 2))),
        Examples(jnp.ones((3, 3)), jnp.ones((3, 2))),
        jnp.zeros((), jnp.int32),
    )
    params, state = learner.init(KEYS[0], flat)
    assert state.stats == ()
    loss = learner.loss(params, state, flat, KEYS[1])[0]
    plain = dataclasses.replace(learner, norm_stats="query")
    np.testing.assert_array_equal(loss, plain.loss(params, state, flat, KEYS[1])[0])


@pytest.mark.usefixtures("untyped")
@each_learner
def test_refuses_another_choice(name):
    with pytest.raises(ValueError, match=r"norm_stats must be one of .*, got 'batch'"):
        dataclasses.replace(LEARNERS[name], norm_stats="batch")
