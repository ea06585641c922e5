"""Hard parameter sharing against a forward pass in plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxmeta import Examples, Parallel, Task, init_state, make_train_step, surgery
from jaxmeta.multitask.hard_sharing import HardSharing, shared_body
from jaxmeta.networks.mlp import MLP, Encoder

KEY = jax.random.key(0)
BODY = Encoder(features=(6, 4))


def learner(num_heads):
    return HardSharing(body=BODY, head=nn.Dense(3), num_heads=num_heads)


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(5, 2, 3)), jnp.float32)
    return Task((), Examples(inputs, jnp.array([0, 1, 2, 0, 1])), jnp.array(1))


def forward(params, inputs, head):
    """Outputs by hand."""
    x = np.asarray(inputs, np.float64).reshape(len(inputs), -1)
    for layer in ("Dense_0", "Dense_1"):
        part = jax.tree.map(np.float64, params["body"]["layers"][layer])
        x = np.maximum(x @ part["kernel"] + part["bias"], 0)
    part = jax.tree.map(lambda leaf: np.float64(leaf[head]), params["heads"])
    return x @ part["kernel"] + part["bias"]


@pytest.mark.parametrize(("num_heads", "task_id", "head"), [(3, 2, 2), (3, 0, 0)])
def test_a_task_uses_its_own_head(task, num_heads, task_id, head):
    made = learner(num_heads)
    params, _ = made.init(KEY, task)
    outputs = made.predict(params, task.query.inputs, jnp.array(task_id))
    expected = forward(params, task.query.inputs, head)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)  # float32


def test_one_head_is_for_all(task):
    made = learner(1)
    params, _ = made.init(KEY, task)
    outputs = [made.predict(params, task.query.inputs, jnp.array(i)) for i in (0, 7)]
    np.testing.assert_array_equal(*outputs)


def test_loss_and_accuracy_by_hand(task):
    made = learner(2)
    params, _ = made.init(KEY, task)
    loss, (metrics, state) = made.loss(params, (), task, KEY)
    logits, targets = forward(params, task.query.inputs, 1), task.query.targets
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.log(shares[np.arange(5), targets]).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    accuracy = np.mean(logits.argmax(-1) == targets)
    assert float(metrics["accuracy"].compute()) == pytest.approx(accuracy)
    assert state == ()


def test_a_task_without_a_head_is_not_hidden(task):
    made = learner(2)
    params, _ = made.init(KEY, task)
    assert np.isnan(made.predict(params, task.query.inputs, jnp.array(2))).all()


def test_heads_start_differently(task):
    kernel = learner(2).init(KEY, task)[0]["heads"]["kernel"]
    assert not np.array_equal(kernel[0], kernel[1])


def test_surgery_leaves_heads_alone(task):
    """With a mask a head moves as under the sum, whatever the tasks' conflict."""
    made = learner(2)
    tasks = jax.tree.map(lambda x: jnp.stack([x, x[::-1]]), task.query)
    tasks = Task((), tasks._replace(inputs=-tasks.inputs), jnp.arange(2))
    ends = []
    for weighting in (surgery.PCGrad(), surgery.MGDA()):
        aggregator = surgery.aggregate_tasks(weighting, mask=shared_body)
        tx = optax.sgd(0.1)
        state = init_state(made, tx, aggregator, key=KEY, example=task)
        one_device = Parallel(backend="vmap")
        step = make_train_step(made, tx, aggregator, parallel=one_device)
        ends.append(jax.jit(step)(state, tasks, KEY)[0].params)

    def loss(params):
        losses = [
            made.loss(params, (), jax.tree.map(lambda x, i=i: x[i], tasks), KEY)[0]
            for i in range(2)
        ]
        return sum(losses)

    start = init_state(made, optax.sgd(0.1), None, key=KEY, example=task).params
    slope = jax.grad(loss)(start)["heads"]
    moved = jax.tree.map(lambda p, g: p - 0.1 * g, start["heads"], slope)
    for end in ends:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            end["heads"],
            moved,
        )
    bodies = [jax.tree.leaves(end["body"]) for end in ends]
    assert any(not np.allclose(a, b) for a, b in zip(*bodies, strict=True))


def test_bad_input(task):
    with pytest.raises(ValueError, match="num_heads must be >= 1, got 0"):
        learner(0)
    batch_norm = nn.BatchNorm(use_running_average=False)
    made = HardSharing(body=batch_norm, head=MLP(features=(2,)))
    with pytest.raises(ValueError, match=r"the body must have .*'batch_stats'"):
        made.init(KEY, task)
