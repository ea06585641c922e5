"""Few-shot classes from folders, TFDS, mini-ImageNet and CIFAR-FS."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxmeta.data import cifar_fs, mini_imagenet
from jaxmeta.data.cifar_fs import CifarFs
from jaxmeta.data.episodes import SPLITS
from jaxmeta.data.image_classes import ImageClasses
from jaxmeta.data.image_folder import read_resized
from jaxmeta.data.mini_imagenet import MiniImageNet
from jaxmeta.data.source import DataError, settle

DATA_DIR = os.environ.get("JAXMETA_DATA_DIR", "")
needs = lambda name: pytest.mark.skipif(
    not os.path.isfile(os.path.join(DATA_DIR, name)),
    reason=f"{name} is not in JAXMETA_DATA_DIR",
)


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("JAXMETA_DOWNLOAD", "")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


def put(folder, shades, *, mode="RGB", side=6, suffix="png"):
    """A class of one-coloured images."""
    folder.mkdir(parents=True)
    for i, shade in enumerate(shades):
        colour = shade if mode == "L" else (shade, 255 - shade, 0)
        Image.new(mode, (side, side + 2), colour).save(folder / f"{i}.{suffix}")


def small(root, **settings):
    few = {"ways": 2, "shots": 1, "queries": 1, "image_size": 4}
    return ImageClasses(**{"path": str(root), **few} | settings)


def sizes(data):
    return [data.pools[split].size for split in SPLITS]


def folders(root):
    for part, names in (("train", "abc"), ("val", "de"), ("test", "fg")):
        for i, name in enumerate(names):
            put(root / part / name, range(10 * i, 10 * i + 2 + i))


def test_folders_of_splits(tmp_path):
    folders(tmp_path)
    data = small(tmp_path).load()
    assert data.images.shape == (2 + 3 + 4 + 2 + 3 + 2 + 3, 4, 4, 3)
    counts = {s: data.counts[pool].tolist() for s, pool in data.pools.items()}
    assert counts == {"train": [2, 3, 4], "validation": [2, 3], "test": [2, 3]}
    # After f and g, which test, and a.
    assert data.images[2 + 3 + 2, 0, 0].tolist() == [10, 245, 0]


def test_a_class_belongs_to_one_split(tmp_path):
    """The folders of ordinary classification have every class in every part."""
    folders(tmp_path)
    put(tmp_path / "test" / "a", [1, 2])
    with pytest.raises(DataError, match=r"the class a is in t.* and t.*name .*/train"):
        small(tmp_path).validate()


def test_hidden_files_are_left_out(tmp_path):
    folders(tmp_path)
    before = small(tmp_path).load().counts.tolist()
    put(tmp_path / "train" / "a" / ".ipynb_checkpoints", [1])
    (tmp_path / "train" / "b" / "._0.png").write_bytes(b"of macOS")
    again = small(tmp_path, queries=1)
    assert ImageClasses(**vars(again)).classes().counts.tolist() == before


def test_a_photograph_stands_as_its_camera_did(tmp_path):
    upright = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its left side
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "a.png", exif=exif)
    found = read_resized(tmp_path / "a.png", 4)
    np.testing.assert_array_equal(found, np.asarray(upright))


def test_folders_without_splits_are_split_once_for_all(tmp_path):
    for i in range(10):
        put(tmp_path / f"class{i}", [i, i], mode="L", suffix="jpg")
    data = small(tmp_path).load()
    assert data.images.shape == (20, 4, 4, 1)
    assert sizes(data) == [6, 2, 2]
    again = small(tmp_path).load()
    for split, pool in data.pools.items():
        np.testing.assert_array_equal(pool, again.pools[split])


def test_examples_are_of_their_class_however_many_it_has(tmp_path):
    folders(tmp_path)
    source = small(tmp_path)
    sample = jax.jit(source.sample_from, static_argnames="split")
    tasks = sample(source.load(), jax.random.key(0), jnp.arange(200), split="train")
    shade = lambda images: np.round(np.asarray(images)[:, :, 0, 0, 0] * 255).astype(int)
    support, query = shade(tasks.support.inputs), shade(tasks.query.inputs)
    np.testing.assert_array_equal(support // 10, query // 10)
    assert np.all(support != query)
    # Every example of every class, and nothing of the next class.
    seen = set(np.concatenate([support, query]).ravel().tolist())
    assert seen == {0, 1, 10, 11, 12, 20, 21, 22, 23}
    counts = np.bincount(support[support >= 20] - 20)
    assert counts.min() > 0.15 * counts.sum()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda root: (root / "train/b/0.png").write_bytes(b"\x89PNG\r\n\x1a\n12"),
            r"train/b/0.png: (not a JPEG or PNG|cannot be read)",
        ),
        (
            lambda root: (root / "test/f/0.png").unlink(),
            r"test/f: a class must have 2 images or more.* got 1",
        ),
        (
            lambda root: Image.new("L", (6, 6)).save(root / "val/e/1.png"),
            "holds grey images and .* coloured ones",
        ),
    ],
)
def test_a_folder_that_is_not_as_it_should_be(tmp_path, spoil, message):
    folders(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message) as error:
        small(tmp_path).validate()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("change", ["more", "less"])
def test_splits_that_are_not_three(tmp_path, change):
    folders(tmp_path)
    if change == "more":
        put(tmp_path / "labels", [1])
    else:
        (tmp_path / "val").rename(tmp_path / "train" / "d")
    with pytest.raises(
        DataError, match="there must be train, val and test, and nothing"
    ):
        small(tmp_path).validate()


def test_pixels_of_every_mode(tmp_path):
    deep = np.array([[0, 255], [256 * 7, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert read_resized(tmp_path / "deep.png", 2)[..., 0].tolist() == [[0, 0], [7, 255]]
    Image.new("RGBA", (2, 2), (9, 8, 7, 0)).save(tmp_path / "glass.png")
    assert read_resized(tmp_path / "glass.png", 2)[0, 0].tolist() == [255, 255, 255]
    Image.new("LA", (2, 2), (9, 255)).save(tmp_path / "grey.png")
    assert read_resized(tmp_path / "grey.png", 2)[0, 0].tolist() == [9]


def test_a_truncated_jpeg_is_named(tmp_path):
    folders(tmp_path)
    path = tmp_path / "train/a/0.jpeg"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"train/a/0.jpeg: cannot be read, truncated"):
        small(tmp_path).validate()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ways": 3}, "ways must be <= 2, the number of validation classes of images"),
        ({"queries": 2}, "<= 2, the number of examples of the smallest class .* 1 . 2"),
    ],
)
def test_episodes_that_do_not_fit(tmp_path, settings, message):
    folders(tmp_path)
    with pytest.raises(ValueError, match=message):
        small(tmp_path, **settings).validate()


def test_no_folder(tmp_path):
    with pytest.raises(DataError, match="nothing: no such folder"):
        small(tmp_path / "nothing").validate()
    with pytest.raises(DataError, match="holds no folders"):
        small(tmp_path).validate()


@pytest.mark.parametrize("settings", [{}, {"path": "a", "tfds": "b"}])
def test_one_place_must_be_named(settings):
    with pytest.raises(ValueError, match="one of path and tfds must be given"):
        ImageClasses(**settings)


def fake_tfds(keys=("image", "label"), num_classes=10):
    def as_data_source(self, split, **kwargs):
        del self, kwargs
        assert split == "all"
        image = lambda i: np.full((5, 5, 3), i % 256, np.uint8)
        rows = [(image(i), np.int64(i % num_classes)) for i in range(3 * num_classes)]
        return [dict(zip(keys, row, strict=True)) for row in rows]

    return tfds.testing.mock_data(as_data_source_fn=as_data_source)


def test_a_data_set_of_tfds(monkeypatch):
    monkeypatch.setenv("JAXMETA_DOWNLOAD", "1")  # which the mock makes harmless
    source = ImageClasses(tfds="cifar10", ways=2, queries=1, image_size=4)
    with fake_tfds():
        data = source.load()
    assert data.images.shape == (30, 4, 4, 3)
    assert data.images[:3, 0, 0, 0].tolist() == [0, 10, 20]
    assert sizes(data) == [6, 2, 2]


def test_a_data_set_without_labels(monkeypatch):
    monkeypatch.setenv("JAXMETA_DOWNLOAD", "1")
    source = ImageClasses(tfds="cifar10", ways=2, queries=1)
    with (
        fake_tfds(("image", "kind")),
        pytest.raises(DataError, match="got image, kind"),
    ):
        source.validate()


# CIFAR-FS.


def test_every_class_of_cifar_100_is_in_one_split():
    names = [name for names in cifar_fs.NAMES.values() for name in names.split()]
    assert [len(names.split()) for names in cifar_fs.NAMES.values()] == [64, 16, 20]
    assert len(set(names)) == 100


def test_cifar_fs_from_tfds(monkeypatch):
    monkeypatch.setenv("JAXMETA_DOWNLOAD", "1")
    with fake_tfds(num_classes=100):
        source = settle(CifarFs(shots=1, queries=1))
        data = source.load()
    assert source.data_used == "CIFAR-FS (TFDS)"
    assert data.counts.tolist() == [3] * 100
    # Alphabetical: 2 is a baby, 4 a beaver.
    assert 2 in data.pools["test"]
    assert 4 in data.pools["validation"]


def test_cifar_fs_from_a_directory(tmp_path):
    for i, name in enumerate(cifar_fs._classes()):
        put(tmp_path / "cifar100" / "train" / name, [i])
        put(tmp_path / "cifar100" / "test" / name, [i, i])
    source = CifarFs(shots=1, queries=1)
    data = source.load()
    assert source.data_used == "CIFAR-FS (a directory)"
    assert data.images[::3, 0, 0, 0].tolist() == list(range(100))


def test_cifar_fs_with_a_class_that_it_has_not(tmp_path):
    for name in [*list(cifar_fs._classes())[1:], "zebra"]:
        put(tmp_path / "train" / name, [1, 2])
    with pytest.raises(DataError, match="train: zebra is no class of CIFAR-100"):
        CifarFs(path=str(tmp_path)).validate()


def test_cifar_fs_that_is_not_there():
    with pytest.raises(DataError, match=r"cifar100_subset.npz: not found"):
        CifarFs().validate()


@needs(cifar_fs.FILE)
def test_the_file_of_cifar_100(monkeypatch):
    monkeypatch.setenv("JAXMETA_DATA_DIR", DATA_DIR)
    data = CifarFs().load()
    assert data.images.shape == (6000, 32, 32, 3)
    assert set(data.counts.tolist()) == {60}
    names = np.load(os.path.join(DATA_DIR, cifar_fs.FILE))["class_names"].tolist()
    assert list(cifar_fs._classes()) == names


# mini-ImageNet.


def test_mini_imagenet_from_a_directory(tmp_path):
    wnids = [w for ids in mini_imagenet.WORDNET_IDS.values() for w in ids.split()]
    assert len(set(wnids)) == 100
    for i, wnid in enumerate(wnids):
        put(tmp_path / "miniimagenet" / f"part{i % 3}" / wnid, [i, i], side=84)
    source = MiniImageNet(shots=1, queries=1)
    data = source.load()
    assert source.data_used == "mini-ImageNet (a directory)"
    assert data.images.shape == (200, 84, 84, 3)
    assert sizes(data) == [64, 16, 20]
    assert data.images[::2, 0, 0, 0].tolist() == list(range(100))


def test_a_class_of_mini_imagenet_may_lie_in_several_folders(tmp_path):
    wnids = [w for ids in mini_imagenet.WORDNET_IDS.values() for w in ids.split()]
    for wnid in wnids:
        put(tmp_path / "train" / wnid, [1, 2], side=84)
        put(tmp_path / "val" / wnid, [3], side=84)
    put(tmp_path / "train" / wnids[0] / wnids[0], [4], side=84)
    data = MiniImageNet(shots=1, queries=1, path=str(tmp_path)).load()
    assert data.counts.tolist() == [4] + [3] * 99
    assert sorted(data.images[:4, 0, 0, 0].tolist()) == [1, 2, 3, 4]


def test_mini_imagenet_without_a_class(tmp_path):
    put(tmp_path / "n01532829", [1, 2])
    with pytest.raises(DataError, match="must hold a folder n01558993"):
        MiniImageNet(path=str(tmp_path)).validate()


def test_mini_imagenet_that_is_not_there():
    with pytest.raises(DataError, match=r"miniimagenet_subset.npz: not found"):
        MiniImageNet().validate()


@pytest.mark.usefixtures("untyped")
def test_refuses_an_unknown_origin():
    for kind in (MiniImageNet, CifarFs):
        with pytest.raises(ValueError, match="origin must be one of"):
            kind(origin="web")


@needs(mini_imagenet.FILE)
def test_the_file_of_mini_imagenet(monkeypatch):
    monkeypatch.setenv("JAXMETA_DATA_DIR", DATA_DIR)
    data = MiniImageNet(shots=5, queries=15).load()
    assert data.images.shape == (2000, 84, 84, 3)
    assert set(data.counts.tolist()) == {20}
    file = np.load(os.path.join(DATA_DIR, mini_imagenet.FILE))
    for split, pool in data.pools.items():
        found = set(file["wnid"][np.asarray(pool)].tolist())
        assert found == set(mini_imagenet.WORDNET_IDS[split].split())
