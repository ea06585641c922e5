"""Motions of the plane, what a function notices of them, and learned ranges."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from flax import linen as nn

from jaxmeta.core.objectives import cross_entropy
from jaxmeta.core.task import Examples, Task
from jaxmeta.core.testing import assert_trees_close
from jaxmeta.meta.maml import Maml
from jaxmeta.networks.conv import Conv4
from jaxmeta.networks.norm import OWN
from jaxmeta.symmetry.augerino import RANGES, Augerino, Averaged
from jaxmeta.symmetry.liegg import derivatives, liegg
from jaxmeta.symmetry.motions import GENERATORS, exponential, move
from jaxmeta.symmetry.sharing import SYMMETRY

KEY = jax.random.key(0)
NAMES = list(GENERATORS)
RAMP = jnp.linspace(-1.0, 1.0, 28)


def blob(row, column, sharpness=8.0):
    squares = (RAMP[:, None] - row) ** 2 + (RAMP[None] - column) ** 2
    return jnp.exp(-sharpness * squares)


@functools.cache
def blobs():
    """Twenty smooth images that vanish towards the edge."""
    places = np.random.default_rng(0).uniform(-0.4, 0.4, (20, 2))
    pairs = [blob(a, b) + 0.5 * blob(-b, a / 2, 10.0) for a, b in places]
    return jnp.stack(pairs)[..., None]


def test_motions_are_exponentials_of_matrices():
    coefficients = np.random.default_rng(1).normal(size=6)
    found = exponential(jnp.asarray(coefficients, jnp.float32))
    rows = np.tensordot(coefficients, np.array(list(GENERATORS.values())), 1)
    expected = scipy.linalg.expm(np.vstack([rows, np.zeros((1, 3))]))
    np.testing.assert_allclose(found.matrix, expected[:2, :2], rtol=1e-5)
    np.testing.assert_allclose(found.shift, expected[:2, 2], rtol=1e-5)


def test_four_quarter_turns():
    quarter = exponential(jnp.zeros(6).at[NAMES.index("rotation")].set(jnp.pi / 2))
    image = blobs()[0]
    turned = image
    for k in range(1, 5):
        turned = move(turned, quarter)
        np.testing.assert_allclose(turned, jnp.rot90(image, k), atol=1e-4)


def test_a_half_side_is_a_half_side():
    down = exponential(jnp.zeros(6).at[NAMES.index("shift down")].set(1.0))
    image = blobs()[0]
    np.testing.assert_allclose(move(image, down)[:14], image[14:], atol=1e-6)


# LieGG.


def test_derivatives_are_differences():
    weights = jax.random.normal(KEY, (28 * 28, 3)) / 28
    smooth = lambda x: jnp.tanh(x.reshape(len(x), -1) @ weights)
    found = np.asarray(derivatives(smooth, blobs()[:3]))
    step = 1e-2
    for k in range(6):
        ahead, behind = (
            smooth(jax.vmap(lambda x, c=c: move(x, exponential(c)))(blobs()[:3]))
            for c in (step * jnp.eye(6)[k], -step * jnp.eye(6)[k])
        )
        # The interpolation has kinks at whole pixels, where the images stand.
        difference = np.asarray(ahead - behind) / (2 * step)
        np.testing.assert_allclose(found[..., k], difference, atol=0.2)


RADIUS = (RAMP[:, None] ** 2 + RAMP[None] ** 2)[None]


@pytest.mark.parametrize(
    ("fn", "unnoticed"),
    [
        (lambda x: (x[..., 0] * RADIUS).sum((1, 2))[:, None], {"rotation"}),
        (
            lambda x: x.sum((1, 2)),
            {"rotation", "stretching", "shearing", "shift down", "shift right"},
        ),
        (
            lambda x: jax.nn.softmax(x.sum(2)[..., 0], axis=-1) @ RAMP[:, None],
            {"shift right"},
        ),
    ],
    ids=["turned", "summed", "rows"],
)
def test_invariances_are_found(fn, unnoticed):
    scores = liegg(fn, blobs()).scores
    assert {name for name, score in scores.items() if score < 0.005} == unnoticed


def test_the_least_noticed_generator_is_the_invariance():
    found = liegg(lambda x: (x[..., 0] * RADIUS).sum((1, 2))[:, None], blobs())
    assert np.all(np.diff(found.variances) >= 0)
    assert np.abs(found.generators[0, NAMES.index("rotation")]) > 0.99
    np.testing.assert_allclose(
        found.generators @ found.generators.T, np.eye(6), atol=1e-6
    )


def test_one_image_and_one_answer_leave_five_unnoticed():
    found = liegg(lambda x: x.sum((1, 2)), blobs()[:1])
    assert found.generators.shape == (6, 6)
    np.testing.assert_allclose(found.variances, [0, 0, 0, 0, 0, 6], atol=1e-9)
    assert np.abs(found.generators[-1, NAMES.index("scaling")]) > 0.9


def test_a_constant_notices_nothing():
    scores = liegg(lambda x: jnp.zeros((len(x), 1)), blobs()[:2]).scores
    assert set(scores.values()) == {0.0}


def test_scores_are_shares():
    found = liegg(lambda x: x[:, ::5, ::7, 0].reshape(len(x), -1), blobs())
    assert np.mean(list(found.scores.values())) == pytest.approx(1.0)
    assert found.variances.mean() == pytest.approx(1.0)


# Augerino.


class Sums(nn.Module):
    """The brightness of each half of an image."""

    @nn.compact
    def __call__(self, x, statistics):
        del statistics
        return jnp.stack([x[:, :14].sum((1, 2, 3)), x[:, 14:].sum((1, 2, 3))], -1)


def test_it_is_the_mean_over_moved_copies():
    network = Averaged(network=Sums(), copies=3, start=0.2)
    images = blobs()[:2]
    y, variables = network.init_with_output(KEY, images)
    ranges = jax.nn.softplus(variables[SYMMETRY][RANGES])
    np.testing.assert_allclose(ranges, 0.2, rtol=1e-5)
    u = jax.random.uniform(jax.random.key(0), (3, 6), minval=-1.0, maxval=1.0)
    copies = [jnp.stack([move(x, exponential(0.2 * c)) for x in images]) for c in u]
    expected = np.mean([Sums().apply({}, copy, OWN) for copy in copies], axis=0)
    np.testing.assert_allclose(y, expected, rtol=1e-4)


def test_nothing_tells_an_image_by_its_place():
    # Else the order of a query set, which is that of its classes, would be an answer.
    network = Averaged(network=Sums(), copies=3, start=0.2)
    variables = network.init(KEY, blobs())
    turned = network.apply(variables, blobs()[::-1])
    np.testing.assert_allclose(
        turned[::-1], network.apply(variables, blobs()), rtol=1e-5
    )


EXAMPLES = Examples(blobs()[:4], jnp.array([0, 1, 0, 1]))
TASK = Task(EXAMPLES, EXAMPLES, jnp.zeros((), jnp.int32))
INNER = Conv4(features=2, num_classes=2, num_blocks=1)


def augerino(**settings):
    network = Averaged(network=INNER, copies=2)
    return Augerino(network=network, objective=cross_entropy, **settings)


class OneMotion(Averaged):
    """At motions of `KEY` in every call."""

    def draw(self, key):
        return super().draw(KEY)


def test_it_learns_at_motions_drawn_anew_and_answers_at_the_same():
    learner = augerino(reward=0.0)
    params, state = jax.jit(learner.init)(KEY, TASK)
    loss = jax.jit(lambda key: learner.loss(params, state, TASK, key)[0])
    fixed = Maml(network=OneMotion(network=INNER, copies=2), objective=cross_entropy)
    expected, _ = jax.jit(fixed.loss)(params, state, TASK, jax.random.key(9))
    np.testing.assert_allclose(loss(KEY), expected, rtol=1e-5)
    others = [float(loss(jax.random.key(i))) for i in (1, 2)]
    assert len({*others, float(expected)}) == 3
    measure = jax.jit(lambda key: learner.evaluate(params, state, TASK, key))
    assert_trees_close(measure(KEY), measure(jax.random.key(1)), rtol=0.0, atol=0.0)


def test_wide_ranges_are_rewarded_and_noticed_motions_are_not():
    task, learner = TASK, augerino(reward=0.5)
    plain = dataclasses.replace(learner, reward=0.0)
    params, state = jax.jit(learner.init)(KEY, task)
    found = [
        jax.jit(jax.value_and_grad(of.loss, has_aux=True))(params, state, task, KEY)
        for of in (learner, plain)
    ]
    less, more = (loss for (loss, _), _ in found)
    ranges = jax.nn.softplus(params["slow"][SYMMETRY][RANGES])
    np.testing.assert_allclose(less, more - 0.5 * ranges.sum(), rtol=1e-5)
    rewarded, alone = (g["slow"][SYMMETRY][RANGES] for _, g in found)
    slope = jax.nn.sigmoid(params["slow"][SYMMETRY][RANGES])
    np.testing.assert_allclose(rewarded, alone - 0.5 * slope, atol=1e-5)
    assert np.all(np.abs(alone) > 1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Averaged(network=Sums(), copies=0), "copies must be >= 1, got 0"),
        (lambda: Averaged(network=Sums(), start=0.0), "start must be > 0, got 0.0"),
        (lambda: Augerino(network=Conv4()), "network must be Averaged, .* got Conv4"),
        (
            lambda: Augerino(network=Averaged(network=Conv4()), reward=-1.0),
            "reward must be >= 0, got -1.0",
        ),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()
