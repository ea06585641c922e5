"""The reparameterised layers against Kronecker products, loops and Flax."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxmeta.networks.patches import PatchConv
from jaxmeta.symmetry.layers import (
    KroneckerMSRDense,
    LocallyConnected,
    MSRConv,
    MSRDense,
    Signal,
)
from jaxmeta.symmetry.sharing import SYMMETRY

KEY = jax.random.key(0)

# Sums of a few dozen float32 products of order 1.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}

SIGNALS = (6,)
IMAGES = (5, 4, 2)
SHARED = [
    (MSRDense(features=4, inner_dim=3, use_bias=True), SIGNALS),
    (KroneckerMSRDense(features=4, use_bias=True), SIGNALS),
    (MSRConv(features=3, kernel_size=(2, 3), use_bias=True), IMAGES),
]
PLAIN = [
    (LocallyConnected(features=2, kernel_size=3), (6, 2)),
    (PatchConv(features=3, kernel_size=(2, 3)), IMAGES),
]


def _normal(shape, seed=0):
    """Normal draws by NumPy, which need no compilation."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _inputs(shape, n=3):
    return _normal((n, *shape), seed=7)


def _random_variables(layer, x):
    """Variables of the right shapes with entries of order 1 everywhere."""
    leaves, tree = jax.tree.flatten(jax.eval_shape(layer.init, KEY, x))
    draws = [_normal(leaf.shape, seed) for seed, leaf in enumerate(leaves)]
    return jax.tree.unflatten(tree, draws)


# What each layer computes.


def test_msr_dense_reshapes_u_v_row_by_row():
    x = _inputs((3,))
    layer = MSRDense(features=2, inner_dim=4, use_bias=True)
    variables = _random_variables(layer, x)
    u = np.asarray(variables[SYMMETRY]["U"])
    v, b = (np.asarray(variables["params"][name]) for name in ("v", "bias"))
    want = np.zeros((3, 2))
    for n, o in np.ndindex(3, 2):
        row = [u[o * 3 + i] @ v for i in range(3)]
        want[n, o] = np.dot(row, x[n]) + b[o]
    np.testing.assert_allclose(layer.apply(variables, x), want, **CLOSE)


def test_kronecker_dense_is_v_of_w_of_u():
    x = _inputs((3,))
    layer = KroneckerMSRDense(features=2, use_bias=True)
    variables = _random_variables(layer, x)
    u, v = variables[SYMMETRY]["U"], variables[SYMMETRY]["V"]
    w, b = variables["params"]["W"], variables["params"]["bias"]
    want = jnp.stack([v @ (w @ (u @ row) + b) for row in x])
    np.testing.assert_allclose(layer.apply(variables, x), want, **CLOSE)


def test_kronecker_dense_is_the_kronecker_product_on_vec():
    layer = KroneckerMSRDense(features=2)
    variables = _random_variables(layer, jnp.eye(3))
    u, v = variables[SYMMETRY]["U"], variables[SYMMETRY]["V"]
    vec = jnp.kron(v, u.T) @ variables["params"]["W"].reshape(-1)
    effective = layer.apply(variables, jnp.eye(3)).T
    np.testing.assert_allclose(effective, vec.reshape(2, 3), **CLOSE)


def test_msr_conv_is_the_kronecker_product_on_vec():
    x = _inputs(IMAGES)
    layer = MSRConv(features=3, kernel_size=(2, 3))
    variables = _random_variables(layer, x)
    a, b, c = (variables[SYMMETRY][name] for name in "ABC")
    v = variables["params"]["v"]
    vec = jnp.kron(jnp.kron(a, b), c) @ v.reshape(-1)
    kernel = jnp.transpose(vec.reshape(v.shape), (2, 1, 0)).reshape(2, 3, 2, 3)
    want = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    # Entries of vec are sums of 36 products of four normals: allow for their size.
    np.testing.assert_allclose(layer.apply(variables, x), want, rtol=1e-4, atol=1e-4)


def test_msr_conv_adds_its_bias_after_the_symmetry():
    x = _inputs((5, 2))
    variables = _random_variables(MSRConv(3, (2,), use_bias=True), x)
    plain = {**variables, "params": {"v": variables["params"]["v"]}}
    difference = MSRConv(3, (2,), use_bias=True).apply(variables, x) - MSRConv(
        3, (2,)
    ).apply(plain, x)
    want = jnp.broadcast_to(variables["params"]["bias"], difference.shape)
    np.testing.assert_allclose(difference, want, **CLOSE)


@pytest.mark.parametrize("use_bias", [False, True])
def test_msr_conv_starts_as_a_patch_conv(use_bias):
    x = _inputs(IMAGES)
    layer = MSRConv(features=3, kernel_size=(2, 3), use_bias=use_bias)
    variables = layer.init(KEY, x)
    params = dict(variables["params"])
    params["kernel"] = params.pop("v")
    plain = PatchConv(features=3, kernel_size=(2, 3), use_bias=use_bias)
    np.testing.assert_allclose(
        layer.apply(variables, x), plain.apply({"params": params}, x), **CLOSE
    )


def test_locally_connected_is_flax_conv_local():
    x = _inputs((6, 2))
    layer = LocallyConnected(features=3, kernel_size=3, use_bias=True)
    variables = _random_variables(layer, x)
    kernel = variables["params"]["kernel"]
    # Flax orders the rows of a local kernel by channel first, then tap.
    flax_kernel = jnp.swapaxes(kernel.reshape(4, 3, 2, 3), 1, 2).reshape(4, 6, 3)
    params = {"kernel": flax_kernel, "bias": variables["params"]["bias"]}
    want = nn.ConvLocal(3, (3,), padding="VALID").apply({"params": params}, x)
    np.testing.assert_allclose(layer.apply(variables, x), want, **CLOSE)


def test_locally_connected_with_equal_kernels_is_a_convolution():
    x = _inputs((6, 2))
    kernel = _normal((3, 2, 3))  # [out, in, taps]
    rows = jnp.transpose(kernel, (2, 1, 0)).reshape(6, 3)
    local = LocallyConnected(features=3, kernel_size=3).apply(
        {"params": {"kernel": jnp.broadcast_to(rows, (4, 6, 3))}}, x
    )
    conv = PatchConv(features=3, kernel_size=(3,)).apply(
        {"params": {"kernel": kernel}}, x
    )
    np.testing.assert_allclose(local, conv, **CLOSE)


# Where they start.


def test_msr_dense_starts_with_the_published_scales():
    layer = MSRDense(features=20, inner_dim=400, use_bias=True)
    variables = layer.init(KEY, jnp.ones((1, 25)))
    # 200,000 and 400 normal draws: deviations within 1 % and 4 standard errors.
    assert float(variables[SYMMETRY]["U"].std()) == pytest.approx(0.01, rel=0.01)
    assert float(variables["params"]["v"].std()) == pytest.approx(1 / 20, rel=0.15)
    assert float(jnp.abs(variables["params"]["bias"]).max()) <= 1 / 5


@pytest.mark.parametrize(
    ("layer", "shape", "bound"),
    [
        (KroneckerMSRDense(features=8, use_bias=True), (25,), 1 / 5),
        (MSRConv(features=8, kernel_size=(3, 3), use_bias=True), (3, 3, 4), 1 / 6),
        (LocallyConnected(features=8, kernel_size=3, use_bias=True), (9, 3), 1 / 3),
    ],
)
def test_filters_start_uniform_within_the_bound_of_their_fan_in(layer, shape, bound):
    params = layer.init(KEY, jnp.ones((1, *shape)))["params"]
    draws = jnp.concatenate([p.reshape(-1) for p in jax.tree.leaves(params)])
    # At least 200 uniform draws: the largest comes within 10 % of the bound.
    assert 0.9 * bound < float(jnp.abs(draws).max()) <= bound


@pytest.mark.parametrize(
    ("layer", "shape"), [(KroneckerMSRDense(4), SIGNALS), (MSRConv(3, (2, 3)), IMAGES)]
)
def test_kronecker_factors_start_as_identities(layer, shape):
    symmetry = layer.init(KEY, jnp.ones((1, *shape)))[SYMMETRY]
    for factor in jax.tree.leaves(symmetry):
        np.testing.assert_array_equal(factor, np.eye(len(factor)))


def test_symmetry_and_filters_are_drawn_independently():
    variables = MSRDense(features=1, inner_dim=3).init(KEY, jnp.ones((1, 1)))
    u, v = variables[SYMMETRY]["U"][0] / 0.01, variables["params"]["v"]
    assert not np.allclose(u, v)


# The partition.


@pytest.mark.parametrize(("layer", "shape"), SHARED)
def test_shared_layers_have_both_collections(layer, shape):
    variables = jax.eval_shape(layer.init, KEY, _inputs(shape))
    assert set(variables) == {"params", SYMMETRY}


@pytest.mark.parametrize(("layer", "shape"), PLAIN)
def test_plain_layers_have_no_symmetry(layer, shape):
    variables = jax.eval_shape(layer.init, KEY, _inputs(shape))
    assert set(variables) == {"params"}


@pytest.mark.parametrize(("layer", "shape"), SHARED)
def test_an_inner_step_on_params_leaves_symmetry_untouched(layer, shape):
    x = _inputs(shape)
    variables = _random_variables(layer, x)

    def inner_loss(params):
        return jnp.mean(layer.apply({**variables, "params": params}, x) ** 2)

    grads = jax.jit(jax.grad(inner_loss))(variables["params"])
    step = lambda p, g: p - 0.1 * g
    adapted = {**variables, "params": jax.tree.map(step, variables["params"], grads)}
    jax.tree.map(np.testing.assert_array_equal, adapted[SYMMETRY], variables[SYMMETRY])
    assert all(bool(jnp.any(g != 0)) for g in jax.tree.leaves(grads))


@pytest.mark.parametrize(("layer", "shape"), SHARED)
def test_the_outer_gradient_reaches_symmetry_through_the_inner_step(layer, shape):
    x = _inputs(shape)
    variables = _random_variables(layer, x)

    def outer_loss(symmetry, frozen_in_query):
        def loss(params, symmetry):
            y = layer.apply({"params": params, SYMMETRY: symmetry}, x)
            return jnp.mean(jnp.tanh(y) ** 2)

        grads = jax.grad(loss)(variables["params"], symmetry)
        fast = jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], grads)
        return loss(fast, frozen_in_query)

    grads = jax.jit(jax.grad(outer_loss))(variables[SYMMETRY], variables[SYMMETRY])
    assert all(bool(jnp.any(g != 0)) for g in jax.tree.leaves(grads))


@pytest.mark.parametrize(("layer", "shape"), SHARED + PLAIN)
def test_apply_is_pure(layer, shape):
    x = _inputs(shape)
    variables = _random_variables(layer, x)
    y, updates = layer.apply(variables, x, mutable=[SYMMETRY, "params"])
    np.testing.assert_array_equal(y, layer.apply(variables, x))
    for collection, tree in updates.items():
        jax.tree.map(np.testing.assert_array_equal, tree, variables[collection])


@pytest.mark.parametrize(("layer", "shape"), SHARED + PLAIN)
def test_vmap_over_fast_weights_is_a_loop(layer, shape):
    x = jnp.stack([_inputs(shape), -_inputs(shape)])
    variables = _random_variables(layer, x[0])
    shared = {k: v for k, v in variables.items() if k != "params"}
    params = jax.tree.map(lambda p: jnp.stack([p, 2.0 * p]), variables["params"])
    apply = lambda params, x: layer.apply({**shared, "params": params}, x)
    got = jax.jit(jax.vmap(apply))(params, x)
    want = [apply(jax.tree.map(lambda p, t=t: p[t], params), x[t]) for t in (0, 1)]
    np.testing.assert_allclose(got, jnp.stack(want), rtol=1e-4, atol=1e-4)


# Plumbing.


@pytest.mark.parametrize(
    "layer",
    [
        MSRConv(features=1, kernel_size=(3,)),
        LocallyConnected(features=1, kernel_size=3),
        PatchConv(features=1, kernel_size=(3,)),
    ],
)
def test_signal_adds_and_removes_the_channel_axis(layer):
    x = _inputs((8,))
    variables = _random_variables(Signal(layer), x)
    inner = {name: tree["layer"] for name, tree in variables.items()}
    want = layer.apply(inner, x[:, :, None])[:, :, 0]
    np.testing.assert_array_equal(Signal(layer).apply(variables, x), want)


@pytest.mark.parametrize(
    "net",
    [
        MSRDense(features=68, inner_dim=3),
        KroneckerMSRDense(features=68),
        Signal(MSRConv(features=1, kernel_size=(3,))),
        Signal(LocallyConnected(features=1, kernel_size=3)),
        Signal(PatchConv(features=1, kernel_size=(3,))),
    ],
)
def test_every_net_takes_the_translation_problem(net):
    y, _ = jax.eval_shape(net.init_with_output, KEY, jnp.ones((2, 70)))
    assert y.shape == (2, 68)


def test_symmetry_of_nested_layers_keeps_their_names():
    net = nn.Sequential([MSRDense(5, 2), nn.relu, MSRDense(3, 2)])
    variables = jax.eval_shape(net.init, KEY, jnp.ones((1, 4)))
    assert set(variables[SYMMETRY]) == {"layers_0", "layers_2"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: MSRDense(features=4, inner_dim=3),
        lambda: KroneckerMSRDense(features=4),
        lambda: MSRConv(features=4, kernel_size=(3, 3)),
        lambda: LocallyConnected(features=4, kernel_size=3),
        lambda: Signal(MSRConv(features=1, kernel_size=(3,))),
    ],
)
def test_modules_can_be_fields_of_frozen_dataclasses(make):
    config = dataclasses.make_dataclass("Config", ["network"], frozen=True)
    assert config(make()) == config(make())
    assert hash(config(make())) == hash(config(make()))


@pytest.mark.parametrize(("layer", "shape"), SHARED + PLAIN)
def test_layers_lower_for_accelerators(layer, shape):
    x = _inputs(shape)
    variables = _random_variables(layer, x)
    lowered = jax.jit(layer.apply).trace(variables, x)
    assert lowered.lower(lowering_platforms=("tpu", "cuda")).as_text()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MSRDense(0, 3), r"features must be at least 1, got 0"),
        (lambda: MSRDense(3, 0), r"inner_dim must be at least 1, got 0"),
        (lambda: KroneckerMSRDense(0), r"features must be at least 1, got 0"),
        (lambda: MSRConv(0, (3,)), r"features must be at least 1, got 0"),
        (lambda: MSRConv(1, (0,)), r"one or two integers >= 1, got \(0,\)"),
        (lambda: LocallyConnected(1, 0), r"kernel_size must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused_at_construction(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_symmetry_made_for_another_input_is_refused():
    layer = MSRDense(features=2, inner_dim=3)
    variables = _random_variables(layer, jnp.ones((1, 6)))
    with pytest.raises(ValueError, match=r"U of shape \(8, 3\), got \(12, 3\)"):
        layer.apply(variables, jnp.ones((1, 4)))


def test_signal_refuses_many_channels():
    net = Signal(PatchConv(features=2, kernel_size=(3,)))
    with pytest.raises(ValueError, match=r"one channel, got shape \(1, 4, 2\)"):
        net.init(KEY, jnp.ones((1, 6)))
