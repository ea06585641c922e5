"""MEMO point by point, its entropy in NumPy, and its augmentations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.networks.norm import STORED, Statistics
from jaxmeta.shift.adaptation import Jitter, Memo
from jaxmeta.shift.adaptation.memo import marginal_entropy

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def same(key, point):
    """A copy that is no different."""
    del key
    return point


def noisy(key, point):
    return point + 0.3 * jax.random.normal(key, point.shape)


def test_marginal_entropy_in_numpy():
    z = np.random.default_rng(0).normal(size=(5, 4)) * 3
    p = (np.exp(z) / np.exp(z).sum(1, keepdims=True)).mean(0)
    found = marginal_entropy(jnp.asarray(z, jnp.float32))
    assert float(found) == pytest.approx(-(p * np.log(p)).sum(), rel=1e-5)


def test_marginal_entropy_of_extreme_logits():
    z = jnp.array([[1e4, 0.0], [1e4, -1e4]])
    assert float(marginal_entropy(z)) == pytest.approx(0.0, abs=1e-6)
    assert np.isfinite(jax.grad(marginal_entropy)(z)).all()


@pytest.mark.parametrize("prior", [None, 3.0])
@pytest.mark.parametrize("steps", [1, 2])
def test_every_point_has_a_model_of_its_own(world, prior, steps):
    """Copies that do not differ: steps down the entropy of one point, one at a time."""
    used = STORED if prior is None else Statistics(use=0.25, keep=0.0)

    @jax.jit
    def logits_of(params, x):
        outputs, _ = world.learner.forward(params, world.model_state, x, None, used)
        return outputs.logits

    @jax.jit
    @jax.grad
    def gradient(params, x):
        z = logits_of(params, x)
        return -(jax.nn.softmax(z) * jax.nn.log_softmax(z)).sum(-1).mean()

    expected = []
    for point in world.batches[0]:
        params, x = world.params, jnp.stack([point] * 2)
        for _ in range(steps):
            grads = gradient(params, x)
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        expected.append(logits_of(params, point[None])[0])
    adapter = Memo(
        augment=same,
        num_augmentations=2,
        learning_rate=0.1,
        steps=steps,
        prior=prior,
    )
    state, logits = world.walk(adapter, 1)
    np.testing.assert_allclose(logits[0], jnp.stack(expected), **CLOSE)
    plain = logits_of(world.params, world.batches[0])
    if prior is None:
        assert np.abs(logits[0] - plain).max() > 0.01
    assert jax.tree.all(jax.tree.map(np.array_equal, state.model.params, world.params))


def test_a_point_does_not_depend_on_the_others(world):
    adapter = Memo(augment=noisy, num_augmentations=4, learning_rate=0.1)
    start, mask = world.start(adapter), world.masks[0]
    _, logits = world.adapt(adapter, start, world.batches[0], mask)
    others = world.batches[1].at[2].set(world.batches[0, 2])
    _, again = world.adapt(adapter, start, others, mask)
    np.testing.assert_allclose(again[2], logits[2], **CLOSE)
    assert np.abs(again[3] - logits[3]).max() > 0.01


def test_parts_are_the_whole(world):
    settings = {"augment": noisy, "num_augmentations": 4}
    _, whole = world.walk(Memo(**settings, points_at_once=None), 1)
    _, parts = world.walk(Memo(**settings, points_at_once=3), 1)
    np.testing.assert_allclose(parts, whole, **CLOSE)


def test_batches_have_copies_of_their_own(world):
    adapter = Memo(augment=noisy, num_augmentations=2, learning_rate=0.1)
    state, batch = world.start(adapter), (world.batches[0], world.masks[0])
    state, first = world.adapt(adapter, state, *batch)
    _, second = world.adapt(adapter, state, *batch)
    assert np.abs(first - second).max() > 1e-4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_augmentations": 0}, "num_augmentations must be >= 1"),
        ({"steps": 0}, "steps must be >= 1"),
        ({"points_at_once": 0}, "points_at_once must be >= 1"),
        ({"learning_rate": -1.0}, "learning_rate must be a positive"),
        ({"prior": -1.0}, "prior must be >= 0"),
    ],
)
def test_numbers_outside_their_range(fields, message):
    with pytest.raises(ValueError, match=message):
        Memo(**fields)


SIDE = 21


def blob(y=0.0, x=0.0, width=3.0):
    """A round spot, `[21, 21, 1]`, whose centre is off the middle by (y, x)."""
    offsets = np.arange(SIDE) - (SIDE - 1) / 2
    square = (offsets[:, None] - y) ** 2 + (offsets[None, :] - x) ** 2
    return jnp.asarray(np.exp(-square / (2 * width**2))[..., None], jnp.float32)


def many(jitter, image, count=20):
    keys = jax.random.split(jax.random.key(0), count)
    return np.asarray(jax.jit(jax.vmap(jitter, in_axes=(0, None)))(keys, image))


def centres(images):
    """`[image, 2]` (y, x) from the middle."""
    offsets = np.arange(SIDE) - (SIDE - 1) / 2
    mass = images[..., 0] / images[..., 0].sum((1, 2), keepdims=True)
    y, x = (mass.sum(2) * offsets).sum(1), (mass.sum(1) * offsets).sum(1)
    return np.stack([y, x], axis=1)


STILL = {"max_shift": 0.0, "max_turn_deg": 0.0, "max_scale": 0.0}


def test_without_a_change_the_image_is_the_same():
    image = jax.random.normal(jax.random.key(0), (5, 7, 3))
    np.testing.assert_allclose(
        many(Jitter(**STILL), image, 2), jnp.stack([image] * 2), atol=1e-5
    )


def test_shifts_move_the_centre():
    found = centres(many(Jitter(**(STILL | {"max_shift": 0.1})), blob()))
    assert np.abs(found).max() <= 0.1 * SIDE + 0.01
    assert found.std(0).min() > 0.5


def test_turns_keep_the_distance_from_the_middle():
    found = centres(
        many(Jitter(**(STILL | {"max_turn_deg": 30.0})), blob(y=4, width=1))
    )
    np.testing.assert_allclose(np.hypot(*found.T), 4.0, atol=0.1)
    angles = np.rad2deg(np.arctan2(found[:, 1], found[:, 0]))
    assert np.abs(angles).max() <= 30.5
    assert angles.min() < -10
    assert angles.max() > 10


def test_scales_change_the_size():
    images = many(Jitter(**(STILL | {"max_scale": 0.2})), blob(width=2))
    sizes = np.sqrt(images.sum((1, 2, 3)) / float(blob(width=2).sum()))
    assert 0.79 < sizes.min() < 0.95
    assert 1.05 < sizes.max() < 1.21
    np.testing.assert_allclose(centres(images), 0.0, atol=0.01)


def test_half_of_the_images_are_mirrored():
    found = centres(many(Jitter(**STILL, mirror=True), blob(y=2, x=4, width=1), 40))
    np.testing.assert_allclose(found[:, 0], 2.0, atol=0.01)
    np.testing.assert_allclose(np.abs(found[:, 1]), 4.0, atol=0.01)
    assert 0.2 < np.mean(found[:, 1] < 0) < 0.8


def test_the_border_is_continued():
    images = many(Jitter(max_shift=0.3), jnp.ones((6, 6, 2)))
    np.testing.assert_allclose(images, 1.0, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_shift": 1.5}, "max_shift must be from 0 to 1"),
        ({"max_turn_deg": -1.0}, "max_turn_deg must be from 0 to 180"),
        ({"max_scale": 1.0}, "max_scale must be in"),
    ],
)
def test_changes_outside_their_range(fields, message):
    with pytest.raises(ValueError, match=message):
        Jitter(**fields)
