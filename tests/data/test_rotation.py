import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.data.rotation import RotationSource, correlate_images, steerable_basis

KEY = jax.random.key(11)
SMALL = RotationSource(num_support=1, num_query=2, image_size=5)
FLIPS = pytest.mark.parametrize("flip", [False, True])


def published(flip):
    """The basis and the weights' sampled std that e2cnn 0.2.3 gives."""
    name = "e2_basis_rot8_flip.npz" if flip else "e2_basis_rot8.npz"
    with np.load(pathlib.Path(__file__).parent / name) as stored:
        return stored["B"].astype(np.float64), stored["std"].astype(np.float64)


def flat(basis):
    return basis.reshape(len(basis), -1)


@FLIPS
def test_kernels_have_the_published_covariance(flip):
    basis, std = steerable_basis(flip)
    oracle, _ = published(flip)
    ours = (flat(basis).T * std**2) @ flat(basis)
    theirs = (flat(oracle).T * std**2) @ flat(oracle)
    # entries up to .06, the oracle is stored in float32
    np.testing.assert_allclose(ours, theirs, atol=1e-7)


@FLIPS
def test_kernels_span_the_published_space(flip):
    ours, theirs = flat(steerable_basis(flip)[0]), flat(published(flip)[0])
    assert np.linalg.matrix_rank(ours) == 18
    weights, *_ = np.linalg.lstsq(ours.T, theirs.T, rcond=None)
    np.testing.assert_allclose(weights.T @ ours, theirs, atol=1e-6)  # float32 oracle


@FLIPS
def test_weights_have_the_published_std(flip):
    # the published values are estimates from a sample, good to about 2 %
    np.testing.assert_allclose(steerable_basis(flip)[1], published(flip)[1], rtol=0.06)


@FLIPS
def test_a_quarter_turn_moves_the_channels_by_two(flip):
    basis, _ = steerable_basis(flip)
    kernels = basis.reshape(18, -1, 8, 3, 3)  # [function, orbit, turn, row, column]
    turned = np.rot90(kernels, axes=(3, 4))
    np.testing.assert_allclose(turned, np.roll(kernels, -2, axis=2), atol=1e-12)


def test_a_mirror_image_swaps_the_halves_of_a_field():
    kernels = steerable_basis(flip=True)[0].reshape(18, 3, 2, 8, 3, 3)
    mirrored = kernels[..., ::-1]
    # the mirror image of a turn by +g is the turn by -g of the mirror image
    expected = kernels[:, :, ::-1, -np.arange(8)]
    np.testing.assert_allclose(mirrored, expected, atol=1e-12)


@FLIPS
def test_each_function_stays_in_its_field(flip):
    norms = np.square(steerable_basis(flip)[0]).sum(axis=2).reshape(3, 6, 3, -1).sum(3)
    per_field = np.array([1.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    expected = np.eye(3)[:, None, :] * per_field[None, :, None]
    np.testing.assert_allclose(norms, expected, atol=1e-12)


@FLIPS
def test_targets_are_the_loop_over_positions_and_taps(flip):
    source = RotationSource(flip=flip, num_support=1, num_query=2, image_size=5)
    data = source.load()
    task = source.sample_task(data, KEY, jnp.array(0), split="test")
    kernel = np.asarray(source.filters(data, KEY, split="test")).reshape(-1, 3, 3)
    for examples in (task.support, task.query):
        inputs = np.asarray(examples.inputs)[..., 0]
        expected = np.zeros((len(inputs), 3, 3, source.channels))
        for row in range(3):
            for column in range(3):
                window = inputs[:, row : row + 3, column : column + 3]
                for c in range(source.channels):
                    expected[:, row, column, c] = (window * kernel[c]).sum(axis=(1, 2))
        # float32 sums of nine terms of order 1
        np.testing.assert_allclose(examples.targets, expected, atol=1e-5)


@FLIPS
def test_filters_have_the_covariance_of_the_basis(flip):
    source = RotationSource(flip=flip)
    draw = lambda key: source.filters(source.load(), key, split="train")
    kernels = jax.vmap(draw)(jax.random.split(KEY, 4000))
    sample = np.asarray(kernels).reshape(4000, -1)
    basis, std = steerable_basis(flip)
    exact = (flat(basis).T * std**2) @ flat(basis)
    # standard errors: sqrt(2 / 4000) of the largest variance; six of them, as the
    # largest of many entries is compared
    tolerance = 6 * np.sqrt(2 / 4000) * exact.max()
    np.testing.assert_allclose(sample.T @ sample / 4000, exact, atol=tolerance)


def test_default_shapes_are_those_of_the_paper():
    task = RotationSource(flip=True).example
    assert task.support.inputs.shape == (1, 32, 32, 1)
    assert task.support.targets.shape == (1, 30, 30, 48)
    assert task.query.targets.shape == (19, 30, 30, 48)
    assert RotationSource().example.support.targets.shape == (1, 30, 30, 24)


def test_arrays_are_float32_and_the_task_id_is_an_int32_zero():
    task = SMALL.sample_task(SMALL.load(), KEY, jnp.array(0), split="train")
    for examples in (task.support, task.query):
        assert examples.inputs.dtype == examples.targets.dtype == jnp.float32
    assert task.task_id.dtype == jnp.int32
    assert int(task.task_id) == 0


def test_a_slot_draws_the_same_task_whatever_is_drawn_beside_it():
    draw = jax.jit(lambda slots: SMALL.sample(KEY, slots, split="train"))
    everything, some = draw(jnp.array([0, 1, 3])), draw(jnp.array([3, 1, 8]))
    for a, b in zip(jax.tree.leaves(everything), jax.tree.leaves(some), strict=True):
        np.testing.assert_array_equal(a[2], b[0])
        np.testing.assert_array_equal(a[1], b[1])


def test_splits_are_different_streams():
    first = {
        split: float(SMALL.filters(SMALL.load(), KEY, split=split)[0, 0])
        for split in ("train", "validation", "test")
    }
    assert len(set(first.values())) == 3


def test_basis_is_moved_once_even_if_first_asked_for_inside_jit():
    source = RotationSource(image_size=5)
    jax.jit(lambda: 2 * source.load())()
    assert np.isfinite(np.asarray(source.load())).all()  # a tracer would raise
    assert source.load() is source.load()


@pytest.mark.parametrize(("flip", "expected"), [(False, 0.625), (True, 0.5625)])
def test_zero_error_counts_the_weights(flip, expected):
    # three fields x (2 functions x 1/2 x norm 1 + 4 functions x std^2 x norm 2)
    assert RotationSource(flip=flip).zero_error == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_support": 0}, "num_support must be >= 1, got 0"),
        ({"num_query": 0}, "num_query must be >= 1, got 0"),
        ({"image_size": 2}, "image_size must be >= 3, .* got 2"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        RotationSource(**settings)


def test_images_of_several_channels_are_refused(untyped):
    with pytest.raises(ValueError, match=r"got \(1, 5, 5, 2\)"):
        correlate_images(jnp.zeros((1, 5, 5, 2)), jnp.zeros((4, 9)))
