"""Rotated MNIST: the published sizes, and who sees which image at which angle."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from scipy import ndimage

from jaxmeta.data.rotated_mnist import (
    LabelledImages,
    RotatedMnist,
    rotate_images,
    rotated_groups,
)
from jaxmeta.data.source import DataError, settle

DATA_DIR = os.environ.get("JAXMETA_DATA_DIR", "")
needs_file = pytest.mark.skipif(
    not (DATA_DIR and Path(DATA_DIR, "mnist_writers.npz").is_file()),
    reason="JAXMETA_DATA_DIR holds no mnist_writers.npz",
)
TRAIN_SIZES = [7560] * 3 + [2160] * 3 + [648] * 3 + [324] * 3 + [108] * 2


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.delenv("JAXMETA_DOWNLOAD", raising=False)


def numbered(count):
    """Images whose middle four pixels, which no turn moves far, are their number."""
    images = np.zeros((count, 4, 4), np.uint8)
    number = np.arange(count)
    images[:, 1:3, 1:3] = np.stack(
        [number // 251**2, number // 251 % 251, number % 251, np.full(count, 255)], -1
    ).reshape(-1, 2, 2)
    return images


def numbers(upright):
    """Of images that were not turned."""
    high, middle, low = (upright[:, y, x, 0] for y, x in ((1, 1), (1, 2), (2, 1)))
    return (high.astype(int) * 251 + middle) * 251 + low


def write(directory, num_train=60_000, num_test=10_000):
    np.savez(
        directory / "mnist_writers.npz",
        x_train=numbered(num_train),
        y_train=(np.arange(num_train) % 10).astype(np.uint8),
        x_test=numbered(num_test),
        y_test=(np.arange(num_test) % 10).astype(np.uint8),
    )


@pytest.mark.parametrize("degrees", range(0, 140, 10))
def test_a_turn_is_scipys_of_each_image(degrees):
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    turned = rotate_images(images, degrees)
    for ours, image in zip(turned, images, strict=True):
        theirs = ndimage.rotate(image, degrees, reshape=False, order=0)
        np.testing.assert_array_equal(ours, theirs)
    assert turned.dtype == np.uint8


@pytest.mark.parametrize("degrees", [10, 40, 90, 130])
def test_a_turn_by_hand(degrees):
    """A dot right of the centre goes up: counter-clockwise, with rows downwards."""
    image = np.zeros((1, 29, 29), np.uint8)
    image[0, 14, 22:25] = 200
    rows, columns = np.nonzero(rotate_images(image, degrees)[0])
    angle = np.radians(degrees)
    assert abs(rows.mean() - (14 - 9 * np.sin(angle))) < 0.7
    assert abs(columns.mean() - (14 + 9 * np.cos(angle))) < 0.7


def test_what_comes_from_outside_is_paper():
    white = np.full((1, 28, 28), 255, np.uint8)
    turned = rotate_images(white, 40)[0]
    assert turned[0, 0] == turned[-1, 0] == 0
    assert turned[14, 14] == 255


def test_sizes_are_the_published_ones(tmp_path):
    write(tmp_path)
    groups = RotatedMnist(test_points=None).groups()
    assert groups["train"].sizes.tolist() == TRAIN_SIZES
    assert sum(TRAIN_SIZES) == 32_292
    assert groups["validation"].sizes.tolist() == [300] * 14
    assert groups["test"].sizes.tolist() == [3333] * 14
    assert groups["train"].inputs.shape == (32_292, 4, 4, 1)
    assert groups["train"].inputs.dtype == np.uint8


def test_limits(tmp_path):
    write(tmp_path)
    groups = RotatedMnist(validation_points=5000, test_points=7).groups()
    assert groups["validation"].sizes.tolist() == [2000] * 14
    assert groups["test"].sizes.tolist() == [7] * 14


def test_splits_share_no_image(tmp_path):
    write(tmp_path)
    groups = RotatedMnist().groups()
    upright = {
        split: numbers(points.inputs[points.groups == 0])
        for split, points in groups.items()
    }
    assert not set(upright["train"]) & set(upright["validation"])
    # With replacement: 7560 draws of 54,000 show some image twice.
    assert len(set(upright["train"])) < 7560
    assert max(upright["train"]) > 54_000


def test_labels_stay_with_their_images(tmp_path):
    write(tmp_path)
    for points in RotatedMnist().groups().values():
        upright = points.groups == 0
        np.testing.assert_array_equal(
            points.targets[upright], numbers(points.inputs[upright]) % 10
        )


def test_angles_test_on_the_next_third():
    # Turned images of one grey are told apart by their middle.
    images = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None], (10, 5, 5))
    few = LabelledImages(images, np.arange(10))
    rng = np.random.default_rng(3)
    order = np.random.default_rng(3).permutation(10)
    points = rotated_groups({"test": few}, rng=rng, most={})["test"]
    shown = points.inputs[:, 2, 2, 0].reshape(14, 3)
    for group in range(14):
        places = (np.arange(3) + 3 * group) % 10
        np.testing.assert_array_equal(shown[group], order[places])
    np.testing.assert_array_equal(points.targets.reshape(14, 3), shown)


def test_every_group_is_turned_by_its_angle():
    image = np.random.default_rng(0).integers(1, 256, (1, 9, 9), np.uint8)
    one = LabelledImages(np.repeat(image, 500, axis=0), np.zeros(500, int))
    parts = {"train": one, "validation": one}
    found = rotated_groups(parts, rng=np.random.default_rng(0), most={"validation": 2})
    for points in found.values():
        for group in range(14):
            theirs = ndimage.rotate(image[0], 10 * group, reshape=False, order=0)
            for ours in points.inputs[points.groups == group]:
                np.testing.assert_array_equal(ours[..., 0], theirs)


def test_too_few_images():
    few = LabelledImages(np.zeros((499, 2, 2), np.uint8), np.zeros(499, int))
    with pytest.raises(ValueError, match=r"train: .*at least 500 images, got 499"):
        rotated_groups({"train": few}, rng=np.random.default_rng(0), most={})


def test_the_seed_is_the_split(tmp_path):
    write(tmp_path)
    draw = lambda seed: RotatedMnist(split_seed=seed).groups()["validation"].inputs
    np.testing.assert_array_equal(draw(0), draw(0))
    assert not np.array_equal(draw(0), draw(1))


def test_a_test_task_is_one_angle_in_parts(tmp_path):
    write(tmp_path)
    source = RotatedMnist(points_per_set=50, test_points=120)
    assert source.num_slots("test") == 14 * 3
    query = source.sample(jax.random.key(0), jnp.array([3, 17, 31]), split="test").query
    np.testing.assert_array_equal(query.groups, 3)
    np.testing.assert_array_equal(query.mask.sum((1, 2)), [50, 50, 20])


def test_a_file_that_is_not_mnist(tmp_path):
    write(tmp_path, num_train=600, num_test=50)
    with pytest.raises(
        DataError, match=r"mnist_writers.npz: MNIST has .* got 600 and 50"
    ):
        RotatedMnist().groups()


def test_nothing_there():
    for use in (settle, RotatedMnist.groups):
        with pytest.raises(DataError, match=r"not found; .*source RotatedDigits"):
            use(RotatedMnist())


def test_the_file_comes_before_tfds(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setenv("JAXMETA_DOWNLOAD", "1")
    assert settle(RotatedMnist()) == RotatedMnist(origin="npz")


def test_tfds_where_it_may_be_used(monkeypatch):
    monkeypatch.setenv("JAXMETA_DOWNLOAD", "1")
    assert settle(RotatedMnist()).origin == "tfds"
    images = {"train": numbered(60_000), "test": numbered(10_000)}

    def as_data_source(self, split, **kwargs):
        del self, kwargs
        return [
            {"image": image[..., None], "label": np.int64(i % 10)}
            for i, image in enumerate(images[split])
        ]

    with tfds.testing.mock_data(as_data_source_fn=as_data_source):
        found = RotatedMnist().groups()
    assert found["train"].sizes.tolist() == TRAIN_SIZES
    upright = found["test"].groups == 0
    np.testing.assert_array_equal(
        found["test"].targets[upright], numbers(found["test"].inputs[upright]) % 10
    )


def test_tfds_that_is_not_there():
    with pytest.raises(DataError, match="TFDS data set 'mnist' is not in"):
        RotatedMnist(origin="tfds").groups()


def test_bad_numbers(untyped):
    for name in ("validation_points", "test_points"):
        with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
            RotatedMnist(**{name: 0})
    with pytest.raises(ValueError, match="split_seed must be >= 0, got -1"):
        RotatedMnist(split_seed=-1)
    with pytest.raises(ValueError, match=r"origin must be one of .*'digits'"):
        RotatedMnist(origin="digits")
    with pytest.raises(ValueError, match="sampler"):
        RotatedMnist(sampler="groups")


@needs_file
def test_real_mnist(monkeypatch):
    monkeypatch.setenv("JAXMETA_DATA_DIR", DATA_DIR)
    groups = RotatedMnist().groups()
    assert groups["train"].sizes.tolist() == TRAIN_SIZES
    assert groups["test"].inputs.shape == (46_662, 28, 28, 1)
    # A tenth of the ink is lost at most: digits lie within the circle that turns.
    ink = [
        groups["test"].inputs[groups["test"].groups == g].mean(dtype=np.float64)
        for g in range(14)
    ]
    assert min(ink) > 0.95 * max(ink)
