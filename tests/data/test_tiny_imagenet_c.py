"""Tiny ImageNet-C: the published groups, and clean images from a file and folders."""

import io
import itertools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxmeta.data.source import DataError, settle
from jaxmeta.data.tiny_imagenet_c import TinyImageNetC

DATA_DIR = os.environ.get("JAXMETA_DATA_DIR", "")
FILE = "tinyimagenet_subset.npz"
needs_files = pytest.mark.skipif(
    not all(Path(DATA_DIR, name).is_file() for name in (FILE, "frost.npz")),
    reason=f"JAXMETA_DATA_DIR holds no {FILE} and frost.npz",
)
WNIDS = [f"n{1000 + 7 * i:08}" for i in range(200)]


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path / "kept"))


def jpeg(red, green=0, side=64):
    """One colour, which JPEG keeps to within a level or two."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (red, green, 0)).save(file, "JPEG", quality=95)
    return file.getvalue()


def grey_jpeg(level):
    file = io.BytesIO()
    Image.new("L", (64, 64), level).save(file, "JPEG")
    return file.getvalue()


def packed(files):
    offsets = np.cumsum([0, *map(len, files)]).astype(np.uint32)
    return np.frombuffer(b"".join(files), np.uint8), offsets


def write_npz(directory, **changed):
    """Class i has five images to train, of red i, and class 7 i one to test, grey."""
    jpeg_train, offsets_train = packed([jpeg(i // 5) for i in range(1000)])
    jpeg_val, offsets_val = packed([grey_jpeg(7 * i) for i in range(20)])
    arrays = {
        "jpeg_train": jpeg_train,
        "offsets_train": offsets_train,
        "y_train": (np.arange(1000) // 5).astype(np.uint8),
        "jpeg_val": jpeg_val,
        "offsets_val": offsets_val,
        "y_val": np.arange(0, 140, 7).astype(np.uint8),
    }
    np.savez(directory / FILE, **(arrays | changed))


def write_frost(directory):
    jpegs = np.frombuffer(jpeg(90, 90, side=70), np.uint8)
    np.savez(directory / "frost.npz", **{f"frost{i}_3": jpegs for i in range(1, 6)})


def write_folders(root):
    """Two images of each class to train, and one of the first ten to test."""
    for label, wnid in enumerate(WNIDS):
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        (folder / f"{wnid}_0.JPEG").write_bytes(jpeg(label))
        (folder / f"{wnid}_1.JPEG").write_bytes(jpeg(label, 100))
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
    (root / "val" / "images").mkdir(parents=True)
    lines = []
    for label in range(9, -1, -1):
        name = f"val_{label}.JPEG"
        (root / "val" / "images" / name).write_bytes(jpeg(label, 200))
        lines.append(f"{name}\t{WNIDS[label]}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))


def assert_colours(images, red, green):
    """All pixels, to within what JPEG loses."""
    off = images[..., :2] - np.stack([red, green], -1)[:, None, None].astype(float)
    assert np.abs(off).max() <= 3


def test_the_groups_are_the_published_ones():
    five = lambda *names: [f"{name} {i}" for name in names for i in range(1, 6)]
    expected = {
        "train": [f"{n} {i}" for n in ("frost", "jpeg_compression") for i in (1, 2, 3)]
        + five("gaussian_noise", "shot_noise", "defocus_blur", "glass_blur")
        + five("zoom_blur", "snow", "brightness", "contrast", "pixelate"),
        "validation": [
            *("frost 4", "jpeg_compression 5"),
            *five("speckle_noise", "gaussian_blur", "saturate"),
        ],
        "test": [
            *("frost 5", "jpeg_compression 4"),
            *five("impulse_noise", "motion_blur", "fog", "elastic_transform"),
        ],
    }
    source = TinyImageNetC()
    assert {split: source.group_names(split) for split in source.table} == expected
    assert [len(names) for names in expected.values()] == [51, 17, 22]
    # All but spatter, each in one split.
    assert len({*itertools.chain(*expected.values())}) == 51 + 17 + 22 == 18 * 5


def test_the_defaults_are_the_published_numbers():
    source = TinyImageNetC()
    points = (source.train_points, source.validation_points, source.test_points)
    assert points == (2_000, 2_000, 3_000)
    assert source.num_classes == 200


def test_the_file_is_read(tmp_path):
    write_npz(tmp_path)
    pools = TinyImageNetC().pools()
    assert pools["train"].labels.tolist() == [i // 4 for i in range(800)]
    assert pools["validation"].labels.tolist() == list(range(200))
    assert_colours(pools["train"].images, pools["train"].labels, np.zeros(800))
    assert_colours(pools["validation"].images, np.arange(200), np.zeros(200))
    # Grey files become coloured images.
    assert pools["test"].labels.tolist() == list(range(0, 140, 7))
    assert_colours(pools["test"].images, *[pools["test"].labels] * 2)
    assert pools["test"].images.shape == (20, 64, 64, 3)


def test_all_groups(tmp_path):
    write_npz(tmp_path)
    write_frost(tmp_path)
    few = TinyImageNetC(train_points=2, validation_points=2, test_points=2)
    groups = few.groups()
    assert groups["train"].sizes.tolist() == [2] * 51
    assert groups["validation"].sizes.tolist() == [2] * 17
    assert groups["test"].sizes.tolist() == [2] * 22
    assert groups["test"].inputs.shape == (44, 64, 64, 3)


def test_folders_are_read(tmp_path):
    write_folders(tmp_path / "tiny")
    source = TinyImageNetC(path=str(tmp_path / "tiny"))
    pools = source.pools()
    assert settle(source).origin == "directory"
    labels = np.arange(200)
    for split, green in (("train", 0), ("validation", 100)):
        np.testing.assert_array_equal(pools[split].labels, labels)
        assert_colours(pools[split].images, labels, np.full(200, green))
    assert pools["test"].labels.tolist() == list(range(9, -1, -1))
    assert_colours(pools["test"].images, pools["test"].labels, np.full(10, 200))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "names no images"),
        (b"val_0.JPEG\tn99999999\t0\t0\t1\t1\n", "line 1 must begin with .*n99999999"),
        (b"val_0.JPEG\n", "line 1 must begin"),
        (b"../../secret.JPEG\tn00001000\n", "line 1 must begin"),
        (b"/etc/secret.JPEG\tn00001000\n", "line 1 must begin"),
        (b"..\tn00001000\n", "line 1 must begin"),
        (b"val_0.JPEG\tn00001000\n\tn00001000\n", "line 2 must begin"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_annotations_that_are_not_as_they_should_be(tmp_path, content, message):
    write_folders(tmp_path)
    (tmp_path / "val" / "val_annotations.txt").write_bytes(content)
    with pytest.raises(DataError, match=f"val_annotations.txt: {message}") as error:
        TinyImageNetC(path=str(tmp_path)).pools()
    assert "\n" not in str(error.value)


def test_folders_that_are_not_as_they_should_be(tmp_path):
    source = TinyImageNetC(path=str(tmp_path))
    with pytest.raises(DataError, match=r"train: no such folder"):
        source.pools()
    write_folders(tmp_path)
    (tmp_path / "val" / "images" / "val_3.JPEG").unlink()
    with pytest.raises(DataError, match=r"val_3.JPEG: cannot be read"):
        source.pools()
    (tmp_path / "val" / "val_annotations.txt").unlink()
    with pytest.raises(DataError, match=r"val_annotations.txt: cannot be read"):
        source.pools()
    (tmp_path / "train" / WNIDS[4] / "images" / f"{WNIDS[4]}_0.JPEG").write_bytes(b"no")
    with pytest.raises(DataError, match=rf"{WNIDS[4]}_0.JPEG: not a JPEG or PNG"):
        source.pools()
    (tmp_path / "train" / "more").mkdir()
    with pytest.raises(DataError, match=r"train: must hold 200 folders.* got 201"):
        source.pools()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y_val": np.zeros(19, np.uint8)}, "jpeg_val: its offsets must rise"),
        ({"offsets_val": np.zeros(21, np.uint32)}, "jpeg_val: its offsets must rise"),
        ({"offsets_val": np.array([], np.uint32)}, "jpeg_val: its offsets must rise"),
        ({"jpeg_val": np.zeros(7, np.uint8)}, "jpeg_val: its offsets must rise"),
        (
            {
                "jpeg_val": np.zeros(4, np.uint8),
                "offsets_val": np.array([0, 4], np.uint32),
                "y_val": np.zeros(1, np.uint8),
            },
            "jpeg_val: image 0: not a JPEG or PNG image",
        ),
    ],
)
def test_a_file_that_is_not_as_it_should_be(tmp_path, changed, message):
    write_npz(tmp_path, **changed)
    with pytest.raises(DataError, match=f"{FILE}.*{message}") as error:
        TinyImageNetC().pools()
    assert "\n" not in str(error.value)


def test_an_image_of_another_size(tmp_path):
    jpeg_val, offsets_val = packed([jpeg(0), jpeg(0, side=32)])
    write_npz(
        tmp_path,
        jpeg_val=jpeg_val,
        offsets_val=offsets_val,
        y_val=np.zeros(2, np.uint8),
    )
    with pytest.raises(DataError, match=r"jpeg_val: image 1: .* got 32 x 32"):
        TinyImageNetC().pools()


def test_where_images_come_from(tmp_path):
    with pytest.raises(DataError, match=rf"^{FILE}: not found; .*put the unpacked"):
        settle(TinyImageNetC())
    write_npz(tmp_path)
    assert settle(TinyImageNetC()) == TinyImageNetC(origin="npz")
    assert settle(TinyImageNetC(path="here")).origin == "directory"
    used = f"a subset of Tiny ImageNet ({FILE}), corrupted here; groups share images"
    assert TinyImageNetC().data_used == used


def test_bad_origins(untyped):
    with pytest.raises(ValueError, match="origin must be one of auto, npz, directory"):
        TinyImageNetC(origin="tfds")


@needs_files
def test_the_real_images(monkeypatch):
    monkeypatch.setenv("JAXMETA_DATA_DIR", DATA_DIR)
    pools = TinyImageNetC().pools()
    for split, each in (("train", 8), ("validation", 2), ("test", 5)):
        assert np.bincount(pools[split].labels).tolist() == [each] * 200
    seen = {
        split: {image.tobytes() for image in pools[split].images} for split in pools
    }
    assert not seen["train"] & (seen["validation"] | seen["test"])
    assert not seen["validation"] & seen["test"]


@pytest.mark.slow
@needs_files
def test_all_groups_of_the_real_images(monkeypatch):
    monkeypatch.setenv("JAXMETA_DATA_DIR", DATA_DIR)
    few = TinyImageNetC(
        train_points=4, validation_points=4, test_points=4, points_per_set=4
    )
    slots = jnp.arange(few.num_slots("test"))
    query = few.sample(jax.random.key(0), slots, split="test").query
    assert query.inputs.shape == (22, 1, 4, 64, 64, 3)
    assert [len(few.sizes(split)) for split in few.table] == [51, 17, 22]
