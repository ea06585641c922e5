"""Proposition 1, exactly; and the distances between symmetries."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.symmetry.groups import (
    cyclic_shifts,
    dihedral_4,
    equivariant_sharing,
    permutations,
    regular_representation,
    sharing_matrix,
    translation_sharing,
)
from jaxmeta.symmetry.layers import MSRDense
from jaxmeta.symmetry.sharing import SYMMETRY
from jaxmeta.symmetry.structure import (
    equivariance_error,
    explained_sharing,
    principal_angles,
    weight_matrix,
)

RNG = np.random.default_rng(0)
V3, V5, V70 = (RNG.normal(size=n).astype(np.float32) for n in (3, 5, 70))

# Relative rounding of float32 sums of at most 70 products: Proposition 1 is exact.
EXACT = 1e-6

GROUPS = {
    "S_2": permutations(2),
    "S_3": permutations(3),
    "C_1": cyclic_shifts(1),
    "C_6": cyclic_shifts(6),
    "D_4": dihedral_4(3),
}
each_group = pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS.keys())


def _layer(symmetry_matrix, v, num_out):
    """An `MSRDense` that holds this `U` and this `v`."""
    layer = MSRDense(features=num_out, inner_dim=len(v))
    variables = {
        "params": {"v": jnp.asarray(v)},
        SYMMETRY: {"U": jnp.asarray(symmetry_matrix, jnp.float32)},
    }
    return lambda x: layer.apply(variables, x)


def _acting(matrix):
    return lambda x: x @ jnp.asarray(matrix.T, jnp.float32)


# Proposition 1.


@each_group
def test_proposition_1_every_filter_gives_an_equivariant_layer(group):
    m, n, _ = group.shape
    x = RNG.normal(size=(4, n)).astype(np.float32)
    for _ in range(3):
        v = RNG.normal(size=n).astype(np.float32)
        apply_fn = _layer(sharing_matrix(group), v, m)
        for g, left in zip(group, regular_representation(group), strict=True):
            assert equivariance_error(apply_fn, _acting(g), _acting(left), x) < EXACT


@each_group
def test_outputs_are_the_group_convolution(group):
    m, n, _ = group.shape
    x, v = RNG.normal(size=(2, n)).astype(np.float32)
    got = _layer(sharing_matrix(group), v, m)(jnp.asarray(x[None]))[0]
    want = [np.dot(g @ v, x) for g in group]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@each_group
def test_proposition_1_is_all_equivariant_layers(group):
    """The converse: no layer with these symmetries lies outside the span of U^G."""
    all_maps = equivariant_sharing(group, regular_representation(group))
    u = sharing_matrix(group)
    assert all_maps.shape[1] == np.linalg.matrix_rank(u)
    # Double precision, but the cosine of a small angle: half of its digits.
    assert principal_angles(all_maps, u).max() < 1e-6


@each_group
def test_a_random_layer_is_not_equivariant(group):
    m, n, _ = group.shape
    u, v = RNG.normal(size=(m * n, 3)), RNG.normal(size=3).astype(np.float32)
    x = RNG.normal(size=(4, n)).astype(np.float32)
    for g, left in list(zip(group, regular_representation(group), strict=True))[1:]:
        error = equivariance_error(_layer(u, v, m), _acting(g), _acting(left), x)
        assert error > 0.1


def test_swap_shares_as_in_the_paper_s_figure():
    w = weight_matrix(sharing_matrix(permutations(2)), jnp.array([1.0, 2.0]), 2, 2)
    np.testing.assert_array_equal(w, [[1.0, 2.0], [2.0, 1.0]])


def test_cyclic_sharing_is_a_circulant():
    n = 5
    w = weight_matrix(sharing_matrix(cyclic_shifts(n)), V5, n, n)
    for i, j in np.ndindex(n, n):
        assert float(w[i, j]) == V5[(j - i) % n]


def test_translation_sharing_is_a_convolution():
    x = RNG.normal(size=(2, 9)).astype(np.float32)
    w = weight_matrix(translation_sharing(9, 3), V3, 7, 9)
    want = [np.correlate(row, V3, mode="valid") for row in x]
    np.testing.assert_allclose(x @ w.T, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [1, 5])
def test_translation_sharing_is_equivariant_in_the_interior(shift):
    apply_fn = _layer(translation_sharing(70, 3), V3, 68)
    roll = functools.partial(jnp.roll, shift=shift, axis=-1)
    x = RNG.normal(size=(4, 70)).astype(np.float32)
    assert equivariance_error(apply_fn, roll, roll, x, border=shift) < EXACT
    assert equivariance_error(apply_fn, roll, roll, x) > 0.01


def test_mixing_gives_every_position_its_own_mixture_of_kernels():
    mixing = RNG.dirichlet(np.ones(2), size=5)  # [position, rank]
    kernels = RNG.normal(size=(2, 3))
    u = translation_sharing(7, 3, mixing)
    w = np.asarray(u @ kernels.reshape(-1)).reshape(5, 7)
    for p in range(5):
        row = np.zeros(7)
        row[p : p + 3] = mixing[p] @ kernels
        np.testing.assert_allclose(w[p], row, atol=1e-12)  # double precision


def test_one_equal_mixture_is_a_convolution():
    np.testing.assert_array_equal(
        translation_sharing(7, 3, np.ones((5, 1))), translation_sharing(7, 3)
    )


# The groups.


@each_group
def test_builders_start_with_the_identity(group):
    np.testing.assert_array_equal(group[0], np.eye(group.shape[-1]))


@each_group
def test_regular_representation_is_a_homomorphism(group):
    left = regular_representation(group)
    for a, b in np.ndindex(len(group), len(group)):
        (ab,) = np.flatnonzero([np.array_equal(group[a] @ group[b], g) for g in group])
        np.testing.assert_array_equal(left[a] @ left[b], left[ab])


def test_regular_representation_moves_h_g_to_g():
    group = dihedral_4(2)
    for h, g in np.ndindex(8, 8):
        moved = regular_representation(group)[h] @ np.eye(8)[g]
        np.testing.assert_array_equal(group[moved.argmax()], group[h] @ group[g])


def test_dihedral_elements_are_those_of_numpy():
    image = RNG.normal(size=(3, 3))
    for f, r in np.ndindex(2, 4):
        want = np.rot90(np.fliplr(image) if f else image, r)
        got = (dihedral_4(3)[4 * f + r] @ image.reshape(-1)).reshape(3, 3)
        np.testing.assert_array_equal(got, want)


def test_image_to_image_layers_commute_with_the_dihedral_group():
    group = dihedral_4(3)
    u = equivariant_sharing(group, group)
    v = RNG.normal(size=u.shape[1]).astype(np.float32)
    x = RNG.normal(size=(4, 9)).astype(np.float32)
    for g in group:
        error = equivariance_error(_layer(u, v, 9), _acting(g), _acting(g), x)
        assert error < EXACT


def test_permutation_equivariant_layers_have_two_parameters():
    u = equivariant_sharing(permutations(4), permutations(4))
    deep_sets = np.stack([np.eye(4).reshape(-1), np.ones(16)], axis=1)
    assert u.shape == (16, 2)
    assert explained_sharing(u, deep_sets) == pytest.approx(1.0)


def test_no_equivariant_map_gives_an_empty_basis():
    sign = np.array([[[1.0]], [[-1.0]]])
    trivial = np.ones((2, 1, 1))
    assert equivariant_sharing(sign, trivial).shape == (1, 0)


# Distances.


def test_principal_angles_are_ascending_and_known():
    a = np.eye(4)[:, :2]
    b = np.array([[1.0, 0, 0, 0], [0, np.cos(0.3), np.sin(0.3), 0]]).T
    np.testing.assert_allclose(principal_angles(a, b), [0.0, 0.3], atol=1e-7)


def test_principal_angles_ignore_the_basis():
    a = RNG.normal(size=(8, 3))
    change = RNG.normal(size=(3, 3))
    # The sine of the angle is computed to double precision.
    assert principal_angles(a, a @ change).max() < 1e-6


def test_explained_sharing_is_the_mean_squared_cosine():
    a, b = RNG.normal(size=(2, 9, 3))
    want = np.mean(np.cos(principal_angles(a, b)) ** 2)
    assert explained_sharing(a, b) == pytest.approx(want)


def test_missing_directions_count_as_right_angles():
    true = np.eye(4)[:, :3]
    assert explained_sharing(np.eye(4)[:, :1], true) == pytest.approx(1 / 3)


def test_extra_directions_cost_nothing():
    assert explained_sharing(np.eye(6)[:, :5], np.eye(6)[:, :2]) == pytest.approx(1.0)


def test_an_untrained_layer_explains_only_its_share_of_the_space():
    true = translation_sharing(12, 3)  # 3 of 120 dimensions
    u = MSRDense(10, 3).init(jax.random.key(0), jnp.ones((1, 12)))[SYMMETRY]["U"]
    assert explained_sharing(u, true) < 0.1  # 3/120 on average


def test_explained_sharing_takes_device_arrays():
    true = translation_sharing(6, 2)
    u = jnp.asarray(true, jnp.float32) * 0.01
    assert explained_sharing(u, true) == pytest.approx(1.0)


def test_equivariance_error_is_relative():
    x = RNG.normal(size=(3, 4)).astype(np.float32)
    negate, keep = (lambda y: -y), (lambda y: y)
    error = equivariance_error(lambda y: 5.0 * y, negate, keep, x)
    assert float(error) == pytest.approx(2.0, rel=1e-6)  # one rounding


def test_equivariance_error_leaves_out_the_border_of_images():
    image = RNG.normal(size=(2, 6, 6, 1)).astype(np.float32)
    shift = functools.partial(jnp.roll, shift=1, axis=1)
    gradient = lambda x: x[:, 1:] - x[:, :-1]
    inside = equivariance_error(gradient, shift, shift, image, border=1, axes=(-3, -2))
    assert float(inside) == 0.0


def test_equivariance_error_runs_under_jit():
    error = jax.jit(lambda x: equivariance_error(jnp.abs, jnp.negative, jnp.abs, x))
    assert float(error(jnp.ones(3))) == 0.0


# Refusals.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cyclic_shifts(0), r"n must be at least 1, got 0"),
        (lambda: permutations(0), r"n must be at least 1, got 0"),
        (lambda: permutations(8), r"n must be at most 7, got 8"),
        (lambda: dihedral_4(1), r"size must be at least 2, got 1"),
        (lambda: sharing_matrix(np.eye(2)), r"\[m, n, n\], got shape \(2, 2\)"),
        (lambda: sharing_matrix(2 * permutations(2)), r"must be orthogonal"),
        (lambda: regular_representation(permutations(3)[:4]), r"4 matrices is missing"),
        (lambda: regular_representation(np.ones((2, 1, 1))), r"or there twice"),
        (
            lambda: equivariant_sharing(permutations(2), permutations(3)),
            r"same elements, got 2 and 6",
        ),
        (
            lambda: equivariant_sharing(cyclic_shifts(6), permutations(3)),
            r"two actions of one group",
        ),
        (lambda: translation_sharing(4, 5), r"in 1\.\.4 \(input_size\), got 5"),
        (
            lambda: translation_sharing(4, 2, np.ones((4, 1))),
            r"\[3, rank\], got shape \(4, 1\)",
        ),
        (lambda: weight_matrix(np.ones((6, 2)), np.ones(3), 2, 3), r"\(6, 2\) and"),
        (lambda: weight_matrix(np.ones((6, 2)), np.ones(2), 2, 2), r"\[2 \* 2, k\]"),
        (lambda: principal_angles(np.eye(3), np.eye(2)), r"\(3, 3\) and \(2, 2\)"),
        (lambda: explained_sharing(np.eye(3), np.zeros((3, 1))), r"must not be zero"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("border", "message"), [(-1, r"at least 0, got -1"), (2, r"of size 4, got 2")]
)
def test_borders_that_make_no_sense_are_refused(border, message):
    keep = lambda y: y
    with pytest.raises(ValueError, match=message):
        equivariance_error(keep, keep, keep, np.ones((1, 4)), border=border)
