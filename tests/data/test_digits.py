import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxmeta.data.digits import FORM_STARTS, Digits, digit_classes, digits_by_form
from jaxmeta.data.episodes import SPLITS


def test_every_split_has_five_classes_or_more():
    pools = Digits().load().pools
    assert [4 * pools[split].size for split in SPLITS] == [24, 8, 8]


def test_every_digit_is_in_one_split():
    pools = Digits().load().pools
    assert sorted(np.concatenate(list(pools.values())).tolist()) == list(range(10))


def test_images_are_the_digits_on_the_scale_of_bytes():
    images = digit_classes(8).images
    bunch = load_digits()
    first_three = bunch.images[bunch.target == 3][0]
    expected = np.round(first_three * 255 / 16)
    np.testing.assert_array_equal(images[3 * 174, :, :, 0], expected)
    assert images.dtype == np.uint8
    assert images.max() == 255


def test_enlarged_images_repeat_pixels_inside_a_margin():
    small, large = digit_classes(8).images, digit_classes(28).images
    np.testing.assert_array_equal(large[:, 2:26:3, 2:26:3], small)
    np.testing.assert_array_equal(large[:, 4:26:3, 4:26:3], small)
    assert large[:, [0, 1, 26, 27]].max() == 0
    assert large[:, :, [0, 1, 26, 27]].max() == 0


@pytest.mark.parametrize("size", [8, 9, 28, 32])
def test_image_size(size):
    source = Digits(image_size=size)
    assert source.example.support.inputs.shape == (5, size, size, 1)


@pytest.mark.parametrize("split", SPLITS)
def test_five_way_five_shot(split):
    source = Digits(shots=5, image_size=8)
    task = source.sample(jax.random.key(0), jnp.arange(2), split=split)
    assert task.support.inputs.shape == (2, 25, 8, 8, 1)
    assert task.query.targets.shape == (2, 75)


def test_nearest_neighbours_beat_chance():
    # 0.91 expected on the test digits; 20 episodes of 75 queries, chance is 0.2.
    source = Digits(image_size=8)
    task = source.sample(jax.random.key(0), jnp.arange(20), split="test")
    support = np.asarray(task.support.inputs).reshape(20, 1, 5, -1)
    query = np.asarray(task.query.inputs).reshape(20, 75, 1, -1)
    nearest = ((query - support) ** 2).sum(-1).argmin(-1)
    assert (nearest == np.asarray(task.query.targets)).mean() > 0.7


def test_image_size_below_the_original():
    with pytest.raises(ValueError, match="image_size must be >= 8, got 7"):
        Digits(image_size=7).validate()


def test_without_rotations_the_held_out_splits_are_too_small():
    with pytest.raises(ValueError, match=r"ways must be <= 2, .*scikit-learn digits"):
        Digits(rotations=False).validate()


def test_more_examples_than_there_are():
    with pytest.raises(ValueError, match="<= 174"):
        Digits(shots=100, queries=75).validate()


def test_digits_by_form_are_the_file_in_its_order():
    images, labels = digits_by_form()
    bunch = load_digits()
    np.testing.assert_array_equal(images, np.round(bunch.images * 255 / 16))
    np.testing.assert_array_equal(labels, bunch.target)


def test_forms_ask_for_the_same_digits():
    # Every form is a copy of one list of digits with some left out: nearly all begin
    # 0 to 9 three times over.
    _, labels = digits_by_form()
    starts = [labels[start : start + 10].tolist() for start in FORM_STARTS]
    assert len(starts) == 14
    assert sum(start == list(range(10)) for start in starts) >= 12
