import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from sklearn.datasets import load_digits

from jaxmeta.core.config import to_json
from jaxmeta.data.digit_groups import FormDigits, RotatedDigits

SOURCES = [FormDigits(), RotatedDigits()]


def small(points):
    """The 8x8 grey levels of images at 28x28."""
    return np.round(np.asarray(points.inputs)[:, 3:26:3, 3:26:3, 0] * (16 / 255))


def test_forms_are_blocks_of_the_file():
    bunch, groups = load_digits(), FormDigits().groups()
    # From the published ends of the blocks.
    sizes = [130, 126, 130, 130, 130, 130, 139, 114, 128]
    assert groups["train"].sizes.tolist() == sizes
    assert groups["validation"].sizes.tolist() == [130, 128]
    assert groups["test"].sizes.tolist() == [130, 122, 130]
    np.testing.assert_array_equal(small(groups["train"]), bunch.images[:1157])
    np.testing.assert_array_equal(groups["test"].targets, bunch.target[1415:])
    last = groups["test"].groups == 2
    np.testing.assert_array_equal(small(groups["test"])[last], bunch.images[1667:])


def test_angles_are_as_unequal_as_those_of_rotated_mnist():
    groups = RotatedDigits().groups()
    sizes = [809] * 3 + [231] * 3 + [69] * 3 + [34] * 3 + [11] * 2
    assert groups["train"].sizes.tolist() == sizes
    assert groups["validation"].sizes.tolist() == [86] * 14
    assert groups["test"].sizes.tolist() == [127] * 14


def test_angles_of_a_split_have_images_of_its_forms():
    upright = {
        split: {image.tobytes() for image in small(points)[points.groups == 0]}
        for split, points in RotatedDigits().groups().items()
    }
    images = load_digits().images
    ends = {"train": (0, 1157), "validation": (1157, 1415), "test": (1415, 1797)}
    for split, (start, end) in ends.items():
        assert upright[split] <= {image.tobytes() for image in images[start:end]}


def test_angles_turn_enlarged_digits():
    points = RotatedDigits().groups()["train"]
    image = points.inputs[points.groups == 13][0, ..., 0]
    known = FormDigits().groups()["train"].inputs[..., 0]
    turned = [ndimage.rotate(x, 130, reshape=False, order=0) for x in known]
    assert any(np.array_equal(image, x) for x in turned)


def test_angles_are_not_forms():
    """The thirds of the test images are of all three forms."""
    points = RotatedDigits().groups()["test"]
    images = load_digits().images[1415:]
    form = {
        x.tobytes(): np.searchsorted([130, 252], i, "right")
        for i, x in enumerate(images)
    }
    first = small(points)[points.groups == 0]
    counts = np.bincount([form[image.tobytes()] for image in first])
    assert counts.min() > 20


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: type(source).__name__)
def test_an_evaluation_sees_every_image_once(source):
    slots = jnp.arange(source.num_slots("test"))
    query = source.sample(jax.random.key(0), slots, split="test").query
    for group, size in enumerate(source.sizes("test")):
        mine = np.asarray(query.mask & (query.groups == group))
        assert mine.sum() == size
    assert query.inputs.shape[1:] == (1, 50, 28, 28, 1)
    assert float(query.inputs.max()) == 1.0


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: type(source).__name__)
def test_image_size(source):
    changed = type(source)(image_size=9)
    assert changed.example.query.inputs.shape == (1, 50, 9, 9, 1)
    with pytest.raises(ValueError, match="image_size must be >= 8, got 7"):
        type(source)(image_size=7).groups()


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: type(source).__name__)
def test_sources_are_json(source):
    assert "image_size" in str(to_json(source))
