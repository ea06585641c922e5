import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxmeta.networks.conv import Conv3x3, Conv4, LoopConv4, max_pool_2x2
from jaxmeta.networks.convnet import ConvNet
from jaxmeta.networks.norm import OWN

IMAGES = jax.random.normal(jax.random.key(7), (3, 9, 8, 2))


def conv_variables(features=4):
    return Conv3x3(features=features).init(jax.random.key(0), IMAGES)


@pytest.mark.parametrize("patched", [True, False])
def test_conv_equals_lax(patched):
    variables = conv_variables()
    expected = jax.lax.conv_general_dilated(
        IMAGES,
        variables["params"]["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    got = Conv3x3(features=4, patched=patched).apply(variables, IMAGES)
    # The same 18 products of order one, summed in another order in float32.
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_conv_has_the_parameters_and_outputs_of_linen():
    linen = nn.Conv(4, (3, 3), use_bias=False)
    theirs = linen.init(jax.random.key(0), IMAGES)
    ours = conv_variables()
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, theirs)
    got = Conv3x3(features=4).apply(theirs, IMAGES)
    np.testing.assert_allclose(got, linen.apply(theirs, IMAGES), atol=1e-5)


def test_conv_gradients_equal_linen():
    linen = nn.Conv(4, (3, 3), use_bias=False)
    loss = lambda module: lambda v, x: jnp.sum(jnp.sin(module.apply(v, x)))
    variables = conv_variables()
    gradient = lambda module: jax.jit(jax.grad(loss(module), argnums=(0, 1)))
    ours = gradient(Conv3x3(features=4))(variables, IMAGES)
    theirs = gradient(linen)(variables, IMAGES)
    # Sums of 216 terms of order one in float32.
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4)
    jax.tree.map(close, ours, theirs)


def test_both_forms_are_one_network():
    images = jax.random.normal(jax.random.key(2), (5, 16, 16, 1))
    patched, looped = (kind(features=3, num_classes=2) for kind in (Conv4, LoopConv4))
    variables = jax.jit(patched.init)(jax.random.key(3), images)
    same = jax.jit(looped.init)(jax.random.key(3), images)
    jax.tree.map(np.testing.assert_array_equal, variables, same)
    answers = [jax.jit(kind.apply)(variables, images) for kind in (patched, looped)]
    np.testing.assert_allclose(*answers, atol=1e-4)


def test_conv_with_a_kernel_per_task():
    kernels = jax.random.normal(jax.random.key(1), (2, 3, 3, 2, 4))
    images = jnp.stack([IMAGES, 2 * IMAGES])
    apply = lambda k, x: Conv3x3(features=4).apply({"params": {"kernel": k}}, x)
    batched = jax.vmap(apply)(kernels, images)
    for i in range(2):
        np.testing.assert_allclose(batched[i], apply(kernels[i], images[i]), atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (1, 7, 5, 2), (1, 2, 2, 1)])
def test_pool_equals_linen(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    expected = nn.max_pool(x, (2, 2), strides=(2, 2))
    np.testing.assert_array_equal(max_pool_2x2(x), expected)


def test_pool_sends_the_gradient_to_the_largest():
    x = jnp.array([[1.0, 4.0], [3.0, 2.0]]).reshape(1, 2, 2, 1)
    gradient = jax.grad(lambda x: max_pool_2x2(x).sum())(x)
    np.testing.assert_array_equal(gradient.reshape(2, 2), [[0, 1], [0, 0]])


def test_pool_sends_the_gradient_of_a_tie_to_one():
    x = jnp.array([[1.0, 4.0], [4.0, 4.0]]).reshape(1, 2, 2, 1)
    gradient = jax.grad(lambda x: max_pool_2x2(x).sum())(x)
    assert sorted(gradient.ravel().tolist()) == [0, 0, 0, 1]
    assert gradient[0, 0, 0, 0] == 0


@pytest.mark.parametrize("place", range(4))
def test_pool_shows_nan(place):
    x = jnp.zeros(4).at[place].set(jnp.nan).reshape(1, 2, 2, 1)
    assert jnp.isnan(max_pool_2x2(x)).all()


def test_no_gradient_is_lost_on_its_way_through_the_pool():
    """A bias before a normalisation changes nothing, so its derivative is zero.

    XLA rounds the normalised pixels of these networks in two ways in one program.
    """
    network = ConvNet(num_classes=3, width=2, large=False)
    images = jax.random.normal(jax.random.key(0), (4, 8, 16, 16, 1))
    variables = jax.jit(network.init)(jax.random.key(1), images[0])
    noisy = lambda leaf: leaf + jax.random.uniform(jax.random.key(2), leaf.shape) / 5
    variables = jax.tree.map(noisy, variables)

    def loss(params, images, mask):
        variables_now = {**variables, "params": params}
        found = network.apply(variables_now, images, OWN, mask)
        return jnp.linalg.norm(found.logits)

    gradient = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0, 0)))(
        variables["params"], images, jnp.ones((4, 8), bool)
    )
    for block in ("_Block_0", "_Block_1"):
        # Sums of cancelling float32 terms of the size of the other gradients, up to 1.
        np.testing.assert_allclose(gradient[block]["Conv5x5_0"]["bias"], 0, atol=3e-5)


def one_block(scale, bias):
    network = Conv4(features=3, num_classes=2, num_blocks=1)
    variables = network.init(jax.random.key(0), IMAGES)
    params = dict(variables["params"])
    params["BatchNorm_0"] = {"scale": jnp.array(scale), "bias": jnp.array(bias)}
    return network, {**variables, "params": params}


def test_normalisation_is_batch_norm_of_the_set_given():
    network, variables = one_block([1.0, 2.0, -0.5], [0.0, 0.5, 1.0])
    params = jax.tree.map(np.asarray, variables["params"])
    x = np.asarray(Conv3x3(features=3).apply({"params": params["Conv3x3_0"]}, IMAGES))
    mean = x.mean((0, 1, 2))
    variance = ((x - mean) ** 2).mean((0, 1, 2))
    norm = params["BatchNorm_0"]
    x = (x - mean) / np.sqrt(variance + 1e-5) * norm["scale"] + norm["bias"]
    x = np.maximum(x, 0)[:, :8].reshape(3, 4, 2, 4, 2, 3).max((2, 4)).reshape(3, -1)
    expected = x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    # float32 sums of 48 products of order one.
    np.testing.assert_allclose(network.apply(variables, IMAGES), expected, atol=1e-4)


def test_the_answer_depends_on_the_other_images():
    network, variables = one_block([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    together = network.apply(variables, IMAGES)[0]
    alone = network.apply(variables, IMAGES[:1])[0]
    assert float(jnp.abs(together - alone).max()) > 1e-3


def test_contrast_and_brightness_of_the_set_do_not_matter():
    # Inside the image; at its border the zeros of the padding change with brightness.
    network, variables = one_block([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    np.testing.assert_allclose(
        network.apply(variables, 3 * IMAGES),
        network.apply(variables, IMAGES),
        atol=1e-3,  # the 1e-5 added to the variance
    )


def test_shapes_of_the_standard_network():
    network = Conv4(features=4, num_classes=5)
    x = jnp.ones((2, 28, 28, 1))
    logits, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    assert logits.shape == (2, 5)
    assert set(variables) == {"params", "batch_stats"}
    assert variables["params"]["Dense_0"]["kernel"].shape == (4, 5)


def test_larger_images_are_flattened():
    network = Conv4(features=2, num_blocks=2)
    images = jnp.ones((1, 9, 12, 3))
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    assert variables["params"]["Dense_0"]["kernel"].shape == (2 * 3 * 2, 5)


def test_second_derivatives_are_finite():
    network = Conv4(features=2, num_classes=2, num_blocks=2)
    x = IMAGES
    variables = network.init(jax.random.key(0), x)
    inner = lambda v: jnp.sum(network.apply(v, x) ** 2)

    def outer(v):
        moved = jax.tree.map(lambda a, g: a - 0.1 * g, v, jax.grad(inner)(v))
        return inner(moved)

    gradient = jax.jit(jax.grad(outer))(variables)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", ["features", "num_classes", "num_blocks"])
def test_settings_below_their_limits(name):
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        Conv4(**{name: 0})


def test_conv_without_features():
    with pytest.raises(ValueError, match="features must be >= 1, got 0"):
        Conv3x3(features=0)


@pytest.mark.parametrize("shape", [(2, 15, 28, 1), (2, 28, 15, 1), (28, 28, 1)])
def test_inputs_of_the_wrong_shape(untyped, shape):
    with pytest.raises(ValueError, match=r"sides >= 16 for 4 blocks, got shape"):
        Conv4().init(jax.random.key(0), jnp.ones(shape))


@pytest.mark.parametrize(("drawn", "share"), [("flax", 1.0), ("torch", 1 / 3)])
def test_how_weights_are_drawn(drawn, share):
    network = Conv4(features=64, num_classes=50, num_blocks=2, drawn=drawn)
    start = jax.jit(network.init)(jax.random.key(0), jnp.ones((1, 4, 4, 3)))
    params = start["params"]
    kernel, head = params["Conv3x3_1"]["kernel"], params["Dense_0"]
    assert float(kernel.var()) * 9 * 64 == pytest.approx(share, rel=0.05)
    assert float(head["kernel"].var()) * 64 == pytest.approx(share, rel=0.05)
    assert np.any(head["bias"] != 0) == (drawn == "torch")


@pytest.mark.usefixtures("untyped")
def test_drawn_in_no_other_way():
    with pytest.raises(ValueError, match=r"drawn must be one of .*, got 'keras'"):
        Conv4(drawn="keras")
