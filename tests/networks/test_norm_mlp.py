"""The perceptron normalises with the statistics it is told to."""

import jax
import numpy as np
import pytest

from jaxmeta.networks.norm import OWN, STORED
from jaxmeta.networks.norm_mlp import NormMLP

X = jax.random.normal(jax.random.key(0), (6, 2, 3))


def test_it_is_the_formula():
    network = NormMLP(features=(4,), num_classes=2)
    variables = network.init(jax.random.key(1), X)
    params = jax.tree.map(np.asarray, variables["params"])
    hidden = np.asarray(X).reshape(6, 6) @ params["Dense_0"]["kernel"]
    hidden = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5)
    hidden = np.maximum(hidden, 0)
    logits = hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]
    found, kept = network.apply(variables, X, OWN, mutable=["batch_stats"])
    np.testing.assert_allclose(found.logits, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.features, hidden, rtol=1e-4, atol=1e-5)
    again = network.apply({**variables, **kept}, X[:1], STORED)
    np.testing.assert_allclose(again.logits, logits[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("features", "num_classes"), [((), 2), ((0,), 2), ((3,), 0)])
def test_numbers_below_one_are_refused(features, num_classes):
    with pytest.raises(ValueError, match="features must be one number >= 1 a layer"):
        NormMLP(features=features, num_classes=num_classes)
