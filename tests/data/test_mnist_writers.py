"""MNIST by writer: on a small file of its form, and on the real one."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.data.mnist_writers import MnistWriters
from jaxmeta.data.source import DataError

DATA_DIR = os.environ.get("JAXMETA_DATA_DIR", "")
needs_file = pytest.mark.skipif(
    not (DATA_DIR and Path(DATA_DIR, "mnist_writers.npz").is_file()),
    reason="JAXMETA_DATA_DIR holds no mnist_writers.npz",
)

# Five writers with 1 to 5 digits each; an image says who wrote it.
WRITERS = np.repeat(np.array([4, 2, 2100, 9, 7], np.uint16), [1, 2, 3, 4, 5])
SMALL = {"validation_writers": 1, "test_writers": 2, "points_per_set": 2}


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path))
    return lambda **changes: write(tmp_path, **changes)


def write(directory, **changes):
    images = np.broadcast_to(
        (WRITERS % 251).astype(np.uint8)[:, None, None], (15, 4, 4)
    )
    labels = (np.arange(15) % 10).astype(np.uint8)
    arrays = {
        "x_train": images,
        "y_train": labels,
        "writer_train": WRITERS,
        "x_test": images[:1],
        "y_test": labels[:1],
    }
    np.savez(directory / "mnist_writers.npz", **(arrays | changes))


def test_a_group_is_one_writer(small):
    small()
    source = MnistWriters(**SMALL)
    for split, points in source.groups().items():
        ids = source.writers()[split]
        assert len(ids) == len(points.sizes) == {"train": 2, "test": 2}.get(split, 1)
        for group, writer in enumerate(ids):
            assert points.sizes[group] == (writer == WRITERS).sum()
            images = points.inputs[points.groups == group]
            np.testing.assert_array_equal(images, np.uint8(writer % 251))
            labels = points.targets[points.groups == group]
            np.testing.assert_array_equal(
                labels, np.flatnonzero(writer == WRITERS) % 10
            )


def test_every_digit_is_in_one_split(small):
    small()
    source = MnistWriters(**SMALL)
    assert sum(len(points.targets) for points in source.groups().values()) == 15
    assert sorted(np.concatenate(list(source.writers().values()))) == [2, 4, 7, 9, 2100]


def test_the_last_set_of_a_writer_is_masked(small):
    small()
    source = MnistWriters(**SMALL)
    sizes = source.sizes("test")
    slots = jnp.arange(source.num_slots("test"))
    query = source.sample(jax.random.key(0), slots, split="test").query
    for group, size in enumerate(sizes):
        mine = np.asarray(query.groups[:, :, 0] == group)
        assert np.asarray(query.mask)[mine].sum() == size
    assert query.inputs.shape[2:] == (2, 4, 4, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"writer_train": WRITERS[:14]}, "one writer an image, got 14 for 15"),
        ({"writer_train": WRITERS * 1.0}, "'writer_train' should be uint"),
        ({"writer_train": WRITERS // 2**12}, "leave none of 1 to train"),
        ({"y_train": np.full(15, 10, np.uint8)}, "labels up to 10"),
        ({"x_train": np.zeros((15, 4, 5), np.uint8)}, "square images"),
    ],
)
def test_a_damaged_file(small, changes, message):
    small(**changes)
    with pytest.raises(DataError, match=message):
        MnistWriters(**SMALL).groups()


def test_a_file_without_writers(small, tmp_path):
    np.savez(tmp_path / "mnist_writers.npz", x_train=np.zeros(1))
    with pytest.raises(DataError, match="has no array 'writer_train'"):
        MnistWriters(**SMALL).writers()


def test_no_file(small):
    with pytest.raises(DataError, match=r"not found; .*source FormDigits"):
        MnistWriters().groups()


def test_bad_numbers():
    for name in ("validation_writers", "test_writers"):
        for value in (0, 10_001):
            with pytest.raises(ValueError, match=f"{name} must be from 1 to 10000"):
                MnistWriters(**{name: value})
    with pytest.raises(ValueError, match="split_seed must be >= 0, got -1"):
        MnistWriters(split_seed=-1)
    with pytest.raises(ValueError, match="points_per_set"):
        MnistWriters(points_per_set=0)


@needs_file
def test_the_539_writers_of_mnist():
    source = MnistWriters()
    writers, groups = source.writers(), source.groups()
    assert [len(ids) for ids in writers.values()] == [389, 50, 100]
    assert len(np.unique(np.concatenate(list(writers.values())))) == 539
    sizes = np.concatenate([points.sizes for points in groups.values()])
    assert (sizes.sum(), sizes.min(), sizes.max()) == (60_000, 19, 131)
    assert groups["train"].inputs.shape[1:] == (28, 28, 1)
    # The published split: a change of the rule would be a change of the benchmark.
    assert writers["test"][:3].tolist() == [5, 12, 15]
