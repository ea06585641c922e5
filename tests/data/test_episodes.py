import dataclasses
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.task import Task
from jaxmeta.data.episodes import SPLITS, EpisodeSource, equal_classes

EXAMPLES = 5
SPLIT = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coded(EpisodeSource):
    """Images that say what they are: pixel 0 the class, pixel 1 the example.

    The other two pixels of the 2x2 image are 250 and 251, so turns can be told apart.
    """

    height: int = 2

    @property
    def data_used(self):
        return "coded images"

    def classes(self):
        images = np.full((len(SPLIT), EXAMPLES, self.height, 2, 1), 250, np.uint8)
        images[:, :, 0, 0, 0] = np.arange(len(SPLIT))[:, None]
        images[:, :, 0, 1, 0] = np.arange(EXAMPLES)[None]
        images[:, :, 1, 1, 0] = 251
        return equal_classes(images, SPLIT)


def small(**settings):
    return Coded(**{"ways": 3, "shots": 2, "queries": 2, "rotations": False} | settings)


@functools.cache
def draw(source, count=64, split="train", seed=0):
    sample = jax.jit(source.sample_from, static_argnames="split")
    return sample(source.load(), jax.random.key(seed), jnp.arange(count), split=split)


def codes(examples):
    """`[task, n, 2]` class and example of unturned images."""
    pixels = np.asarray(examples.inputs[:, :, 0, :, 0]) * 255
    return np.round(pixels).astype(int)


def both(task):
    """`[task, way, example]` codes of support and query together."""
    joined = [
        codes(examples).reshape(len(examples.inputs), 3, -1, 2)
        for examples in (task.support, task.query)
    ]
    return np.concatenate(joined, axis=2)


def test_shapes_and_dtypes():
    task = draw(small(queries=3), count=4)
    assert task.support.inputs.shape == (4, 6, 2, 2, 1)
    assert task.query.inputs.shape == (4, 9, 2, 2, 1)
    assert task.support.inputs.dtype == jnp.float32
    assert task.query.targets.shape == (4, 9)
    assert task.query.targets.dtype == task.task_id.dtype == jnp.int32
    assert task.task_id.shape == (4,)


def test_example_has_the_shapes_of_one_task():
    source = small()
    task = draw(source)
    shapes = jax.tree.map(lambda x: (x.shape[1:], x.dtype), task)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), source.example) == shapes


def test_images_keep_their_values_on_the_unit_scale():
    # Bytes divided by 255: exact up to one rounding.
    task = draw(small())
    pixels = np.asarray(task.support.inputs)
    assert set(np.round(pixels[..., 1, :, 0] * 255).ravel()) == {250.0, 251.0}
    assert pixels.min() >= 0
    assert pixels.max() <= 1


def test_labels_follow_the_ways():
    task = draw(small())
    assert task.support.targets[0].tolist() == [0, 0, 1, 1, 2, 2]
    assert task.query.targets[0].tolist() == [0, 0, 1, 1, 2, 2]


def test_images_of_a_label_are_of_one_class():
    classes = both(draw(small()))[..., 0]
    assert (classes == classes[:, :, :1]).all()


def test_classes_of_an_episode_are_distinct():
    classes = both(draw(small()))[:, :, 0, 0]
    assert all(len(set(row)) == 3 for row in classes.tolist())


def test_support_and_query_share_no_image():
    examples = both(draw(small()))[..., 1].reshape(-1, 4)
    assert all(len(set(row)) == 4 for row in examples.tolist())


@pytest.mark.parametrize("split", SPLITS)
def test_splits_are_disjoint_and_whole(split):
    classes = both(draw(small(), split=split))[..., 0]
    expected = np.flatnonzero(SPLITS.index(split) == SPLIT)
    assert set(classes.ravel().tolist()) == set(expected.tolist())


def test_every_label_meets_every_class_equally_often():
    # 3 ways of 3 classes: each pair has probability 1/3; 1200 draws give a standard
    # error of 0.0136, so 0.06 is more than four of them.
    classes = both(draw(small(), count=1200))[:, :, 0, 0]
    for way in range(3):
        share = np.bincount(classes[:, way], minlength=3)[:3] / 1200
        np.testing.assert_allclose(share, 1 / 3, atol=0.06)


def test_every_example_is_drawn_equally_often():
    # 2 of 5 support examples: probability 0.4, standard error 0.0082 over 3600 rows.
    support = codes(draw(small(), count=1200).support)[..., 1]
    share = np.bincount(support.ravel(), minlength=EXAMPLES) / 3600
    np.testing.assert_allclose(share, 0.4, atol=0.04)


def test_same_key_and_slot_give_the_same_task():
    again = draw.__wrapped__(small())
    jax.tree.map(np.testing.assert_array_equal, again, draw(small()))


def test_slots_do_not_depend_on_their_neighbours():
    source = small()
    one = jax.jit(source.sample_from, static_argnames="split")(
        source.load(), jax.random.key(0), jnp.array([5]), split="train"
    )
    expected = jax.tree.map(lambda x: x[5:6], draw(source))
    jax.tree.map(np.testing.assert_array_equal, one, expected)


def test_keys_and_slots_give_different_tasks():
    episodes = both(draw(small())).reshape(64, -1)
    assert len(np.unique(episodes, axis=0)) > 32
    assert (both(draw(small())) != both(draw(small(), seed=1))).any()


def test_jitted_and_eager_agree():
    source, key = small(rotations=True), jax.random.key(0)
    data = source.load()
    sample = lambda data, key: source.sample_task(data, key, jnp.array(0), split="test")
    eager, jitted = sample(data, key), jax.jit(sample)(data, key)
    # XLA may turn the division by 255 into a product: one rounding apart.
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-7)
    jax.tree.map(close, eager, jitted)


def test_many_steps_in_one_scan():
    source = small()
    data = source.load()

    def step(carry, key):
        task = source.sample_from(data, key, jnp.arange(2), split="train")
        return carry, task.support.targets

    _, targets = jax.lax.scan(step, 0, jax.random.split(jax.random.key(0), 3))
    assert targets.shape == (3, 2, 6)


def turn_of(image):
    """By how many quarter turns the mark 251 has left its corner."""
    corners = [(1, 1), (0, 1), (0, 0), (1, 0)]
    return [round(float(image[c]) * 255) for c in corners].index(251)


def test_turned_copies_are_classes_of_their_own():
    task = draw(small(ways=9, rotations=True, shots=1, queries=1), count=16)
    images = np.asarray(task.support.inputs[..., 0])
    for episode, queries in zip(images, np.asarray(task.query.inputs), strict=True):
        seen = []
        for image, query in zip(episode, queries[..., 0], strict=True):
            turn = turn_of(image)
            assert turn_of(query) == turn
            upright = np.rot90(image, -turn)
            seen.append((round(float(upright[0, 0]) * 255), turn))
        assert len(set(seen)) == 9
        assert {code for code, _ in seen} <= {0, 1, 2}
    assert {turn_of(image) for image in images.reshape(-1, 2, 2)} == {0, 1, 2, 3}


def add_noise(key, image):
    return image + jax.random.uniform(key, image.shape)


def test_query_images_alone_are_augmented_each_with_a_key_of_its_own():
    plain, changed = draw(small()), draw(small(augment=add_noise))
    np.testing.assert_array_equal(changed.support.inputs, plain.support.inputs)
    np.testing.assert_array_equal(changed.query.targets, plain.query.targets)
    noise = np.asarray(changed.query.inputs - plain.query.inputs)
    assert 0.0 <= noise.min() < 0.01
    assert 0.99 < noise.max() < 1.0 + 1e-6
    rows = noise.reshape(-1, 4)
    assert len(np.unique(rows.round(5), axis=0)) == len(rows)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (os.system, r"augment must be a function of a key and an image, got system"),
        (lambda key, image: image[:1], r"augment must make an image of \(2, 2, 1\)"),
    ],
)
def test_what_makes_no_image_of_an_image(augment, message):
    with pytest.raises(ValueError, match=message):
        small(augment=augment).validate()


def test_classes_are_read_once_and_stay_bytes():
    calls = []

    class Counted(Coded):
        def __hash__(self):
            return 0

    source = Counted(ways=3, shots=1, queries=1, rotations=False)
    read = source.classes
    object.__setattr__(source, "classes", lambda: (calls.append(1), read())[1])
    source.validate()
    assert source.load().images.dtype == jnp.uint8
    assert source.example.support.inputs.shape == (3, 2, 2, 1)
    assert len(calls) == 1


def test_loading_inside_a_trace_leaks_nothing():
    source = small()
    draw_inside = lambda key: source.sample(key, jnp.arange(64), split="train")
    inside = jax.jit(draw_inside)(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, inside, draw(source))


def test_a_source_is_hashable_and_equal_by_its_settings():
    assert small() == small()
    assert hash(small()) == hash(small())
    assert small() != small(ways=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ways": 1}, "ways must be >= 2, got 1"),
        ({"ways": -3}, "ways must be >= 2, got -3"),
        ({"shots": 0}, "shots must be >= 1, got 0"),
        ({"queries": 0}, "queries must be >= 1, got 0"),
    ],
)
def test_settings_out_of_range_fail_at_construction(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ways": 4}, "ways must be <= 3, the number of train classes of coded"),
        ({"ways": 13, "rotations": True}, "ways must be <= 12"),
        ({"shots": 4}, r"shots \+ queries must be <= 5, .*got 4 \+ 2"),
        ({"rotations": True, "height": 3}, "square, got images of 3x2"),
    ],
)
@pytest.mark.parametrize("method", ["validate", "load"])
def test_episodes_that_do_not_fit_the_data_fail_on_the_host(settings, message, method):
    source = small(**settings)
    with pytest.raises(ValueError, match=message):
        getattr(source, method)()


def test_unknown_split(untyped):
    with pytest.raises(ValueError, match=r"split must be one of .*got 'dev'"):
        draw(small(), split="dev")


def test_the_result_is_a_task():
    assert isinstance(draw(small()), Task)
