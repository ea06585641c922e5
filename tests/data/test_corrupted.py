"""Corrupted images: who shows what, what is kept, and what does not matter to it."""

import io
import os
import sys
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxmeta.data import corrupted
from jaxmeta.data.corrupted import (
    CorruptedImages,
    Draw,
    corrupt_groups,
    hold_out,
    severities,
)
from jaxmeta.data.corruptions import corrupt
from jaxmeta.data.image_folder import LabelledImages
from jaxmeta.data.source import DataError

SIZES = {"train": 12, "validation": 5, "test": 7}


def noise(n, seed=0, side=32):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), np.uint8)


# Every image is a class, so that a target says which clean image a point was.
CLEAN = {
    split: LabelledImages(noise(size, seed), np.arange(size))
    for seed, (split, size) in enumerate(SIZES.items())
}


class Small(CorruptedImages):
    table: ClassVar = {
        "train": (("brightness", 4), ("gaussian_noise", 2), ("snow", 1)),
        "validation": (("contrast", 3), ("gaussian_noise", 2)),
        "test": (("pixelate", 5), ("fog", 2)),
    }
    num_classes = 12
    data_used = "noise"

    def pools(self):
        return CLEAN


@pytest.fixture(autouse=True)
def kept(monkeypatch, tmp_path):
    """Even little work is kept, and no process is started for it."""
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    monkeypatch.setattr(corrupted, "_FEW_PIXELS", 0)
    return tmp_path


def assert_same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def group(points, number):
    part = points.groups == number
    return points.inputs[part], points.targets[part]


@pytest.mark.parametrize(
    ("split", "number", "name", "severity"),
    [
        ("train", 0, "brightness", 4),
        ("validation", 0, "contrast", 3),
        ("test", 0, "pixelate", 5),
    ],
)
def test_a_group_is_a_corruption(split, number, name, severity):
    images, targets = group(Small().groups()[split], number)
    assert sorted(targets) == list(range(SIZES[split]))
    rng = np.random.default_rng(9)  # these draw nothing
    expected = corrupt(CLEAN[split].images[targets], name, severity, rng)
    np.testing.assert_array_equal(images, expected)


def test_noise_is_added_to_the_image_of_the_label():
    images, targets = group(Small().groups()["train"], 1)
    difference = images - CLEAN["train"].images[targets].astype(float)
    # Clipping makes it smaller than 0.06 * 255, other images would make it 100.
    assert 10 < np.std(difference) < 0.06 * 255


def test_every_group_draws_anew_and_without_replacement():
    points = Small(train_points=5, validation_points=50, test_points=7).groups()
    drawn = [set(group(points["train"], number)[1].tolist()) for number in range(3)]
    assert [len(images) for images in drawn] == [5, 5, 5]
    assert len(set(map(frozenset, drawn))) > 1
    assert points["validation"].sizes.tolist() == [5, 5]
    assert points["test"].sizes.tolist() == [7, 7]


def test_the_same_group_differs_between_splits_and_seeds(monkeypatch):
    monkeypatch.setitem(CLEAN, "validation", CLEAN["train"])
    order = lambda points, number: group(points, number)[0][
        np.argsort(group(points, number)[1])
    ]
    first, other = Small().groups(), Small(seed=1).groups()
    noisy = order(first["train"], 1)
    assert not np.array_equal(noisy, order(first["validation"], 1))
    assert not np.array_equal(noisy, order(other["train"], 1))
    assert_same(first["train"], Small().groups()["train"])


def test_a_group_does_not_depend_on_the_others():
    class Fewer(Small):
        table: ClassVar = {"train": (("snow", 1),)}

        def pools(self):
            return {"train": CLEAN["train"]}

    few = Fewer(train_points=4).groups()["train"]
    images, targets = group(Small(train_points=4).groups()["train"], 2)
    np.testing.assert_array_equal(few.inputs, images)
    np.testing.assert_array_equal(few.targets, targets)


def draws():
    return [
        Draw(name, severity, np.arange(start, start + 3), np.random.default_rng(start))
        for start, (name, severity) in enumerate(
            severities("gaussian_noise", "snow", "jpeg_compression", of=(1, 4))
        )
    ]


def test_the_number_of_processes_does_not_matter():
    images = noise(8)
    one = corrupt_groups(images, draws(), num_processes=1)
    assert one.shape == (18, 32, 32, 3)
    two = corrupt_groups(images, draws(), num_processes=2)
    np.testing.assert_array_equal(one, two)


def test_a_process_that_is_killed(monkeypatch):
    def die(*args):
        os._exit(9)

    monkeypatch.setattr(corrupted, "corrupt", die)
    with pytest.raises(DataError, match=r"killed, .*LOKY_MAX_CPU_COUNT=1") as error:
        corrupt_groups(noise(8), draws(), num_processes=2)
    assert "\n" not in str(error.value)


def never(*args, **kwargs):
    pytest.fail("corrupted again")


def test_the_second_time_nothing_is_corrupted(monkeypatch, kept):
    first = Small().groups()
    assert len(list(kept.iterdir())) == 3
    with monkeypatch.context() as patch:
        patch.setattr(corrupted, "corrupt_groups", never)
        assert_same(first, Small().groups())
        with pytest.raises(pytest.fail.Exception, match="corrupted again"):
            Small(seed=1).groups()


def test_splits_are_kept_apart(kept):
    Small().groups()
    Small(test_points=3).groups()
    kinds = [path.name.split("-")[1] for path in kept.iterdir()]
    assert sorted(kinds) == ["test", "test", "train", "validation"]


def test_what_is_damaged_is_made_again_and_the_same(kept, caplog):
    first = Small().groups()
    path = next(path for path in kept.iterdir() if "-train-" in path.name)
    content = path.read_bytes()
    path.write_bytes(content[:1000])
    assert_same(first, Small().groups())
    assert path.read_bytes() == content
    assert caplog.text.count("is damaged; it is made again.") == 1


def test_nowhere_to_keep_it(monkeypatch, kept, caplog):
    expected = Small().groups()
    (kept / "file").write_text("")
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(kept / "file"))
    assert_same(expected, Small().groups())
    assert caplog.text.count("cannot be kept") == 3


def test_other_images_are_other_files(monkeypatch, kept):
    Small().groups()
    images = CLEAN["train"].images.copy()
    images[3, 0, 0, 0] ^= 1
    changed = LabelledImages(images, CLEAN["train"].labels)
    monkeypatch.setitem(CLEAN, "train", changed)
    Small().groups()
    assert len(list(kept.iterdir())) == 3 + 1


def test_another_version_is_another_file(monkeypatch, kept):
    Small().groups()
    monkeypatch.setattr(corrupted, "_VERSION", corrupted._VERSION + 1)
    Small().groups()
    assert len(list(kept.iterdir())) == 3 + 3


def test_little_work_is_not_kept(monkeypatch, kept):
    few = 12 * 3 * 32 * 32
    monkeypatch.setattr(corrupted, "_FEW_PIXELS", few)
    expected = Small().groups()
    assert not list(kept.iterdir())
    monkeypatch.setattr(corrupted, "_FEW_PIXELS", few - 1)
    assert_same(expected, Small().groups())
    assert [path.name.split("-")[1] for path in kept.iterdir()] == ["train"]


class Frosty(Small):
    table: ClassVar = {"test": (("frost", 1),)}

    def pools(self):
        return {"test": CLEAN["test"]}


def write_frost(directory, level):
    directory.mkdir()
    file = io.BytesIO()
    Image.new("RGB", (70, 70), (level, level, level)).save(file, "JPEG")
    jpeg = np.frombuffer(file.getvalue(), np.uint8)
    np.savez(directory / "frost.npz", **{f"frost{i}_2": jpeg for i in range(1, 6)})


def test_other_photos_of_frost_are_other_files(monkeypatch, tmp_path, kept):
    found = []
    for level in (0, 200):
        write_frost(tmp_path / f"data{level}", level)
        monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path / f"data{level}"))
        images, targets = group(Frosty().groups()["test"], 0)
        found.append(images[np.argsort(targets)])
    # At severity 1 the image is added to a fifth of the frost.
    expected = np.minimum(CLEAN["test"].images + 40.0, 255)
    np.testing.assert_array_equal(found[0], CLEAN["test"].images)
    np.testing.assert_array_equal(found[1], expected)
    assert len(list(kept.glob("Frosty-*"))) == 2


def test_frost_without_its_photos(monkeypatch):
    monkeypatch.delenv("JAXMETA_DATA_DIR", raising=False)
    with pytest.raises(DataError, match=r"frost.npz: not found"):
        Frosty().groups()


def test_images_that_are_published_are_drawn_as_they_are(monkeypatch, kept):
    class Published(Small):
        def pools(self):
            each = (LabelledImages(noise(9, seed), np.arange(9)) for seed in (5, 6))
            return CLEAN | {"test": each}

    points = Published(test_points=4).groups()["test"]
    for number, seed in enumerate((5, 6)):
        images, targets = group(points, number)
        assert len(set(targets.tolist())) == 4
        np.testing.assert_array_equal(images, noise(9, seed)[targets])
    assert not list(kept.glob("*-test-*"))


def test_images_are_normalised():
    source = Small(points_per_set=4)
    bytes_in = np.array([[[[0, 255, 51], [124, 116, 104]]]], np.uint8)
    # (byte / 255 - mean) / deviation, by hand.
    expected = [
        [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (0.2 - 0.406) / 0.225],
        [0.0012745 / 0.229, -0.0010980 / 0.224, 0.0018431 / 0.225],
    ]
    found = np.asarray(source.prepare(jnp.asarray(bytes_in)))[0, 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    query = source.sample(jax.random.key(0), jnp.arange(2), split="test").query
    assert query.inputs.shape == (2, 1, 4, 32, 32, 3)
    image = source.read()["test"].inputs[source.read()["test"].members[1, 0]]
    expected = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(query.inputs[1, 0, 0], expected, atol=1e-5)


def test_names_of_groups():
    assert Small().group_names("train") == [
        "brightness 4",
        "gaussian_noise 2",
        "snow 1",
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("gaussian_nois", 1), r"no corruption .*did you mean 'gaussian_noise'"),
        (("snow", 6), r"severity must be from 1 to 5, got 6"),
        (("snow", 0), r"severity must be from 1 to 5, got 0"),
    ],
)
def test_a_table_with_a_slip(wrong, message):
    class Wrong(Small):
        table: ClassVar = Small.table | {"validation": (("snow", 2), wrong)}

    with pytest.raises(ValueError, match=message) as error:
        Wrong()
    assert "\n" not in str(error.value)


def test_bad_numbers():
    for split in SIZES:
        with pytest.raises(ValueError, match=f"{split}_points must be >= 1, got 0"):
            Small(**{f"{split}_points": 0})
    with pytest.raises(ValueError, match="seed must be >= 0, got -1"):
        Small(seed=-1)
    with pytest.raises(ValueError, match="points_per_set"):
        Small(points_per_set=0)


def test_images_of_another_size():
    class Wide(Small):
        def pools(self):
            return {"train": LabelledImages(noise(2, side=28), np.arange(2))}

    with pytest.raises(
        ValueError, match=r"\[n, 32, 32, 3\] or .* got \[2, 28, 28, 3\]"
    ):
        Wide().groups()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal_only(monkeypatch, capsys):
    corrupt_groups(noise(8), draws())
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys, "stderr", Terminal())
    corrupt_groups(noise(8), draws(), label="corrupting, train")
    assert "corrupting, train: 100%" in sys.stderr.getvalue()
    assert "6/6" in sys.stderr.getvalue()
    monkeypatch.setattr(sys, "stderr", None)
    assert len(corrupt_groups(noise(8), draws())) == 18


def test_the_last_of_every_class_are_held_out():
    labels = np.array([1, 0, 0, 1, 0, 0, 0, 1, 0])
    images = np.arange(9, dtype=np.uint8).reshape(9, 1, 1, 1)
    pool = LabelledImages(np.broadcast_to(images, (9, 1, 1, 3)), labels)
    train, validation = hold_out(pool, 3, where="nine")
    # A third of six, and of three.
    assert validation.images[:, 0, 0, 0].tolist() == [6, 7, 8]
    assert validation.labels.tolist() == [0, 1, 0]
    assert train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert train.labels.tolist() == [1, 0, 0, 1, 0, 0]


def test_one_image_cannot_be_held_out():
    pool = LabelledImages(noise(3), np.array([0, 4, 0]))
    with pytest.raises(DataError, match=r"three: class 4 must have 2 images or more"):
        hold_out(pool, 3, where="three")


@pytest.mark.parametrize("sampler", ["group", "point", "client"])
def test_training_tasks_are_drawn_from_it(sampler):
    source = Small(points_per_set=2, sets_per_task=3, sampler=sampler)
    tasks = source.sample(jax.random.key(0), jnp.arange(2), split="train")
    assert tasks.query.inputs.shape == (2, 3, 2, 32, 32, 3)
    if sampler == "group":
        assert (tasks.query.groups[..., 0] == tasks.query.groups[..., 1]).all()
