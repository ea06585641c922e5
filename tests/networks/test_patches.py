"""Convolution from patches against naive loops and XLA's own convolution."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxmeta.networks.patches import (
    PatchConv,
    check_kernel_size,
    correlate,
    fan_in_uniform,
    patches,
)

KEY = jax.random.key(0)
SIZES = [((3,), (7,)), ((1,), (4,)), ((4,), (4,)), ((2, 3), (5, 4)), ((1, 1), (2, 3))]

# Sums of at most 12 float32 products of order 1: a few units in the last place.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def _xla_conv(x, kernel, kernel_size):
    letters = "HW"[: len(kernel_size)]
    kernel = jnp.transpose(kernel, (2, 1, 0))
    return jax.lax.conv_general_dilated(
        x,
        kernel.reshape(*kernel_size, *kernel.shape[1:]),
        window_strides=(1,) * len(kernel_size),
        padding="VALID",
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
    )


def _normal(*shape, seed=0):
    """Normal draws by NumPy, which need no compilation."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _data(kernel_size, spatial, features=3, channels=2):
    x = _normal(2, *spatial, channels)
    return x, _normal(features, channels, math.prod(kernel_size), seed=1)


@pytest.mark.parametrize(("kernel_size", "spatial"), SIZES)
def test_patches_are_the_windows_in_row_major_order(kernel_size, spatial):
    x = np.asarray(_data(kernel_size, spatial)[0])
    got = patches(jnp.asarray(x), kernel_size)
    positions = [s - k + 1 for s, k in zip(spatial, kernel_size, strict=True)]
    assert got.shape == (2, *positions, math.prod(kernel_size) * 2)
    for corner in itertools.product(*map(range, positions)):
        span = zip(corner, kernel_size, strict=True)
        window = x[(slice(None), *(slice(c, c + k) for c, k in span))]
        np.testing.assert_array_equal(
            got[(slice(None), *corner)], window.reshape(2, -1)
        )


@pytest.mark.parametrize(("kernel_size", "spatial"), SIZES)
def test_correlate_is_the_convolution_of_xla(kernel_size, spatial):
    x, kernel = _data(kernel_size, spatial)
    np.testing.assert_allclose(
        correlate(x, kernel, kernel_size), _xla_conv(x, kernel, kernel_size), **CLOSE
    )


def test_correlate_is_a_naive_loop():
    x, kernel = (np.asarray(a) for a in _data((2, 2), (3, 3)))
    want = np.zeros((2, 2, 2, 3))
    for n, p, q, o, c, s, t in np.ndindex(2, 2, 2, 3, 2, 2, 2):
        want[n, p, q, o] += kernel[o, c, 2 * s + t] * x[n, p + s, q + t, c]
    got = correlate(jnp.asarray(x), jnp.asarray(kernel), (2, 2))
    np.testing.assert_allclose(got, want, **CLOSE)


def test_gradients_are_those_of_the_convolution_of_xla():
    x, kernel = _data((3, 3), (5, 5))

    def grads(conv):
        loss = lambda x, kernel: jnp.mean(conv(x, kernel, (3, 3)) ** 2)
        return jax.jit(jax.grad(loss, argnums=(0, 1)))(x, kernel)

    for got, want in zip(grads(correlate), grads(_xla_conv), strict=True):
        np.testing.assert_allclose(got, want, **CLOSE)


def test_vmap_over_kernels_is_a_loop_over_kernels():
    x, kernels = _normal(4, 2, 5, 5, 2), _normal(4, 3, 2, 9, seed=1)
    one_task = jax.jit(lambda x, kernel: correlate(x, kernel, (3, 3)))
    got = jax.jit(jax.vmap(one_task))(x, kernels)
    want = jnp.stack([one_task(x[t], kernels[t]) for t in range(4)])
    np.testing.assert_allclose(got, want, **CLOSE)


def test_vmap_over_kernels_makes_no_convolution():
    x, kernel = _data((3, 3), (5, 5))
    fn = jax.vmap(lambda x, k: correlate(x, k, (3, 3)))
    text = jax.jit(fn).lower(x[None], kernel[None]).as_text()
    assert "convolution" not in text


def test_patch_conv_is_flax_conv():
    x, _ = _data((2, 3), (5, 4))
    layer = PatchConv(features=3, kernel_size=(2, 3), use_bias=True)
    params = layer.init(KEY, x)["params"]
    flax_kernel = jnp.transpose(params["kernel"], (2, 1, 0)).reshape(2, 3, 2, 3)
    want = nn.Conv(3, (2, 3), padding="VALID").apply(
        {"params": {"kernel": flax_kernel, "bias": params["bias"]}}, x
    )
    np.testing.assert_allclose(layer.apply({"params": params}, x), want, **CLOSE)


def test_patch_conv_starts_within_the_bound_of_its_fan_in():
    layer = PatchConv(features=64, kernel_size=(3, 3), use_bias=True)
    params = layer.init(KEY, jnp.ones((1, 3, 3, 4)))["params"]
    bound = 1 / 6  # 4 channels of 9 taps
    assert jnp.abs(params["kernel"]).max() <= bound
    assert jnp.abs(params["bias"]).max() <= bound
    # 2304 uniform draws: the sample deviation is within 3 % of bound / sqrt(3).
    assert float(params["kernel"].std()) == pytest.approx(bound / 3**0.5, rel=0.03)


def test_patch_conv_has_no_bias_unless_asked():
    params = PatchConv(features=1, kernel_size=(2,)).init(KEY, jnp.ones((1, 3, 1)))
    assert set(params["params"]) == {"kernel"}


def test_equal_settings_make_equal_modules():
    a, b = (PatchConv(features=2, kernel_size=(3, 3)) for _ in range(2))
    assert a == b
    assert hash(a) == hash(b)


def test_fan_in_uniform_draws_the_dtype_asked_for():
    assert fan_in_uniform(9)(KEY, (2,), jnp.bfloat16).dtype == jnp.bfloat16


def test_fan_in_below_one_is_refused():
    with pytest.raises(ValueError, match=r"fan_in must be at least 1, got 0"):
        fan_in_uniform(0)


@pytest.mark.parametrize("kernel_size", [(), (0,), (3, -1), (2, 2, 2)])
def test_kernel_sizes_out_of_range_are_refused(kernel_size):
    with pytest.raises(ValueError, match=r"one or two integers >= 1"):
        check_kernel_size(kernel_size)


def test_a_list_is_refused_because_it_has_no_hash():
    with pytest.raises(TypeError, match=r"tuple"):
        PatchConv(features=1, kernel_size=[3, 3])  # pyright: ignore


def test_no_features_are_refused():
    with pytest.raises(ValueError, match=r"features must be at least 1, got 0"):
        PatchConv(features=0, kernel_size=(3,))


def test_a_missing_channel_axis_is_named():
    with pytest.raises(ValueError, match=r"1 spatial axes, got shape \(2, 7\)"):
        patches(jnp.ones((2, 7)), (3,))


def test_a_kernel_larger_than_the_input_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 3\) exceeds the input's \(5, 2\)"):
        patches(jnp.ones((1, 5, 2, 1)), (3, 3))


def test_a_kernel_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"be \[out, 1, 9\], got shape \(2, 1, 4\)"):
        correlate(jnp.ones((1, 5, 5, 1)), jnp.ones((2, 1, 4)), (3, 3))
