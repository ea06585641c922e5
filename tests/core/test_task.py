"""Sources are functions of the key and the slots, and of nothing else."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import DeviceSource, Parallel
from jaxmeta.core.task import draw_on_shards
from jaxmeta.core.testing import SmokeHostSource, smoke_source
from jaxmeta.data.digits import Digits
from jaxmeta.data.translation import TranslationSource

KEY = jax.random.key(5)

# Fused in another program, a sum of a few numbers of order 1 rounds differently.
CLOSE = {"rtol": 1e-6, "atol": 1e-6}
SOURCES = {
    "smoke": smoke_source(),
    "host": SmokeHostSource(),
    "translation": TranslationSource(rank=2, input_size=6, num_query=2),
    "digits": Digits(ways=2, queries=1, image_size=8),
}


@pytest.fixture(params=SOURCES, scope="module")
def source(request):
    return SOURCES[request.param]


@functools.cache
def _sampler(source, split):
    sample = functools.partial(source.sample, split=split)
    return jax.jit(sample) if isinstance(source, DeviceSource) else sample


def _draw(source, key, slots, split="train"):
    return jax.device_get(_sampler(source, split)(key, jnp.array(slots)))


def _assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **CLOSE), a, b)


def test_slots_are_independent_of_each_other(source):
    all_four, some = _draw(source, KEY, range(4)), _draw(source, KEY, [3, 1])
    _assert_equal(some, jax.tree.map(lambda x: x[[3, 1]], all_four))


def test_slots_steps_and_splits_differ(source):
    draw = lambda key, split: _draw(source, key, range(2), split)
    base = draw(KEY, "train").query.inputs
    assert not np.array_equal(base[0], base[1])
    others = [draw(jax.random.key(6), "train"), draw(KEY, "test")]
    for other in [*others, draw(KEY, "validation")]:
        assert not np.array_equal(base, other.query.inputs)


def test_the_same_key_draws_the_same_tasks(source):
    first, again = (_draw(source, KEY, range(2)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)


def test_the_example_has_the_shapes_of_one_task(source):
    row = jax.tree.map(lambda x: x[0], _draw(source, KEY, [0]))
    assert jax.tree.structure(source.example) == jax.tree.structure(row)
    for a, b in zip(jax.tree.leaves(source.example), jax.tree.leaves(row), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


@pytest.mark.parametrize("name", ["smoke", "digits"])
def test_every_device_draws_what_one_would(name):
    source = SOURCES[name]
    expected = _draw(source, KEY, range(8))
    for parallel in (Parallel(), Parallel(backend="vmap"), Parallel(backend="pmap")):
        draw = jax.jit(draw_on_shards(source, parallel, "train"))
        _assert_equal(draw(source.load(), KEY, jnp.arange(8)), expected)
