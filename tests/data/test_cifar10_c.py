"""CIFAR-10-C: the published groups, and clean images from a file, TFDS and folders."""

import io
import itertools
import os
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.image_classification import cifar10_corrupted

from jaxmeta.data import cifar10_c
from jaxmeta.data.cifar10_c import Cifar10C
from jaxmeta.data.corruptions import CORRUPTIONS
from jaxmeta.data.source import DataError, settle

DATA_DIR = os.environ.get("JAXMETA_DATA_DIR", "")
FILE = "cifar10_subset.npz"
needs_files = pytest.mark.skipif(
    not all(Path(DATA_DIR, name).is_file() for name in (FILE, "frost.npz")),
    reason=f"JAXMETA_DATA_DIR holds no {FILE} and frost.npz",
)
NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.delenv("JAXMETA_DOWNLOAD", raising=False)


def noise(n, seed):
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), np.uint8)


def differences(images):
    """The file's form: planes G, R - G, B - G, differenced down and across."""
    red, green, blue = np.moveaxis(images, -1, 0)
    planes = np.stack([green, red - green, blue - green])
    planes = np.diff(planes, axis=2, prepend=np.uint8(0))
    return np.diff(planes, axis=3, prepend=np.uint8(0))


def write_npz(directory, **changed):
    arrays = {
        "x_train_dd": differences(noise(24, 0)),
        "y_train": (np.arange(24) % 10).astype(np.uint8),
        "x_test_dd": differences(noise(11, 1)),
        "y_test": (np.arange(11) % 10).astype(np.uint8),
    }
    np.savez(directory / FILE, **(arrays | changed))


def write_frost(directory):
    file = io.BytesIO()
    Image.new("RGB", (70, 70), (90, 90, 90)).save(file, "JPEG")
    jpeg = np.frombuffer(file.getvalue(), np.uint8)
    np.savez(directory / "frost.npz", **{f"frost{i}_2": jpeg for i in range(1, 6)})


def write_folders(directory, num_train=3):
    """Image i of class c has the level `10 c + i` of red, more green in `test`."""
    for part, count in (("train", num_train), ("test", 1)):
        for label, name in enumerate(NAMES):
            folder = directory / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                level = (10 * label + i, 50 * (part == "test"), 0)
                Image.new("RGB", (32, 32), level).save(folder / f"{i:04}.png")


def test_the_groups_are_the_published_ones():
    """From the table in the authors' code: lists, then indices into two of them."""
    five = lambda *names: [f"{name} {i}" for name in names for i in range(1, 6)]
    both = five("spatter", "jpeg_compression")
    expected = {
        "train": [both[i] for i in (0, 1, 2, 5, 6, 7)]
        + five("gaussian_noise", "shot_noise", "defocus_blur", "glass_blur")
        + five("zoom_blur", "snow", "frost", "brightness", "contrast", "pixelate"),
        "validation": [both[i] for i in (3, 9)]
        + five("speckle_noise", "gaussian_blur", "saturate"),
        "test": [both[i] for i in (4, 8)]
        + five("impulse_noise", "motion_blur", "fog", "elastic_transform"),
    }
    source = Cifar10C()
    assert {split: source.group_names(split) for split in source.table} == expected
    assert [len(names) for names in expected.values()] == [56, 17, 22]
    # All 19 corruptions at all severities, each in one split.
    assert sorted(itertools.chain(*expected.values())) == sorted(five(*CORRUPTIONS))


def test_the_defaults_are_the_published_numbers():
    source = Cifar10C()
    points = (source.train_points, source.validation_points, source.test_points)
    assert points == (1_000, 1_000, 3_000)
    assert source.num_classes == 10


def test_the_file_is_read_without_loss(tmp_path):
    write_npz(tmp_path)
    pools = Cifar10C().pools()
    # The last sixth of the training images validates.
    np.testing.assert_array_equal(pools["train"].images, noise(24, 0)[:20])
    np.testing.assert_array_equal(pools["validation"].images, noise(24, 0)[20:])
    np.testing.assert_array_equal(pools["test"].images, noise(11, 1))
    assert pools["train"].labels.tolist() == [i % 10 for i in range(20)]
    assert pools["validation"].labels.tolist() == [0, 1, 2, 3]
    assert pools["test"].labels.tolist() == [*range(10), 0]


def test_all_groups(tmp_path):
    write_npz(tmp_path)
    write_frost(tmp_path)
    groups = Cifar10C(train_points=3, test_points=2).groups()
    assert groups["train"].sizes.tolist() == [3] * 56
    assert groups["validation"].sizes.tolist() == [4] * 17
    assert groups["test"].sizes.tolist() == [2] * 22
    assert groups["train"].inputs.shape == (56 * 3, 32, 32, 3)
    assert groups["train"].inputs.dtype == np.uint8


def test_without_the_photos_of_frost(tmp_path):
    write_npz(tmp_path)
    with pytest.raises(DataError, match=r"frost.npz: not found"):
        Cifar10C(train_points=1).groups()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"y_train": np.zeros(23, np.uint8)},
            r"x_train_dd must be .*\(3, 23, 32, 32\)",
        ),
        (
            {"x_test_dd": np.zeros((3, 11, 32, 31), np.uint8)},
            r"x_test_dd must be bytes",
        ),
        ({"x_test_dd": np.zeros((3, 11, 32, 32), np.uint16)}, r"got uint16"),
        (
            {
                "x_train_dd": np.zeros((3, 5, 32, 32), np.uint8),
                "y_train": np.zeros(5, np.uint8),
            },
            r"y_train must have 6 classes or more, got 5",
        ),
        ({"y_test": np.zeros(11)}, r"'y_test' should be uint"),
    ],
)
def test_a_file_that_is_not_as_it_should_be(tmp_path, changed, message):
    write_npz(tmp_path, **changed)
    with pytest.raises(DataError, match=f"{FILE}.*{message}") as error:
        Cifar10C().pools()
    assert "\n" not in str(error.value)


def test_a_class_too_many(tmp_path):
    write_npz(tmp_path, y_test=np.full(11, 10, np.uint8))
    write_frost(tmp_path)
    few = Cifar10C(train_points=1, validation_points=1, test_points=1)
    with pytest.raises(DataError, match=r"test: .* below 10, got 10"):
        few.read()


def test_folders_are_read(tmp_path):
    write_folders(tmp_path / "cifar", num_train=3)
    source = Cifar10C(path=str(tmp_path / "cifar"))
    pools = source.pools()
    assert settle(source).origin == "directory"
    # One of three is held out: the last.
    levels = [10 * label + i for label in range(10) for i in (0, 1)]
    assert pools["train"].images[:, 0, 0, 0].tolist() == levels
    assert pools["train"].labels.tolist() == [level // 10 for level in levels]
    held_out = pools["validation"].images[:, 0, 0].tolist()
    assert held_out == [[10 * label + 2, 0, 0] for label in range(10)]
    tested = pools["test"].images[:, 0, 0].tolist()
    assert tested == [[10 * label, 50, 0] for label in range(10)]
    assert pools["test"].labels.tolist() == list(range(10))


def test_a_tenth_of_each_folder_is_held_out(tmp_path):
    write_folders(tmp_path, num_train=20)
    pools = Cifar10C(path=str(tmp_path)).pools()
    assert np.bincount(pools["train"].labels).tolist() == [18] * 10
    assert np.bincount(pools["validation"].labels).tolist() == [2] * 10


def test_folders_that_are_not_as_they_should_be(tmp_path):
    source = Cifar10C(path=str(tmp_path / "cifar"))
    with pytest.raises(DataError, match=r"cifar/train: no such folder"):
        source.pools()
    write_folders(tmp_path / "cifar", num_train=1)
    with pytest.raises(DataError, match=r"cifar/train: class 0 must have 2 images"):
        source.pools()
    (tmp_path / "cifar" / "test" / "cat" / "0000.png").unlink()
    with pytest.raises(DataError, match=r"test/cat: holds no images"):
        source.pools()


def as_data_source(builder, split, **kwargs):
    """TFDS: 40 images of CIFAR-10, 9 of every corruption, which a pixel tells apart."""
    del kwargs
    if builder.name == "cifar10":
        images = noise(40 if split == "train" else 8, 3)
    else:
        images = noise(9, 4)
        images[:, 0, 0, 0] = list(builder.builder_configs).index(
            builder.builder_config.name
        )
    return [
        {"image": image, "label": np.int64(i % 10)} for i, image in enumerate(images)
    ]


def test_tfds_is_read(monkeypatch):
    monkeypatch.setenv("JAXMETA_DOWNLOAD", "1")
    source = settle(Cifar10C())
    assert source.origin == "tfds"
    with tfds.testing.mock_data(as_data_source_fn=as_data_source):
        pools = source.pools()
    # A tenth of four images is none, so it is one.
    np.testing.assert_array_equal(pools["train"].images, noise(40, 3)[:30])
    np.testing.assert_array_equal(pools["validation"].images, noise(40, 3)[30:])
    np.testing.assert_array_equal(pools["test"].images, noise(8, 3))
    assert pools["test"].labels.tolist() == list(range(8))


def test_published_images_to_test_on(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_DOWNLOAD", "1")
    write_npz(tmp_path)
    write_frost(tmp_path)
    few = Cifar10C(
        train_points=1, validation_points=1, test_points=4, official_test=True
    )
    with tfds.testing.mock_data(as_data_source_fn=as_data_source):
        points = few.groups()["test"]
    configs = [
        config.name for config in cifar10_corrupted.Cifar10Corrupted.BUILDER_CONFIGS
    ]
    names = [name.replace(" ", "_") for name in few.group_names("test")]
    assert points.sizes.tolist() == [4] * 22
    for number, name in enumerate(names):
        part = points.groups == number
        expected = noise(9, 4)[points.targets[part]]
        config = name.replace("elastic_transform", "elastic")
        expected[:, 0, 0, 0] = configs.index(config)
        np.testing.assert_array_equal(points.inputs[part], expected)
    assert "test: CIFAR-10-C (TFDS)" in few.data_used


def test_tfds_has_every_corruption():
    configs = {
        config.corruption
        for config in cifar10_corrupted.Cifar10Corrupted.BUILDER_CONFIGS
    }
    assert {cifar10_c._TFDS_NAMES.get(name, name) for name in CORRUPTIONS} == configs


def test_published_images_that_are_not_there(tmp_path):
    write_npz(tmp_path)
    write_frost(tmp_path)
    few = Cifar10C(train_points=1, validation_points=1, official_test=True)
    with pytest.raises(
        DataError, match="TFDS data set 'cifar10_corrupted/spatter_5' is"
    ):
        few.groups()


def test_where_images_come_from(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=rf"^{FILE}: not found; .*--download"):
        settle(Cifar10C())
    monkeypatch.setenv("JAXMETA_DOWNLOAD", "1")
    assert settle(Cifar10C()).origin == "tfds"
    write_npz(tmp_path)
    assert settle(Cifar10C()).origin == "npz"
    assert settle(Cifar10C(path="here")).origin == "directory"
    assert settle(Cifar10C(origin="tfds")) == Cifar10C(origin="tfds")


def test_a_directory_in_the_data_directory(tmp_path):
    write_npz(tmp_path)
    write_folders(tmp_path / "cifar10", num_train=20)
    found = settle(Cifar10C())
    assert found.origin == "directory"
    assert found.data_used.startswith("CIFAR-10 (a directory)")
    pools = found.pools()
    assert len(pools["train"].labels) == 180


def test_a_class_outside_is_found_before_anything_is_corrupted(tmp_path, monkeypatch):
    write_npz(tmp_path, y_train=np.full(24, 10, np.uint8))
    monkeypatch.setattr("jaxmeta.data.corrupted.corrupt_groups", None)
    with pytest.raises(DataError, match=f"{FILE}.*, train: classes must be below 10"):
        Cifar10C().groups()


def test_what_was_used_is_said(tmp_path):
    write_npz(tmp_path)
    used = f"a subset of CIFAR-10 ({FILE}), corrupted here; groups share images"
    assert Cifar10C().data_used == used
    assert Cifar10C(origin="tfds").data_used.startswith("CIFAR-10 (TFDS), corrupted")


def test_bad_origins(untyped):
    with pytest.raises(ValueError, match="origin must be one of auto, npz, tfds, dir"):
        Cifar10C(origin="digits")
    with pytest.raises(ValueError, match="path must be None for origin 'npz'"):
        Cifar10C(origin="npz", path="here")


@needs_files
def test_the_real_images(monkeypatch):
    monkeypatch.setenv("JAXMETA_DATA_DIR", DATA_DIR)
    pools = Cifar10C().pools()
    assert [len(pool.labels) for pool in pools.values()] == [5_000, 1_000, 2_000]
    # The means and deviations of all of CIFAR-10.
    pixels = pools["train"].images[:, ::4, ::4].reshape(-1, 3) / 255
    np.testing.assert_allclose(pixels.mean(0), [0.491, 0.482, 0.447], atol=5e-3)
    np.testing.assert_allclose(pixels.std(0), [0.247, 0.243, 0.262], atol=5e-3)
    seen = {
        split: {image.tobytes() for image in pools[split].images} for split in pools
    }
    assert not seen["train"] & (seen["validation"] | seen["test"])
    assert not seen["validation"] & seen["test"]


@pytest.mark.slow
@needs_files
def test_all_groups_of_the_real_images(monkeypatch):
    monkeypatch.setenv("JAXMETA_DATA_DIR", DATA_DIR)
    few = Cifar10C(train_points=6, validation_points=6, test_points=6, points_per_set=6)
    slots = np.arange(few.num_slots("test"))
    query = few.sample(jax.random.key(0), jax.numpy.asarray(slots), split="test").query
    assert query.inputs.shape == (22, 1, 6, 32, 32, 3)
    assert [len(few.sizes(split)) for split in few.table] == [56, 17, 22]
    pools = few.pools()
    for split, points in few.groups().items():
        for number, group in enumerate(few.table[split]):
            images = points.inputs[points.groups == number].astype(float)
            rows = few._draw(split, group, len(pools[split].labels)).rows
            clean = pools[split].images[rows].astype(float)
            # Still the same images, and not the very same.
            assert np.corrcoef(images.ravel(), clean.ravel())[0, 1] > 0.5, group
            assert not np.array_equal(images, clean), group
