"""MMD against the double loop, and its learner."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.task import Task
from jaxmeta.data.groups import Points
from jaxmeta.networks.convnet import ConvNet
from jaxmeta.networks.norm import TRAINING
from jaxmeta.shift.erm import Erm
from jaxmeta.shift.mmd import GAMMAS, Mmd, mmd_squared

NETWORK = ConvNet(num_classes=3, width=2, large=False)
KEY = jax.random.key(0)


def _task(num_sets=3, num_points=4):
    inputs = jax.random.uniform(KEY, (num_sets, num_points, 16, 16, 1))
    groups = jnp.broadcast_to(jnp.arange(num_sets)[:, None], (num_sets, num_points))
    targets = jnp.arange(num_sets * num_points).reshape(num_sets, num_points) % 3
    points = Points(inputs, targets, groups, jnp.ones(targets.shape, bool))
    return Task(support=(), query=points, task_id=jnp.array(0))


def _by_hand(x, y):
    """MMD^2, a pair of points at a time."""

    def mean(a, b):
        pairs = [((p - q) ** 2).sum() for p in a for q in b]
        return np.mean([sum(np.exp(-gamma * d) for gamma in GAMMAS) for d in pairs])

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


def test_mmd_is_the_double_loop():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 3)), rng.normal(size=(5, 3)) + 1
    found = mmd_squared(jnp.float32(x), jnp.float32(y))
    np.testing.assert_allclose(found, _by_hand(x, y), rtol=1e-5)


def test_the_loss_adds_the_mean_over_pairs():
    task, penalty = _task(), 0.7
    learner = Mmd(network=NETWORK, penalty=penalty)
    params, state = jax.jit(learner.init)(KEY, task)
    loss, (metrics, _) = jax.jit(learner.loss)(params, state, task, KEY)
    flat = task.query.inputs.reshape(-1, 16, 16, 1)
    forward = jax.jit(
        lambda images: learner.forward(params, state, images, None, TRAINING)
    )
    outputs, _ = forward(flat)
    features = np.asarray(outputs.features, np.float64).reshape(3, 4, -1)
    apart = np.mean([_by_hand(a, b) for a, b in itertools.combinations(features, 2)])
    erm = jax.jit(Erm(network=NETWORK).loss)
    plain, _ = erm(params, {**state, "weights": ()}, task, KEY)
    np.testing.assert_allclose(loss, plain + penalty * apart, rtol=1e-4)
    np.testing.assert_allclose(metrics["mmd"].compute(), apart, rtol=1e-4)


def test_a_set_of_padding_is_compared_with_none():
    task = _task()
    fewer = jax.tree.map(lambda leaf: leaf[:2], task.query)
    padded = task.query._replace(mask=task.query.mask.at[2].set(False))
    learner = Mmd(network=NETWORK)
    params, state = jax.jit(learner.init)(KEY, task)
    loss = jax.jit(learner.loss)
    ours, (metrics, _) = loss(params, state, task._replace(query=padded), KEY)
    without, (expected, _) = loss(params, state, task._replace(query=fewer), KEY)
    np.testing.assert_allclose(ours, without, rtol=1e-4)
    np.testing.assert_allclose(metrics["mmd"].total, expected["mmd"].total, rtol=1e-4)


def test_without_penalty_it_is_erm():
    task = _task()
    learner = Mmd(network=NETWORK, penalty=0.0)
    params, state = jax.jit(learner.init)(KEY, task)
    gradient = lambda of: jax.jit(jax.grad(of.loss, has_aux=True))
    ours, _ = gradient(learner)(params, state, task, KEY)
    theirs, _ = gradient(Erm(network=NETWORK))(
        params, {**state, "weights": ()}, task, KEY
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, theirs)


def test_one_set_is_refused():
    learner, task = Mmd(network=NETWORK), _task(num_sets=1)
    params, state = jax.jit(learner.init)(KEY, task)
    with pytest.raises(ValueError, match="sets_per_task of 2 or more, got 1"):
        learner.loss(params, state, task, KEY)


@pytest.mark.parametrize("penalty", [-1.0, float("nan")])
def test_a_penalty_that_is_none_is_refused(penalty):
    with pytest.raises(ValueError, match="penalty must be >= 0"):
        Mmd(network=NETWORK, penalty=penalty)
