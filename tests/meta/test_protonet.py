"""Prototypes against NumPy, and against the linear classifier that they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import Experiment
from jaxmeta.check import settle_and_check
from jaxmeta.core.task import Examples, Task
from jaxmeta.data.digits import Digits
from jaxmeta.meta.protonet import ProtoNet, prototypes
from jaxmeta.networks.conv import Conv4
from jaxmeta.networks.mlp import MLP

KEYS = jax.random.split(jax.random.key(0), 3)
TARGETS = jnp.array([2, 0, 1, 0, 2, 2])
SUPPORT = Examples(jax.random.normal(KEYS[0], (6, 4)), TARGETS)
QUERY = Examples(jax.random.normal(KEYS[1], (5, 4)), jnp.array([0, 1, 2, 2, 1]))
TASK = Task(SUPPORT, QUERY, jnp.array(0))
LEARNER = ProtoNet(network=MLP(features=(8, 3)), ways=3)


def test_the_equations_of_the_paper():
    params, state = LEARNER.init(KEYS[2], TASK)
    f = lambda x: np.asarray(LEARNER.network.apply(params, x), np.float64)
    support, query = f(SUPPORT.inputs), f(QUERY.inputs)
    means = [support[np.asarray(TARGETS) == k].mean(0) for k in range(3)]
    distances = np.array([[np.sum((q - c) ** 2) for c in means] for q in query])
    p = np.exp(-distances) / np.exp(-distances).sum(1, keepdims=True)
    labels = np.asarray(QUERY.targets)
    loss, (metrics, _) = LEARNER.loss(params, state, TASK, KEYS[2])
    np.testing.assert_allclose(loss, -np.log(p[range(5), labels]).mean(), rtol=1e-5)
    accuracy = (p.argmax(1) == labels).mean()
    np.testing.assert_allclose(metrics["accuracy"].compute(), accuracy, rtol=1e-6)
    measured = LEARNER.evaluate(params, state, TASK, KEYS[2])
    np.testing.assert_allclose(measured["loss"].compute(), loss, rtol=1e-6)


def test_the_order_of_the_support_does_not_matter():
    order = jnp.array([3, 5, 0, 1, 4, 2])
    np.testing.assert_allclose(
        prototypes(SUPPORT.inputs[order], TARGETS[order], 3),
        prototypes(SUPPORT.inputs, TARGETS, 3),
        rtol=1e-6,
    )


def test_it_is_a_linear_classifier_of_the_embedding():
    # -|f - c|^2 = 2 c f - |c|^2 - |f|^2, and the last is common to all classes.
    params, state = LEARNER.init(KEYS[2], TASK)
    adapted = LEARNER.adapt(params, state, SUPPORT, KEYS[2])
    means = adapted.prototypes
    f = LEARNER.network.apply(params, QUERY.inputs)
    linear = 2 * f @ means.T - jnp.square(means).sum(1)[None]
    logits = LEARNER.predict(params, adapted, QUERY.inputs)
    np.testing.assert_allclose(
        jax.nn.log_softmax(logits), jax.nn.log_softmax(linear), rtol=1e-4, atol=1e-5
    )


def test_refuses_one_way():
    with pytest.raises(ValueError, match="ways must be >= 2, got 1"):
        ProtoNet(network=LEARNER.network, ways=1)


def test_ways_that_do_not_fit():
    network = Conv4(features=2, num_classes=None, num_blocks=1)
    source = Digits(ways=3, image_size=8)
    with pytest.raises(ValueError, match=r"must be source.ways, got 5 and 3"):
        settle_and_check(Experiment(learner=ProtoNet(network=network), source=source))
