import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arm_reference import (
    close,
    moments,
    plain_classifier,
    plain_context,
    shaken,
    tensor,
    torch_network,
)

from jaxmeta.networks.conv import max_pool_2x2
from jaxmeta.networks.convnet import ContextNet, Conv5x5, ConvNet
from jaxmeta.networks.norm import OWN, STORED, TRAINING

X = 1.0 + 2.0 * jax.random.normal(jax.random.key(0), (5, 18, 16, 2))
NETWORKS = {
    "large": ConvNet(num_classes=3, width=4),
    "small": ConvNet(num_classes=3, width=3, large=False),
    "context": ContextNet(channels=2, width=3),
}


@functools.cache
def variables(name):
    """Parameters and statistics near those of a new network: none is 0 or 1."""
    found = jax.jit(NETWORKS[name].init)(jax.random.key(1), X)
    return {
        "params": shaken(found["params"], 2, size=0.2),
        "batch_stats": shaken(found["batch_stats"], 3),
    }


def run(name, statistics, x=X, mask=None):
    """What the network says (logits, or contexts) and its next statistics."""
    apply = jax.jit(functools.partial(NETWORKS[name].apply, mutable=["batch_stats"]))
    said, updated = apply(variables(name), x, statistics, mask)
    return said if name == "context" else said.logits, updated["batch_stats"]


# --- sizes ----------------------------------------------------------------------------


def count(network, *shape):
    """How many parameters there are, without making any."""
    made = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((2, *shape)))
    return sum(leaf.size for leaf in jax.tree.leaves(made["params"]))


@pytest.mark.parametrize(
    ("num_classes", "shape", "expected"),
    [
        (62, (28, 28, 1), 861_814),
        (10, (28, 28, 1), 851_362),
        (10, (32, 32, 3), 857_762),
    ],
)
def test_parameters_of_erm(num_classes, shape, expected):
    assert count(ConvNet(num_classes=num_classes), *shape) == expected


@pytest.mark.parametrize(
    ("num_classes", "shape", "channels", "main", "context"),
    [
        (62, (28, 28, 1), 1, 455_030, 105_985),
        (10, (28, 28, 1), 12, 479_778, 123_596),
        (10, (32, 32, 3), 3, 457_378, 112_387),
    ],
)
def test_parameters_of_arm_cml(num_classes, shape, channels, main, context):
    *sides, colours = shape
    network = ConvNet(num_classes=num_classes, large=False)
    assert count(network, *sides, colours + channels) == main
    assert count(ContextNet(channels=channels), *shape) == context


def test_shapes():
    of = lambda name: jax.eval_shape(NETWORKS[name].apply, variables(name), X, STORED)
    assert of("large").logits.shape == (5, 3)
    assert of("large").features.shape == (5, 200)
    assert of("context").shape == (5, 18, 16, 2)


def test_features_are_what_the_last_layer_reads():
    outputs = jax.jit(NETWORKS["small"].apply)(variables("small"), X, STORED)
    last = jax.tree.map(np.asarray, variables("small")["params"]["Dense_1"])
    expected = np.asarray(outputs.features) @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-5, atol=1e-5)
    assert float(outputs.features.min()) == 0.0  # after the relu


# --- initial values -------------------------------------------------------------------


def test_initial_values_are_those_of_torch():
    # U(-b, b) with b = 1/sqrt(fan in), of weights and of biases.
    network = ConvNet(num_classes=62, width=32)
    start = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    params = start["params"]
    bounds = {
        ("_Block_0", "Conv5x5_0"): 1 / np.sqrt(25 * 3),
        ("_Block_1", "Conv5x5_0"): 1 / np.sqrt(25 * 32),
        ("_Block_2", "Conv5x5_0"): 1 / np.sqrt(25 * 32),
        ("Dense_0",): 1 / np.sqrt(32),
        ("Dense_1",): 1 / np.sqrt(200),
    }
    for path, bound in bounds.items():
        layer = functools.reduce(lambda tree, name: tree[name], path, params)
        for name, least in (("kernel", 0.99), ("bias", 0.85)):
            leaf = np.asarray(layer[name])
            assert least * bound < np.abs(leaf).max() <= bound
        # Of a uniform draw of at least 2,400 numbers; 5 standard errors are 0.02.
        np.testing.assert_allclose(layer["kernel"].std(), bound / np.sqrt(3), rtol=0.04)
        assert abs(float(layer["kernel"].mean())) < 0.06 * bound


def test_one_convolution():
    layer = Conv5x5(features=3, padding="VALID")
    found = layer.init(jax.random.key(0), X)
    x, kernel = np.asarray(X, np.float64), np.asarray(found["params"]["kernel"])
    corner = np.einsum("nabc,abco->no", x[:, -5:, -5:], kernel)
    y = layer.apply(found, X)
    assert y.shape == (5, 14, 12, 3)
    np.testing.assert_allclose(
        y[:, -1, -1], corner + np.asarray(found["params"]["bias"]), atol=1e-4
    )


# --- forward passes -------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("statistics", [TRAINING, STORED, OWN])
def test_agrees_with_plain_formulas(name, statistics):
    params, stats = variables(name)["params"], variables(name)["batch_stats"]
    plain = plain_context if name == "context" else plain_classifier
    said, *_, seen = plain(params, X, stats if statistics is STORED else None)
    got, after = run(name, statistics)
    close(got, said, rtol=1e-5)
    keep = statistics.keep
    close(after, jax.tree.map(lambda a, b: (1 - keep) * a + keep * b, stats, seen))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("training", [True, False])
def test_agrees_with_torch(name, training):
    params, stats = variables(name)["params"], variables(name)["batch_stats"]
    network = torch_network(params, stats).train(training)
    expected = network(tensor(X)).detach().numpy()
    got, after = run(name, TRAINING if training else STORED)
    close(got, expected)
    for block, norm in after.items():
        theirs = getattr(network, block)["BatchNorm_0"]
        close(norm["BatchNorm_0"]["mean"], theirs.running_mean.numpy())


@pytest.mark.parametrize("name", NETWORKS)
def test_padding_does_not_count(name):
    mask = jnp.array([True, False, True, True, False])
    x = jnp.where(mask.reshape(5, 1, 1, 1), X, jnp.nan)
    real = np.flatnonzero(mask)
    expected, kept = run(name, TRAINING, X[real])
    got, after = run(name, TRAINING, x, mask)
    close(got[real], expected, rtol=1e-5)
    close(after, kept, rtol=1e-5)


def test_an_odd_row_is_dropped_in_pooling():
    # 17 -> conv0 17 -> 13 -> pool 6 -> 2 -> pool 1: the plain form decides.
    x = X[:, :17]
    said, _, _ = plain_classifier(variables("large")["params"], x)
    close(run("large", TRAINING, x)[0], said, rtol=1e-5)


# --- pooling, compiled ----------------------------------------------------------------


def reduce_window(x):
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")


def after_a_step(pool, params, x):
    """Normalisation, relu and pooling, after one step of their scale and bias."""

    def layer(params):
        mean, var = moments(x)
        scale, bias = (jnp.broadcast_to(p, x.shape) for p in params)
        return pool(jax.nn.relu(scale * (x - mean) * jax.lax.rsqrt(var + 1e-5) + bias))

    slopes = jax.grad(lambda params: jnp.sqrt((layer(params) ** 2).sum()))(params)
    moved = jax.tree.map(lambda p, g: p - 0.1 * g, params, slopes)
    return jnp.sin(layer(moved)).mean()


def test_pooling_has_the_same_gradient_compiled():
    # A gradient that asks where the input equals the maximum loses it once compiled:
    # the input may be computed a second time, and rounded another way.
    ours = jax.jit(jax.grad(lambda *args: after_a_step(max_pool_2x2, *args), (0, 1)))
    expected = jax.grad(lambda *args: after_a_step(reduce_window, *args), (0, 1))
    for seed in range(5):
        keys = jax.random.split(jax.random.key(seed), 3)
        x = jax.random.normal(keys[0], (5, 12, 12, 3))
        params = (
            1 + jax.random.uniform(keys[1], (3,)),
            jax.random.uniform(keys[2], (3,)),
        )
        close(ours(params, x), expected(params, x))


# --- group normalisation --------------------------------------------------------------

GROUPED = {
    "classifier": ConvNet(num_classes=3, width=4, norm="group"),
    "context": ContextNet(channels=2, width=4, norm="group"),
}


@pytest.mark.parametrize("name", GROUPED)
def test_group_norm_looks_at_one_image_at_a_time(name):
    network, apply = GROUPED[name], jax.jit(GROUPED[name].apply)
    found = jax.jit(network.init)(jax.random.key(0), X)
    assert set(found) == {"params"}
    together = jax.tree.leaves(apply(found, X))
    alone = jax.tree.leaves(apply(found, X[2:3]))
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a[2:3], b, atol=1e-5)
    for statistics in (STORED, OWN):
        again = jax.tree.leaves(apply(found, X, statistics))
        jax.tree.map(np.testing.assert_array_equal, again, together)


@pytest.mark.parametrize("name", GROUPED)
def test_group_norm_normalises(name):
    network, apply = GROUPED[name], jax.jit(GROUPED[name].apply)
    start = jax.jit(network.init)(jax.random.key(0), X)
    params = shaken(start["params"], 1, size=0.1)
    layer = params["_Block_0"]["Conv5x5_0"]
    layer["bias"] = jnp.zeros_like(layer["bias"])
    once, twice = (
        jax.tree.leaves(apply({"params": params}, scale * X)) for scale in (1.0, 2.0)
    )
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)  # but for epsilon
    assert float(jnp.abs(once[0]).max()) > 0.01


# --- errors ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(15, 16), (16, 15), (1, 28)])
def test_images_that_are_too_small(size):
    with pytest.raises(ValueError, match=r"of 16 pixels or more, got shape \(1, ") as e:
        ConvNet(num_classes=2).init(jax.random.key(0), jnp.zeros((1, *size, 1)))
    assert "\n" not in str(e.value)


@pytest.mark.usefixtures("untyped")
def test_one_image_alone_is_refused():
    with pytest.raises(ValueError, match=r"\[n, height, width, channel\]"):
        ConvNet(num_classes=2).init(jax.random.key(0), jnp.zeros((28, 28, 1)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConvNet(num_classes=0), "num_classes must be >= 1, got 0"),
        (lambda: ConvNet(num_classes=2, width=0), "width must be >= 1, got 0"),
        (lambda: ContextNet(channels=0), "channels must be >= 1, got 0"),
        (lambda: ContextNet(channels=1, width=-1), "width must be >= 1, got -1"),
    ],
)
def test_numbers_below_one(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    "make",
    [
        lambda norm: ConvNet(num_classes=2, norm=norm),
        lambda norm: ContextNet(channels=1, norm=norm),
    ],
    ids=["classifier", "context"],
)
def test_an_unknown_norm(make):
    with pytest.raises(
        ValueError, match="norm must be 'batch' or 'group', got 'layer'"
    ):
        make("layer")
