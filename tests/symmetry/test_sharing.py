"""Forms of the symmetry matrix against matrices, permutations and Flax."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxmeta.core.config import from_json, to_json
from jaxmeta.networks.conv import Conv4
from jaxmeta.symmetry.conv4 import MSRConv4
from jaxmeta.symmetry.layers import MSRConv
from jaxmeta.symmetry.sharing import (
    SYMMETRY,
    Kronecker,
    LowRank,
    Sinkhorn,
    soft_permutations,
)

KEY = jax.random.key(0)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
IMAGES = jax.random.normal(jax.random.key(1), (2, 6, 6, 3))


def layer(sharing, features=4, **settings):
    return MSRConv(features=features, kernel_size=(3, 3), sharing=sharing, **settings)


def kernel_of(module, variables):
    """`[out, in, taps]`, as the answer to images with one pixel set shows it."""
    num_in = 3
    pixels = jnp.eye(9 * num_in).reshape(-1, 3, 3, num_in)
    answers = module.apply(variables, pixels)[:, 0, 0]
    return np.asarray(answers).reshape(9, num_in, -1).transpose(2, 1, 0)


@pytest.mark.parametrize(
    "sharing",
    [Kronecker(), Kronecker(learned=False), LowRank(rank=5), Sinkhorn(copies=2)],
)
def test_same_padding_is_that_of_flax(sharing):
    module = layer(sharing, padding="SAME")
    y, variables = module.init_with_output(KEY, IMAGES)
    kernel = kernel_of(dataclasses.replace(module, padding="VALID"), variables)
    flax_kernel = kernel.transpose(2, 1, 0).reshape(3, 3, 3, 4)
    plain = nn.Conv(4, (3, 3), use_bias=False)
    expected = plain.apply({"params": {"kernel": flax_kernel}}, IMAGES)
    np.testing.assert_allclose(y, expected, **CLOSE)


def test_what_is_not_learned_is_not_there():
    variables = layer(Kronecker()).init(KEY, IMAGES)
    plain = {"params": variables["params"]}
    module = layer(Kronecker(learned=False))
    assert set(module.init(KEY, IMAGES)) == {"params"}
    np.testing.assert_allclose(
        module.apply(plain, IMAGES),
        layer(Kronecker()).apply(variables, IMAGES),
        **CLOSE,
    )


def test_low_rank_is_a_matrix_times_v():
    module = layer(LowRank(rank=5))
    variables = module.init(KEY, IMAGES)
    u, v = np.asarray(variables[SYMMETRY]["U"]), np.asarray(variables["params"]["v"])
    assert u.shape == (4 * 3 * 9, 5)
    expected = (u @ v).reshape(4, 3, 9)
    np.testing.assert_allclose(kernel_of(module, variables), expected, **CLOSE)
    np.testing.assert_allclose(u.T @ u, np.eye(5), atol=1e-5)


def test_low_rank_kernels_are_as_large_as_others():
    module = layer(LowRank(rank=20), features=32)
    init = jax.vmap(lambda key: module.init(key, IMAGES))
    variables = init(jax.random.split(KEY, 200))
    kernels = jnp.einsum(
        "nwr,nr->nw", variables[SYMMETRY]["U"], variables["params"]["v"]
    )
    # 200 kernels of 20 normal numbers each.
    assert float(kernels.var()) == pytest.approx(1 / (3 * 27), rel=0.1)


def test_soft_permutations_are_doubly_stochastic():
    logits = 2 * jax.random.normal(KEY, (50, 9, 9))
    s = np.asarray(soft_permutations(logits))
    assert s.min() > 0
    np.testing.assert_allclose(s.sum(-2), 1.0, rtol=1e-5)
    np.testing.assert_allclose(s.sum(-1), 1.0, rtol=0.1)
    more = np.asarray(soft_permutations(logits, 1000))
    np.testing.assert_allclose(more.sum(-1), 1.0, rtol=1e-4)


def test_sure_permutations_make_a_group_convolution():
    # Tap t of the j-th copy is the tap that j quarter turns bring there.
    taps = np.arange(9).reshape(3, 3)
    turns = np.stack([np.eye(9)[np.rot90(taps, j).ravel()] for j in range(4)])
    module = layer(Sinkhorn(copies=4), features=8)
    variables = module.init(KEY, IMAGES)
    variables = {**variables, SYMMETRY: {"S": jnp.asarray(60.0 * turns)}}
    still = module.apply(variables, IMAGES).reshape(2, 4, 4, 4, 2)
    turned = module.apply(variables, jnp.rot90(IMAGES, axes=(1, 2)))
    # Turning the image turns the answers and moves each to the next copy.
    expected = jnp.rot90(jnp.roll(still, 1, axis=3), axes=(1, 2))
    np.testing.assert_allclose(turned.reshape(expected.shape), expected, **CLOSE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LowRank(rank=0), "rank must be >= 1, got 0"),
        (lambda: Sinkhorn(copies=0), "copies must be >= 1, got 0"),
        (lambda: Sinkhorn(copies=2, iterations=0), "iterations must be >= 1, got 0"),
        (lambda: layer(LowRank(rank=109)).init(KEY, IMAGES), "rank must be <= 108"),
        (
            lambda: layer(Sinkhorn(copies=3)).init(KEY, IMAGES),
            r"multiple of copies \(3\), got 4",
        ),
        (lambda: layer(Kronecker(), padding="FULL"), "padding must be one of"),
        (
            lambda: MSRConv(features=1, kernel_size=(2, 3), padding="SAME"),
            r"must be odd with padding SAME, got \(2, 3\)",
        ),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# The network.


def test_at_the_start_it_is_conv4():
    images = jax.random.normal(KEY, (3, 16, 16, 1))
    network = MSRConv4(features=4, num_classes=3)
    logits, variables = network.init_with_output(KEY, images)
    shared = variables["params"]
    plain = {}
    for i in range(4):
        v = shared[f"MSRConv_{i}"]["v"]
        kernel = v.transpose(2, 1, 0).reshape(3, 3, v.shape[1], 4)
        plain[f"Conv3x3_{i}"] = {"kernel": kernel}
        plain[f"BatchNorm_{i}"] = shared[f"BatchNorm_{i}"]
    head = shared["KroneckerMSRDense_0"]
    plain["Dense_0"] = {"kernel": head["W"].T, "bias": head["bias"]}
    expected = Conv4(features=4, num_classes=3).apply(
        {"params": plain, "batch_stats": variables["batch_stats"]}, images
    )
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_the_number_of_symmetry_parameters():
    # Four kernels of 9 taps, 1 and 32 channels in, 32 out; a head from 32 to 5.
    network = MSRConv4(features=32)
    shapes = jax.eval_shape(network.init, KEY, jnp.zeros((1, 28, 28, 1)))
    sizes = {
        name: sum(leaf.size for leaf in jax.tree.leaves(layer))
        for name, layer in shapes[SYMMETRY].items()
    }
    assert sum(sizes[f"MSRConv_{i}"] for i in range(4)) == 7493
    assert sizes["KroneckerMSRDense_0"] == 32**2 + 5**2


def test_the_head_may_be_ordinary():
    network = MSRConv4(features=4, share_head=False)
    shapes = jax.eval_shape(network.init, KEY, jnp.zeros((1, 16, 16, 1)))
    assert "Dense_0" in shapes["params"]
    assert set(shapes[SYMMETRY]) == {f"MSRConv_{i}" for i in range(4)}


def test_a_network_is_its_configuration():
    network = MSRConv4(features=4, sharing=Sinkhorn(copies=2), share_head=False)
    again = from_json(to_json(network))
    assert again == network
    assert hash(again) == hash(network)
