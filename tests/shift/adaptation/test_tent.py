"""TENT against PyTorch's autograd, and what all methods that descend share."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta.shift.adaptation import BatchStatistics, Tent
from jaxmeta.shift.adaptation.descent import entropy, merge, split_norm
from jaxmeta.shift.arm_bn import ArmBn

# Two programs in single precision, up to four steps of Adam.
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


@pytest.mark.parametrize("order", ["predict_then_update", "update_then_predict"])
def test_it_is_what_autograd_makes_of_it(world, in_torch, order):
    torch = pytest.importorskip("torch")
    network, scale, bias = in_torch()
    optimizer = torch.optim.Adam([scale, bias], lr=0.02)
    expected = []
    for x in world.batches:
        x = torch.tensor(np.asarray(x))
        logits = network(x)
        loss = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        answer = logits if order == "predict_then_update" else network(x)
        expected.append(answer.detach().numpy())
    state, logits = world.walk(Tent(learning_rate=0.02, order=order))
    np.testing.assert_allclose(logits, expected, **CLOSE)
    moved = state.moved["BatchNorm_0"]
    np.testing.assert_allclose(moved["scale"], scale.detach().numpy(), **CLOSE)
    np.testing.assert_allclose(moved["bias"], bias.detach().numpy(), **CLOSE)


def test_one_step_is_a_gradient_step(world, by_hand):
    """With plain SGD, against central differences of the entropy in NumPy."""
    adapter = Tent(optimizer=optax.sgd, learning_rate=0.1)
    state, _ = world.walk(adapter, 1)
    h = by_hand.hidden(world.batches[0]).astype(np.float64)

    def loss(norm):
        z = by_hand(world.batches[0], h.mean(0), h.var(0), norm)
        z = z - z.max(1, keepdims=True)
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        return -(p * np.log(p)).sum(1).mean()

    start = jax.tree.map(lambda x: np.asarray(x, np.float64), world.params)
    start = start["BatchNorm_0"]
    for name in ("scale", "bias"):
        for i in range(5):
            ahead, back = ({**start, name: start[name].copy()} for _ in range(2))
            ahead[name][i] += 1e-6
            back[name][i] -= 1e-6
            slope = (loss(ahead) - loss(back)) / 2e-6
            moved = float(state.moved["BatchNorm_0"][name][i])
            assert moved == pytest.approx(start[name][i] - 0.1 * slope, abs=1e-5)


def test_only_scales_and_biases_of_normalisation_move(world):
    state, _ = world.walk(Tent(learning_rate=0.05))
    params = merge(state.moved, state.fixed)
    moved = {
        jax.tree_util.keystr(path)
        for path, changed in jax.tree_util.tree_leaves_with_path(
            jax.tree.map(lambda a, b: np.any(a != b), params, world.params)
        )
        if changed
    }
    assert moved == {"['BatchNorm_0']['bias']", "['BatchNorm_0']['scale']"}
    assert state.model_state is world.model_state or jax.tree.all(
        jax.tree.map(np.array_equal, state.model_state, world.model_state)
    )


def test_the_first_batch_is_answered_by_the_trained_model(world):
    _, plain = world.walk(BatchStatistics())
    _, logits = world.walk(Tent(learning_rate=0.05))
    np.testing.assert_allclose(logits[0], plain[0], rtol=1e-5, atol=1e-6)
    assert np.abs(logits[1] - plain[1]).max() > 0.01


def test_entropy_falls(world):
    adapter = Tent(learning_rate=0.02, order="update_then_predict")
    before = entropy(world.walk(BatchStatistics(), 1)[1][0]).mean()
    after = entropy(world.walk(adapter, 1)[1][0]).mean()
    assert after < before - 0.005


def test_two_steps_are_one_and_one(world):
    once, twice = Tent(learning_rate=0.02), Tent(learning_rate=0.02, steps=2)
    state, batch = world.start(once), (world.batches[0], world.masks[0])
    state, first = world.adapt(once, state, *batch)
    state, _ = world.adapt(once, state, *batch)
    both, answer = world.adapt(twice, world.start(twice), *batch)
    np.testing.assert_allclose(
        both.moved["BatchNorm_0"]["scale"],
        state.moved["BatchNorm_0"]["scale"],
        rtol=1e-6,
    )
    np.testing.assert_allclose(answer, first, rtol=1e-6)


def test_a_network_without_normalisation(world, tiny):
    learner = ArmBn(network=tiny(normalise=False))
    params, state = {k: v for k, v in world.params.items() if "Dense" in k}, {}
    with pytest.raises(ValueError, match="Tent moves the scales and biases"):
        Tent().init(learner, params, state, jax.random.key(0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be a positive finite number"),
        ({"learning_rate": float("inf")}, "learning_rate must be a positive finite"),
        ({"steps": 0}, "steps must be >= 1"),
    ],
)
def test_numbers_outside_their_range(fields, message):
    with pytest.raises(ValueError, match=message):
        Tent(**fields)


def test_an_unknown_order(untyped):
    with pytest.raises(ValueError, match="order must be one of"):
        Tent(order="sideways")


def test_a_bias_is_normalisation_where_there_is_a_scale():
    params = {
        "conv": {"kernel": 1.0, "bias": 2.0},
        "block": {"GroupNorm_0": {"scale": 3.0, "bias": 4.0}},
        "LayerNorm_0": {"scale": 5.0},
    }
    moved, fixed = split_norm(params)
    assert jax.tree.leaves(moved) == [5.0, 4.0, 3.0]
    assert jax.tree.leaves(fixed) == [2.0, 1.0]
    assert merge(moved, fixed) == params


def test_entropy_of_extreme_logits():
    logits = jnp.array([[1e4, 0.0], [0.0, 0.0], [-1e4, 1e4]])
    np.testing.assert_allclose(entropy(logits), [0.0, np.log(2), 0.0], atol=1e-6)
    assert np.isfinite(jax.grad(lambda z: entropy(z).sum())(logits)).all()
