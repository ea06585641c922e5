import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from jaxmeta.data.rotation import RotationSource, steerable_basis
from jaxmeta.data.translation import TranslationSource
from jaxmeta.symmetry.floor import one_step_floor, rotation_floor, translation_floor


def regression_error(weights, gradients, metric):
    """Query error of the best linear read-out of `gradients`, and its standard error.

    Fitted on one half of the tasks and measured on the other, so it has no optimism.
    """
    half = len(weights) // 2
    readout, *_ = np.linalg.lstsq(gradients[:half], weights[:half], rcond=None)
    left = weights[half:] - gradients[half:] @ readout
    errors = np.einsum("ni,ij,nj->n", left, metric, left)
    return errors.mean(), errors.std() / np.sqrt(len(errors))


def flat(basis):
    return basis.reshape(len(basis), -1)


def agree(floor, error, standard_error):
    # five standard errors, plus what fitting a read-out to a finite sample costs, which
    # is of relative order columns / tasks < .2 %
    assert 5 * standard_error < 0.1 * floor, "the check is too weak to mean anything"
    assert abs(error - floor) < 5 * standard_error + 0.002 * floor


def translation_tasks(mixing, kernel_size, count):
    rng = np.random.default_rng(0)
    positions, rank = mixing.shape
    basis = rng.standard_normal((count, rank, kernel_size))
    inputs = rng.standard_normal((count, positions + kernel_size - 1))
    windows = sliding_window_view(inputs, kernel_size, axis=1)
    targets = np.einsum("pk,nkj,npj->np", mixing, basis, windows, optimize=True)
    return basis.reshape(count, -1), inputs, windows, targets


@pytest.mark.parametrize(("positions", "rank"), [(68, 1), (68, 2), (6, 1), (6, 2)])
def test_translation_floor_is_the_error_of_a_regression(positions, rank):
    logits = np.random.default_rng(1).standard_normal((positions, rank))
    mixing = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    weights, _, windows, targets = translation_tasks(mixing, 3, 20_000)
    gradients = np.einsum("pk,np,npj->nkj", mixing, targets, windows, optimize=True)
    metric = np.kron(mixing.T @ mixing / positions, np.eye(3))
    fit = regression_error(weights, gradients.reshape(len(weights), -1), metric)
    agree(translation_floor(mixing), *fit)


@pytest.mark.parametrize(("flip", "image_size"), [(False, 5), (True, 5), (False, 7)])
def test_rotation_floor_is_the_error_of_a_regression(flip, image_size):
    rng = np.random.default_rng(0)
    basis, std = steerable_basis(flip)
    weights = std * rng.standard_normal((20_000, 18))
    images = rng.standard_normal((len(weights), image_size, image_size))
    windows = sliding_window_view(images, (3, 3), axis=(1, 2))
    windows = windows.reshape(len(weights), -1, 9)
    moments = windows.swapaxes(1, 2) @ windows
    kernels = np.tensordot(weights, basis, axes=1)
    gradients = (kernels @ moments).reshape(len(weights), -1) @ flat(basis).T
    metric = flat(basis) @ flat(basis).T / basis.shape[1]
    agree(
        rotation_floor(basis, std, image_size),
        *regression_error(weights, gradients, metric),
    )


def test_one_number_seen_through_one_tap():
    # G = x^2: E[G] = 1 and E[G^2] = 3, so the floor is 1 - 1/3
    assert translation_floor(np.ones((1, 1)), 1) == pytest.approx(2 / 3, rel=1e-12)
    centre = np.zeros((1, 1, 9))
    centre[0, 0, 4] = 1.0
    assert rotation_floor(centre, [1.0], 3) == pytest.approx(2 / 3, rel=1e-12)


def test_independent_positions_average():
    # G is the mean of four independent squares: E[G^2] = 1 + 2/4, floor 1 - 1/1.5
    assert translation_floor(np.ones((4, 1)), 1) == pytest.approx(1 / 3, rel=1e-12)
    centre = np.zeros((1, 1, 9))
    centre[0, 0, 4] = 1.0
    assert rotation_floor(centre, [1.0], 4) == pytest.approx(1 / 3, rel=1e-12)


def test_two_overlapping_windows_by_hand():
    # E[G G] = (1 + 4/2) I, plus 1/4 between the outer taps, which meet in the middle
    expected = 3 - (1 / 3 + 1 / 3.25 + 1 / 2.75)
    assert translation_floor(np.ones((2, 1))) == pytest.approx(expected, rel=1e-12)


def test_rank_1_is_near_the_formula_without_overlaps():
    noise = 4 / 68
    expected = 3 * noise / (1 + noise)
    # the overlaps are a correction of second order: (1/68)^2
    assert one_step_floor(TranslationSource()) == pytest.approx(expected, abs=0.0005)


@pytest.mark.parametrize(
    ("source", "low", "high"),
    [
        # over draws of the mixing matrix
        (TranslationSource(rank=2), 0.19, 0.22),
        (TranslationSource(rank=5), 0.18, 0.26),
        (RotationSource(), 0.0025, 0.0026),
        (RotationSource(flip=True), 0.0021, 0.0022),
    ],
)
def test_floors_of_the_papers_problems(source, low, high):
    assert low < one_step_floor(source) < high


def test_a_redundant_basis_changes_nothing():
    basis, std = steerable_basis()
    twice = np.concatenate([basis, basis])
    split = np.concatenate([std, std]) * np.sqrt(0.5)
    expected = rotation_floor(basis, std, 8)
    assert rotation_floor(twice, split, 8) == pytest.approx(expected, rel=1e-6)


def test_larger_support_images_help():
    floors = [one_step_floor(RotationSource(image_size=size)) for size in (3, 5, 8, 32)]
    assert floors == sorted(floors, reverse=True)
    assert floors[0] < RotationSource().zero_error


def test_a_read_out_of_the_whole_weight_matrix_may_go_below():
    weights, inputs, _, targets = translation_tasks(np.ones((68, 1)), 3, 40_000)
    diagonals = [
        np.sum(targets[:, max(0, -d) : 70 - d] * inputs[:, max(0, d) : 68 + d], axis=1)
        for d in range(-6, 9)
    ]
    error, standard_error = regression_error(
        weights, np.stack(diagonals, axis=1), np.eye(3)
    )
    # measured .148 against .166, with a standard error of .002
    assert error + 5 * standard_error < translation_floor(np.ones((68, 1)))


@pytest.mark.parametrize(
    "source", [TranslationSource(num_support=2), RotationSource(num_support=2)]
)
def test_more_than_one_support_example_is_refused(source):
    with pytest.raises(ValueError, match="num_support must be 1, got 2"):
        one_step_floor(source)


def test_other_sources_are_refused(untyped):
    with pytest.raises(TypeError, match="got int"):
        one_step_floor(3)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("shape", [(18, 24), (18, 24, 8), (17, 24, 9)])
def test_a_basis_of_the_wrong_shape_is_refused(shape):
    with pytest.raises(ValueError, match="got shapes"):
        rotation_floor(np.ones(shape), np.ones(18), 32)


def test_an_image_smaller_than_the_kernel_is_refused():
    with pytest.raises(ValueError, match="image_size must be >= 3"):
        rotation_floor(np.ones((1, 1, 9)), np.ones(1), 2)


def test_a_mixing_vector_is_refused():
    with pytest.raises(ValueError, match=r"got shape \(68,\)"):
        translation_floor(np.ones(68))
