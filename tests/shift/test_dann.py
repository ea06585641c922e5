"""DANN: who learns what from which loss, and in which step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta.core.task import Task
from jaxmeta.data.groups import Points
from jaxmeta.networks.convnet import ConvNet
from jaxmeta.networks.norm import TRAINING
from jaxmeta.shift.dann import Dann, alternating

KEY = jax.random.key(0)
LEARNER = Dann(
    network=ConvNet(num_classes=3, width=2, large=False),
    num_groups=2,
    adversary_weight=0.3,
)


@pytest.fixture(scope="module")
def task():
    inputs = jax.random.uniform(KEY, (2, 4, 16, 16, 1))
    groups = jnp.array([[0, 1, 1, 0], [1, 0, 0, 1]])
    targets = jnp.array([[0, 1, 2, 0], [2, 1, 0, 1]])
    points = Points(inputs, targets, groups, jnp.ones(targets.shape, bool))
    return Task(support=(), query=points, task_id=jnp.array(0))


def _losses(params, state, task):
    """Cross entropy of classes and of groups, from the definition."""
    query = task.query
    outputs, _ = LEARNER.forward(
        params, state, query.inputs.reshape(-1, 16, 16, 1), None, TRAINING
    )
    groups = LEARNER._discriminator.apply(
        {"params": params["discriminator"]}, outputs.features
    )

    def entropy(logits, targets):
        logs = jax.nn.log_softmax(logits)
        return -jnp.mean(jnp.take_along_axis(logs, targets.reshape(-1, 1), axis=1))

    return (
        entropy(outputs.logits, query.targets),
        entropy(groups, query.groups),
    )


def test_each_part_has_the_gradient_of_its_own_loss(task):
    params, state = jax.jit(LEARNER.init)(KEY, task)
    learned = jax.jit(jax.value_and_grad(LEARNER.loss, has_aux=True))
    (loss, _), grads = learned(params, state, task, KEY)
    y, group = jax.jit(_losses)(params, state, task)
    np.testing.assert_allclose(loss, y - 0.3 * group, rtol=1e-5)

    def network_loss(network):
        y, group = _losses({**params, "network": network}, state, task)
        return y - 0.3 * group

    def discriminator_loss(discriminator):
        return _losses({**params, "discriminator": discriminator}, state, task)[1]

    expected = {
        "network": jax.jit(jax.grad(network_loss))(params["network"]),
        "discriminator": jax.jit(jax.grad(discriminator_loss))(params["discriminator"]),
    }
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, grads, expected)


def test_the_parts_take_turns_and_rest_with_their_momentum():
    params = {"network": jnp.ones(1), "discriminator": jnp.ones(1)}
    tx = alternating(1.0, lambda rate: optax.sgd(rate, momentum=0.5))
    state, seen = tx.init(params), []
    for _ in range(4):
        updates, state = tx.update(params, state, params)
        seen.append((updates["network"].item(), updates["discriminator"].item()))
    # Two steps of each, the second with half of the first's velocity.
    assert seen == [(0.0, -1.0), (-1.0, 0.0), (0.0, -1.5), (-1.5, 0.0)]


def test_one_group_is_refused():
    with pytest.raises(ValueError, match="num_groups must be >= 2, got 1"):
        Dann(network=ConvNet(num_classes=3, width=2), num_groups=1)
