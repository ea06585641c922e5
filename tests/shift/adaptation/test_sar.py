"""SAR against a literal version in PyTorch, and one step of it on paper."""

import chex
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta.shift.adaptation import BatchStatistics, Sar
from jaxmeta.shift.adaptation.descent import DescentState
from jaxmeta.shift.adaptation.sar import Loss

CLOSE = {"rtol": 1e-3, "atol": 1e-4}


def literal(torch, network, scale, bias, batches, lr):
    """Rows are picked with indices, as in the paper's algorithm 1."""
    norm = [scale, bias]
    optimizer = torch.optim.SGD(norm, lr=lr, momentum=0.9)
    limit, average, answers, taken = 0.5 * np.log(3), None, [], []
    entropies_of = lambda z: -(z.softmax(1) * z.log_softmax(1)).sum(1)
    for x in batches:
        x = torch.tensor(np.asarray(x))
        logits = network(x)
        answers.append(logits.detach().numpy())
        entropies = entropies_of(logits)
        rows = torch.where(entropies < limit)[0]
        uphill = torch.autograd.grad(entropies[rows].mean(), norm)
        length = torch.sqrt(sum((g**2).sum() for g in uphill))
        ways = [0.05 * g / (length + 1e-12) for g in uphill]
        with torch.no_grad():
            for p, way in zip(norm, ways, strict=True):
                p.add_(way)
        entropies = entropies_of(network(x))[rows]
        kept = entropies[entropies < limit]
        taken.append((len(rows), len(kept)))
        loss = kept.mean()
        average = loss.item() if average is None else 0.9 * average + 0.1 * loss.item()
        optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p, way in zip(norm, ways, strict=True):
                p.sub_(way)
        optimizer.step()
    return np.stack(answers), average, taken


def test_it_is_the_algorithm_of_the_paper(world, in_torch):
    torch = pytest.importorskip("torch")
    network, scale, bias = in_torch()
    answers, average, taken = literal(
        torch, network, scale, bias, world.batches, lr=0.05
    )
    assert all(0 < second <= first < 8 for first, second in taken)
    state, logits = world.walk(
        Sar(max_entropy=0.5, learning_rate=0.05, reset_below=0.0)
    )
    np.testing.assert_allclose(logits, answers, **CLOSE)
    assert float(state.memory.average) == pytest.approx(average, rel=1e-3)
    moved = state.moved["BatchNorm_0"]
    np.testing.assert_allclose(moved["scale"], scale.detach().numpy(), **CLOSE)
    np.testing.assert_allclose(moved["bias"], bias.detach().numpy(), **CLOSE)


def chain(adapter, theta, x=(1.0, 2.0, 0.1), shift=(0.0, 0.0, 0.0)):
    """A state whose only parameter is theta, and logits (theta x + shift, 0)."""
    first = {"scale": jnp.array([theta])}
    state = DescentState(
        moved=first,
        first=first,
        fixed={"scale": None},
        model_state={},
        opt_state=adapter.optimizer(adapter.learning_rate).init(first),
        memory=adapter.remember(None),
    )
    x, shift = jnp.array(x), jnp.array(shift)

    def logits_of(moved):
        z = moved["scale"] * x + shift
        return jnp.stack([z, jnp.zeros_like(z)], axis=1)

    return state, logits_of


def slope(z):
    """The derivative of the entropy of the logits (z, 0): -z p (1 - p)."""
    p = 1 / (1 + np.exp(-z))
    return -z * p * (1 - p)


def value(z):
    p = 1 / (1 + np.exp(-z))
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))


def test_one_step_on_paper():
    """With theta = 2 and x = 1, 2 and 0.1, the third is unsure. Up the hill is down."""
    adapter = Sar(optimizer=optax.sgd, learning_rate=1.0, radius=0.5, max_entropy=0.9)
    state, logits_of = chain(adapter, 2.0)
    after, logits = adapter.update(logits_of, state, jnp.ones(3, bool))
    limit, top = 0.9 * np.log(2), 2.0 - 0.5
    assert value(1.5) < limit < value(0.2)
    grad = (1 * slope(top) + 2 * slope(2 * top)) / 2
    assert after.moved["scale"].item() == pytest.approx(2.0 - grad, rel=1e-5)
    average = (value(top) + value(2 * top)) / 2
    assert after.memory.average.item() == pytest.approx(average, rel=1e-5)
    np.testing.assert_allclose(logits[:, 0], [2.0, 4.0, 0.2], rtol=1e-6)


def test_a_point_must_be_sure_up_the_hill_too():
    adapter = Sar(optimizer=optax.sgd, learning_rate=1.0, radius=1.0, max_entropy=0.75)
    state, logits_of = chain(adapter, 2.0)
    # At theta = 2 the point x = 1 is sure, at theta = 1 only x = 2 is.
    assert value(2.0) < 0.75 * np.log(2) < value(1.0)
    assert value(2.0) > 0.2
    after, _ = adapter.update(logits_of, state, jnp.ones(3, bool))
    assert after.moved["scale"].item() == pytest.approx(2 - 2 * slope(2.0), rel=1e-5)


def test_a_point_that_is_sure_only_up_the_hill_does_not_count():
    adapter = Sar(optimizer=optax.sgd, learning_rate=1.0, radius=1.0, max_entropy=0.75)
    state, logits_of = chain(adapter, 2.0, x=(2.0, -3.0), shift=(0.0, 6.0))
    # The second point has z = 0 at theta = 2, and z = 3 at theta = 1.
    after, _ = adapter.update(logits_of, state, jnp.ones(2, bool))
    assert after.moved["scale"].item() == pytest.approx(2 - 2 * slope(2.0), rel=1e-5)


def test_the_average_of_the_loss_moves():
    adapter = Sar(optimizer=optax.sgd, learning_rate=1e-6, radius=0.0, max_entropy=1.0)
    state, logits_of = chain(adapter, 2.0)
    state = state.replace(memory=Loss(jnp.array(0.5), jnp.array(True)))
    after, _ = adapter.update(logits_of, state, jnp.array([True, False, False]))
    expected = 0.9 * 0.5 + 0.1 * value(2.0)
    assert after.memory.average.item() == pytest.approx(expected, rel=1e-5)


def test_a_collapsed_model_is_set_back(world):
    settings = {"max_entropy": 0.9, "learning_rate": 0.05}
    stays = Sar(reset_below=0.0, **settings)
    state, _ = world.walk(stays, 1)
    average = float(state.memory.average)
    for threshold, is_reset in ((average * 0.99, False), (average * 1.01, True)):
        adapter = Sar(reset_below=threshold, **settings)
        after, logits = world.walk(adapter, 1)
        start = world.start(adapter)
        if is_reset:
            chex.assert_trees_all_equal(after, start)
        else:
            chex.assert_trees_all_equal(after, state)
        np.testing.assert_allclose(
            logits[0], world.walk(BatchStatistics(), 1)[1][0], rtol=1e-5, atol=1e-6
        )


def test_without_a_sure_point_nothing_changes(world):
    adapter = Sar(max_entropy=0.0)
    state, _ = world.walk(adapter, 2)
    chex.assert_trees_all_equal(state, world.start(adapter))


@pytest.mark.parametrize("name", ["max_entropy", "radius", "reset_below"])
def test_numbers_outside_their_range(name):
    with pytest.raises(ValueError, match=f"{name} must be >= 0"):
        Sar(**{name: -1.0})
