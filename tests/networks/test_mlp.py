import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.networks.mlp import MLP


def test_equals_matrix_products_with_relu_between():
    x = jax.random.normal(jax.random.key(1), (4, 3))
    y, variables = MLP(features=(5, 2)).init_with_output(jax.random.key(0), x)
    params = jax.tree.map(np.asarray, variables["params"])
    first, last = params["Dense_0"], params["Dense_1"]
    hidden = np.maximum(np.asarray(x) @ first["kernel"] + first["bias"], 0)
    expected = hidden @ last["kernel"] + last["bias"]
    # float32 sums of at most five products.
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_one_layer_is_linear():
    x = jnp.array([[-1.0, 2.0]])
    network = MLP(features=(3,), use_bias=False)
    variables = network.init(jax.random.key(0), x)
    np.testing.assert_allclose(
        network.apply(variables, -2 * x), -2 * network.apply(variables, x), rtol=1e-6
    )


def test_leading_axes_are_kept():
    y, _ = MLP(features=(4, 2)).init_with_output(jax.random.key(0), jnp.ones((6, 5, 3)))
    assert y.shape == (6, 5, 2)


def test_without_biases():
    variables = MLP(features=(4, 2), use_bias=False).init(
        jax.random.key(0), jnp.ones((1, 3))
    )
    names = {str(path[-1]) for path, _ in jax.tree.leaves_with_path(variables)}
    assert names == {"['kernel']"}


def test_activation():
    x = jnp.array([[1.0, -2.0]])
    network = MLP(features=(3, 1), activation=jnp.tanh)
    variables = network.init(jax.random.key(0), x)
    params = variables["params"]
    expected = np.tanh(x @ params["Dense_0"]["kernel"]) @ params["Dense_1"]["kernel"]
    np.testing.assert_allclose(network.apply(variables, x), expected, rtol=1e-5)


def test_hashable():
    assert hash(MLP(features=(4, 2))) == hash(MLP(features=(4, 2)))


@pytest.mark.parametrize("features", [(), (0,), (4, -1)])
def test_bad_widths(features):
    with pytest.raises(ValueError, match="features must be one or more widths >= 1"):
        MLP(features=features)


def test_a_list_of_widths(untyped):
    with pytest.raises(TypeError, match=r"must be a tuple, got \[4, 2\]"):
        MLP(features=[4, 2])  # type: ignore[arg-type]
