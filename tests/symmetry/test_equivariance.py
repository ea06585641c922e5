"""Equivariance errors of layers that are known to be or not to be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.networks.conv import Conv4
from jaxmeta.symmetry.equivariance import MOTIONS, layer_errors, unexplained_share
from jaxmeta.symmetry.layers import MSRConv
from jaxmeta.symmetry.sharing import SYMMETRY, Sinkhorn

KEY = jax.random.key(0)
IMAGES = jax.random.normal(jax.random.key(1), (16, 16, 16, 1))
each_motion = pytest.mark.parametrize("name", MOTIONS)


@each_motion
def test_motions_undo_themselves(name):
    moved = IMAGES
    for _ in range(4):
        moved = MOTIONS[name](moved)
    np.testing.assert_array_equal(moved, IMAGES)
    assert not np.array_equal(MOTIONS[name](IMAGES), IMAGES)


def error_of(layer, variables, name):
    motion = MOTIONS[name]
    answer = lambda x: layer.apply(variables, x)
    return unexplained_share(answer(IMAGES), answer(motion(IMAGES)), motion)


@each_motion
def test_a_group_convolution_has_none(name):
    # All eight ways to lay a square upon itself, of two filters.
    taps = np.arange(9).reshape(3, 3)
    moved = [np.rot90(side, k) for side in (taps, taps.T) for k in range(4)]
    permutations = np.stack([np.eye(9)[m.ravel()] for m in moved])
    layer = MSRConv(
        features=16, kernel_size=(3, 3), padding="SAME", sharing=Sinkhorn(copies=8)
    )
    variables = {
        **layer.init(KEY, IMAGES),
        SYMMETRY: {"S": jnp.asarray(60.0 * permutations)},
    }
    assert error_of(layer, variables, name) < 1e-9


@each_motion
def test_filters_at_random_have_much(name):
    layer = MSRConv(features=4, kernel_size=(3, 3), padding="SAME")
    assert error_of(layer, layer.init(KEY, IMAGES), name) > 0.1


def test_what_is_left_of_a_sum_is_its_share():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 32, 32, 2))
    noise = rng.normal(size=x.shape)
    same = lambda x: x
    error = unexplained_share(jnp.asarray(x), jnp.asarray(3 * x + noise), same)
    # Variances 9 and 1, over 4,096 points.
    assert error == pytest.approx(0.1, abs=0.01)


def test_every_layer_of_a_network():
    network = Conv4(features=3, num_blocks=2)
    variables = jax.jit(network.init)(KEY, IMAGES)
    errors = layer_errors(network, variables, IMAGES)
    assert set(errors) == set(MOTIONS)
    for values in errors.values():
        assert len(values) == 2
        assert all(0 < value < 1 for value in values)


def test_symmetric_kernels_make_no_error_in_any_layer():
    network = Conv4(features=3)
    images = jax.random.normal(KEY, (40, 28, 28, 1))
    variables = jax.jit(network.init)(KEY, images)

    def symmetric(kernel):
        turned = [jnp.rot90(kernel, k) for k in range(4)]
        return sum(turned) + sum(jnp.flip(t, 0) for t in turned)

    params = {
        name: {"kernel": symmetric(layer["kernel"])} if "Conv" in name else layer
        for name, layer in variables["params"].items()
    }
    errors = layer_errors(network, {"params": params}, images)
    assert len(errors["half turn"]) == 4
    assert max(max(values) for values in errors.values()) < 1e-6
