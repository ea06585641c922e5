"""ResNet-50 has the parameters of the published one."""

import jax
import jax.numpy as jnp
import pytest

from jaxmeta.networks.norm import OWN, STORED, TRAINING
from jaxmeta.networks.resnet import ResNet50


def test_it_has_as_many_parameters_as_the_published_one():
    start = lambda x: ResNet50(num_classes=1000).init(jax.random.key(0), x)
    shapes = jax.eval_shape(start, jnp.zeros((1, 64, 64, 3)))
    # torchvision's resnet50: 25,557,032, and two statistics a normalised channel.
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == 25_557_032
    assert sum(x.size for x in jax.tree.leaves(shapes["batch_stats"])) == 53_120


def test_it_uses_the_statistics_it_is_told_to():
    network = ResNet50(num_classes=3, width=1)
    x = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))
    variables = jax.jit(network.init)(jax.random.key(1), x)
    everyone = jnp.ones(4, bool)

    @jax.jit
    def answer(variables, x, mask, statistics):
        outputs, kept = network.apply(
            variables, x, statistics, mask, mutable=["batch_stats"]
        )
        return outputs.logits, kept

    of = lambda statistics: jax.tree.map(jnp.asarray, statistics)
    own, kept = answer(variables, x, everyone, of(OWN))
    again, _ = answer({**variables, **kept}, x, everyone, of(STORED))
    assert jnp.allclose(own, again, rtol=1e-4, atol=1e-5)
    stored, _ = answer(variables, x, everyone, of(STORED))
    assert not jnp.allclose(own, stored, atol=1e-3)
    others = x.at[2:].add(1.0)
    alone, _ = answer(variables, others, everyone, of(STORED))
    assert jnp.allclose(stored[:2], alone[:2], rtol=1e-4, atol=1e-5)
    mask = jnp.array([True, True, False, False])
    padded, _ = answer(variables, x.at[2:].set(jnp.nan), mask, of(TRAINING))
    small, _ = answer(variables, others, mask, of(TRAINING))
    assert jnp.allclose(padded[:2], small[:2], rtol=1e-4, atol=1e-5)


def test_a_width_below_one_is_refused():
    with pytest.raises(ValueError, match="width must be >= 1, got 0"):
        ResNet50(num_classes=10, width=0)
