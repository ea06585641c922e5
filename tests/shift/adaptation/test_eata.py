"""EATA against a literal version in PyTorch, and its filters by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxmeta.core.config import to_json
from jaxmeta.shift.adaptation import Eata, Fisher
from jaxmeta.shift.adaptation.eata import Seen
from jaxmeta.shift.arm_bn import ArmBn

CLOSE = {"rtol": 1e-3, "atol": 1e-4}
SETTINGS = {"max_entropy": 0.5, "max_similarity": 0.8}


@pytest.fixture(scope="module")
def fisher(world):
    return Fisher.of(*world.model, world.batches, world.masks)


def literal(torch, network, scale, bias, batches, fishers, weight, lr):
    """Rows are picked with indices, as in the paper's algorithm 1."""
    optimizer = torch.optim.SGD([scale, bias], lr=lr, momentum=0.9)
    first = [scale.detach().clone(), bias.detach().clone()]
    limit, average, answers, taken = 0.5 * np.log(3), None, [], []
    for x in batches:
        logits = network(torch.tensor(np.asarray(x)))
        answers.append(logits.detach().numpy())
        probs = logits.softmax(1)
        entropies = -(probs * logits.log_softmax(1)).sum(1)
        rows = torch.where(entropies < limit)[0]
        num_sure = len(rows)
        if average is not None:
            cosine = torch.nn.functional.cosine_similarity(average[None], probs[rows])
            rows = rows[cosine.abs() < 0.8]
        taken.append((num_sure, len(rows)))
        if not len(rows):
            continue
        mean = probs[rows].mean(0).detach()
        average = mean if average is None else 0.9 * average + 0.1 * mean
        weights = torch.exp(limit - entropies[rows].detach())
        loss = (weights * entropies[rows]).mean()
        for f, now, then in zip(fishers, (scale, bias), first, strict=True):
            loss = loss + weight * (f * (now - then) ** 2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return np.stack(answers), average.numpy(), taken


@pytest.mark.parametrize("weight", [0.0, 5.0])
def test_it_is_the_algorithm_of_the_paper(world, in_torch, fisher, weight):
    torch = pytest.importorskip("torch")
    network, scale, bias = in_torch()
    norm = fisher.values["BatchNorm_0"]
    fishers = [torch.tensor(np.asarray(norm[name])) for name in ("scale", "bias")]
    answers, average, taken = literal(
        torch, network, scale, bias, world.batches, fishers, weight, 0.05
    )
    # The test would say little if all points passed a filter, or none.
    assert all(0 < new <= sure < 8 for sure, new in taken)
    assert any(new < sure for sure, new in taken)
    adapter = Eata(
        **SETTINGS,
        learning_rate=0.05,
        fisher=fisher if weight else None,
        fisher_weight=weight,
    )
    state, logits = world.walk(adapter)
    np.testing.assert_allclose(logits, answers, **CLOSE)
    np.testing.assert_allclose(state.memory.probs, average, **CLOSE)
    moved = state.moved["BatchNorm_0"]
    np.testing.assert_allclose(moved["scale"], scale.detach().numpy(), **CLOSE)
    np.testing.assert_allclose(moved["bias"], bias.detach().numpy(), **CLOSE)


def test_the_fisher_is_the_mean_of_squared_gradients(world, in_torch, fisher):
    torch = pytest.importorskip("torch")
    network, *norm = in_torch()
    total = [torch.zeros(5), torch.zeros(5)]
    for x in world.batches:
        logits = network(torch.tensor(np.asarray(x)))
        loss = torch.nn.functional.cross_entropy(logits, logits.argmax(1))
        for i, slope in enumerate(torch.autograd.grad(loss, norm)):
            total[i] += slope**2 / len(world.batches)
    for name, expected in zip(("scale", "bias"), total, strict=True):
        found = fisher.values["BatchNorm_0"][name]
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-7)


def test_the_fisher_ignores_padding(world, fisher):
    nothing = jnp.full((4, 2, 6), jnp.nan)
    batches = jnp.concatenate([world.batches, nothing], axis=1)
    masks = jnp.concatenate([world.masks, jnp.zeros((4, 2), bool)], axis=1)
    again = Fisher.of(*world.model, batches, masks)
    chex.assert_trees_all_close(again.values, fisher.values, rtol=1e-4, atol=1e-8)


def test_weights_by_hand():
    adapter = Eata(max_entropy=0.9, max_similarity=0.9)
    half = np.log(3.0)  # probabilities 3/4 and 1/4
    logits = jnp.array([[half, 0.0], [0.0, half], [0.0, 0.0], [half, 0.0]])
    mask = jnp.array([True, True, True, False])
    sure = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    weight = np.exp(0.9 * np.log(2.0) - sure)
    nothing_yet = Seen(jnp.zeros(2), jnp.array(False))
    np.testing.assert_allclose(
        adapter.weigh(logits, nothing_yet, mask), [weight, weight, 0.0, 0.0], rtol=1e-5
    )
    # cos((3, 1), (3, 1)) = 1 and cos((1, 3), (3, 1)) = 0.6
    seen = Seen(jnp.array([0.75, 0.25]), jnp.array(True))
    np.testing.assert_allclose(
        adapter.weigh(logits, seen, mask), [0.0, weight, 0.0, 0.0], rtol=1e-5
    )


@pytest.mark.parametrize("filters", [{"max_entropy": 0.0}, {"max_similarity": 0.0}])
def test_where_all_points_are_filtered_nothing_changes(world, fisher, filters):
    adapter = Eata(**(SETTINGS | filters), fisher=fisher, learning_rate=0.05)
    state = world.start(adapter)
    # Displaced, so that the Fisher has a gradient, and with something remembered.
    moved = jax.tree.map(lambda leaf: leaf + 0.1, state.moved)
    memory = Seen(jnp.full(3, 1 / 3), jnp.array(True))
    state = state.replace(moved=moved, memory=memory)
    after, _ = world.adapt(adapter, state, world.batches[0], world.masks[0])
    chex.assert_trees_all_equal(after, state)


def test_the_fisher_holds_back(world, fisher):
    distance = lambda state: float(
        jnp.square(
            state.moved["BatchNorm_0"]["scale"] - state.first["BatchNorm_0"]["scale"]
        ).sum()
    )
    settings = SETTINGS | {"learning_rate": 0.02, "max_similarity": 2.0}
    free, _ = world.walk(Eata(**settings))
    held, _ = world.walk(Eata(**settings, fisher=fisher, fisher_weight=20.0))
    assert distance(held) < distance(free)


def test_the_number_of_classes_must_be_right(world):
    adapter = Eata(num_classes=4)
    with pytest.raises(ValueError, match="num_classes is 4, but the network has 3"):
        world.walk(adapter, 1)


def test_a_network_that_does_not_count_its_classes(world):
    class Silent(nn.Module):
        pass

    learner = ArmBn(network=Silent())
    start = lambda adapter: adapter.init(
        learner, world.params, world.model_state, jax.random.key(0)
    )
    with pytest.raises(ValueError, match="Silent does not say how many classes"):
        start(Eata())
    assert start(Eata(num_classes=7)).memory.probs.shape == (7,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_classes": 1}, "num_classes must be >= 2"),
        ({"max_entropy": -0.1}, "max_entropy must be >= 0"),
        ({"max_similarity": -0.1}, "max_similarity must be >= 0"),
        ({"fisher_weight": float("inf")}, "fisher_weight must be"),
    ],
)
def test_numbers_outside_their_range(fields, message):
    with pytest.raises(ValueError, match=message):
        Eata(**fields)


def test_arrays_cannot_be_written(fisher):
    with pytest.raises(TypeError, match="cannot write a"):
        to_json(Eata(fisher=fisher))
