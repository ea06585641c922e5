"""Federated rounds against a literal loop over clients, batches and epochs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import init_state, make_train_step, mean_over_tasks, surgery
from jaxmeta.core.learner import Learner
from jaxmeta.core.metrics import Mean
from jaxmeta.core.parallel import Parallel
from jaxmeta.core.task import Task
from jaxmeta.data.groups import Points
from jaxmeta.shift.fed_avg import LocalSgd

KEY, RATE = jax.random.key(0), 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line(Learner):
    """`y = w x`, least squares over the points that are there."""

    def init(self, key, example):
        return jnp.ones(()), ()

    def adapt(self, params, model_state, support, key):
        return params

    def loss(self, params, model_state, task, key):
        x, y, mask = task.query.inputs, task.query.targets, task.query.mask
        errors = jnp.where(mask, (params * x - y) ** 2, 0.0)
        loss = errors.sum() / jnp.maximum(mask.sum(), 1)
        return loss, ({"loss": Mean.of(loss)}, model_state)

    def evaluate(self, params, model_state, task, key):
        return self.loss(params, model_state, task, key)[1][0]


def _clients():
    """Client 0 has one batch of 2 points, client 1 one of 2 and one of 1."""
    x = jnp.array([[[1.0, 2.0], [9.0, 9.0]], [[1.0, 3.0], [2.0, 9.0]]])
    y = jnp.array([[[3, 5], [9, 9]], [[0, 1], [1, 9]]])
    mask = jnp.array([[[True, True], [False, False]], [[True, True], [True, False]]])
    return Task(support=(), query=Points(x, y, y, mask), task_id=jnp.arange(2))


def _by_hand(q, epochs, order):
    """The server's w after one round; `order[k]` are the batches of client k."""
    data = [
        [((1.0, 3.0), (2.0, 5.0))],
        [((1.0, 0.0), (3.0, 1.0)), ((2.0, 1.0),)],
    ]
    start, tops, bottoms, models = 1.0, [], [], []
    for k, batches in enumerate(data):
        points = [point for batch in batches for point in batch]
        loss = np.mean([(start * x - y) ** 2 for x, y in points])
        w = start
        for _ in range(epochs):
            for i in order[k]:
                w -= RATE * np.mean([2 * x * (w * x - y) for x, y in batches[i]])
        models.append(w)
        d = (start - w) / RATE
        tops.append(loss**q * d)
        bottoms.append(q * loss ** (q - 1) * d**2 + loss**q / RATE)
    return start - sum(tops) / sum(bottoms), models


def _round(aggregator, tx, epochs=1):
    learner = LocalSgd(learner=Line(), rate=RATE, epochs=epochs)
    tasks = _clients()
    example = jax.tree.map(lambda leaf: leaf[0], tasks)
    state = init_state(learner, tx, aggregator, key=KEY, example=example)
    step = make_train_step(learner, tx, aggregator, parallel=Parallel(backend="vmap"))
    state, metrics = jax.jit(step)(state, tasks, KEY)
    return float(state.params), metrics


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("q", [0.0, 1.0, 2.5])
def test_a_round_is_the_published_one(q, epochs):
    found, metrics = _round(surgery.q_fedavg(q, RATE), optax.sgd(1.0), epochs)
    # The order of a client's batches is random: one of these it must be.
    orders = [((0,), (0, 1)), ((0,), (1, 0))] if epochs == 1 else None
    if orders is None:
        candidates = _both_orders(q)
    else:
        candidates = [_by_hand(q, 1, order)[0] for order in orders]
    assert min(abs(found - c) for c in candidates) < 1e-5
    losses = [np.mean([4.0, 9.0]), np.mean([1.0, 4.0, 1.0])]
    assert float(metrics["loss"].compute()) == pytest.approx(np.mean(losses))


def _both_orders(q):
    """Two epochs of client 1 with each order of its batches in each epoch."""
    found = []
    for first in ((0, 1), (1, 0)):
        for second in ((0, 1), (1, 0)):
            found.append(_by_hand_orders(q, first + second))
    return found


def _by_hand_orders(q, order):
    # Client 0 has one batch, twice; the loop of one epoch does the rest.
    return _by_hand(q, 1, ((0, 0), order))[0]


def test_q_of_0_is_the_mean_of_the_models():
    found, _ = _round(surgery.q_fedavg(0.0, RATE), optax.sgd(1.0))
    models = [_by_hand(0.0, 1, ((0,), order))[1] for order in ((0, 1), (1, 0))]
    assert min(abs(found - np.mean(m)) for m in models) < 1e-5
    plain, _ = _round(mean_over_tasks(), optax.sgd(RATE))
    assert plain == pytest.approx(found, abs=1e-6)


def test_a_batch_of_padding_changes_nothing():
    learner = LocalSgd(learner=Line(), rate=RATE)
    tasks = _clients()
    whole = jax.tree.map(lambda leaf: leaf[0], tasks)
    cut = whole._replace(query=jax.tree.map(lambda leaf: leaf[:1], whole.query))
    grad = jax.grad(lambda w, task: learner.loss(w, (), task, KEY)[0])
    assert float(grad(1.0, whole)) == pytest.approx(float(grad(1.0, cut)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"rate": 0.0}, "rate must be positive"), ({"epochs": 0}, "epochs must be >= 1")],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LocalSgd(learner=Line(), **settings)


@pytest.mark.parametrize(
    ("q", "rate", "message"),
    [(-1.0, 0.1, "q must be >= 0"), (1.0, 0.0, "rate must be positive")],
)
def test_the_aggregator_refuses_numbers_out_of_range(q, rate, message):
    with pytest.raises(ValueError, match=message):
        surgery.q_fedavg(q, rate)


def test_the_aggregator_asks_for_losses():
    tx = surgery.q_fedavg(1.0, 0.1)
    with pytest.raises(ValueError, match="needs the losses of the clients"):
        tx.update(jnp.ones((2, 1)), tx.init(None))
