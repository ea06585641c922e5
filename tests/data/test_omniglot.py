import logging
import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxmeta.data.omniglot import Omniglot, vinyals_split
from jaxmeta.data.source import DataError

DATA_DIR = os.environ.get("JAXMETA_DATA_DIR", "")
needs_file = pytest.mark.skipif(
    not (DATA_DIR and Path(DATA_DIR, "omniglot.npz").is_file()),
    reason="JAXMETA_DATA_DIR holds no omniglot.npz",
)

# Three characters of each split: Arcadian, Armenian, and the end of ULOG.
IDS = np.array([1, 2, 3, 27, 28, 29, 1621, 1622, 1623], np.uint16)


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.delenv("JAXMETA_DOWNLOAD", raising=False)


def write(tmp_path, **changes):
    images = np.zeros((len(IDS), 4, 28, 28), np.uint8)
    images[:, :, 0, 0] = np.arange(len(IDS))[:, None]
    arrays = {"images": images, "char_id": IDS} | changes
    np.savez(tmp_path / "omniglot.npz", **arrays)


def small(**settings):
    return Omniglot(**{"ways": 3, "shots": 1, "queries": 2} | settings)


def fake_tfds(lost=0):
    """A stand-in for the builder's `as_data_source`: black squares on white."""

    def as_data_source(self, split, **kwargs):
        del self, kwargs
        ids = [i for i in IDS.tolist() if (i <= 964) == (split == "train")]
        examples = []
        for i in ids:
            for _ in range(3):
                image = np.full((105, 105, 3), 255, np.uint8)
                image[: 4 + i % 50, :50] = 0
                examples.append({"image": image, "label": np.int64(i - 1)})
        return examples[lost:]

    return tfds.testing.mock_data(as_data_source_fn=as_data_source)


def test_split_sizes():
    assert np.bincount(vinyals_split(np.arange(1, 1624))).tolist() == [1028, 172, 423]


def test_split_of_known_characters():
    # Arcadian 1, Bengali 5, Hebrew 22, Gurmukhi 41 and 42.
    ids = np.array([1, 136, 487, 1200, 1201])
    assert vinyals_split(ids).tolist() == [0, 1, 1, 0, 2]


def test_npz_is_used_where_it_is(tmp_path):
    write(tmp_path)
    source = small(rotations=False)
    assert source.data_used == "Omniglot (omniglot.npz)"
    data = source.load()
    assert data.images.shape == (9 * 4, 28, 28, 1)
    pools = {split: pool.tolist() for split, pool in data.pools.items()}
    assert pools == {"train": [0, 1, 2], "validation": [3, 4, 5], "test": [6, 7, 8]}


def test_npz_episode(tmp_path):
    write(tmp_path)
    source = small(rotations=False)
    task = source.sample(jax.random.key(0), jnp.arange(2), split="test")
    codes = np.round(np.asarray(task.support.inputs[:, :, 0, 0, 0]) * 255)
    assert set(codes.ravel().tolist()) == {6.0, 7.0, 8.0}


def test_rows_may_come_in_any_order(tmp_path):
    write(tmp_path, char_id=IDS[::-1].copy())
    assert small(rotations=False).load().pools["test"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((9, 4, 14, 14), np.uint8)}, r"images should be .*14"),
        ({"images": np.zeros((9, 4, 28, 28), np.uint16)}, "images should be uint8"),
        ({"images": np.zeros((9, 4, 28, 28))}, "'images' should be uint"),
        ({"images": np.zeros((9, 28, 28), np.uint8)}, "with 4 axes"),
        ({"images": np.zeros((8, 4, 28, 28), np.uint8)}, "its 8 characters an id"),
        ({"char_id": np.zeros(9, np.int64)}, "between 1 and 1623"),
        ({"char_id": np.arange(1616, 1625)}, "between 1 and 1623"),
        ({"char_id": np.ones(9, np.int64)}, "1 distinct"),
        ({"char_id": np.linspace(1, 9, 9)}, "'char_id' should be int or uint"),
        ({"char_id": np.array([])}, "'char_id' should be"),
    ],
)
def test_wrong_file(tmp_path, changes, message):
    write(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        small().load()
    assert str(tmp_path / "omniglot.npz") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_file_is_an_error_not_a_reason_to_use_digits(tmp_path):
    write(tmp_path)
    path = tmp_path / "omniglot.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="truncated or corrupt"):
        small().load()


def test_tfds_is_used_where_it_may_be_downloaded(monkeypatch):
    monkeypatch.setenv("JAXMETA_DOWNLOAD", "1")  # which the mock makes harmless
    source = small(rotations=False)
    with fake_tfds():
        data = source.load()
    assert source.data_used == "Omniglot (TFDS)"
    assert data.images.shape == (9 * 3, 28, 28, 1)
    assert data.pools["validation"].tolist() == [3, 4, 5]


def test_tfds_drawings_are_inverted_and_shrunk(monkeypatch):
    monkeypatch.setenv("JAXMETA_DOWNLOAD", "1")
    with fake_tfds():
        image = small().classes().images[0, :, :, 0]
    # A square of 5 x 50 of 105 pixels is about 1.3 x 13 of 28.
    assert image[0, :10].tolist() == [255] * 10
    assert image[4:].max() == 0
    assert image[:, 16:].max() == 0


def test_tfds_with_characters_of_unequal_count(monkeypatch):
    monkeypatch.setenv("JAXMETA_DOWNLOAD", "1")
    with (
        fake_tfds(lost=1),
        pytest.raises(DataError, match="as many drawings as every other, got 2 to 3"),
    ):
        small(origin="tfds").load()


def test_tfds_that_is_not_there():
    with pytest.raises(DataError, match="run again with --download"):
        small(origin="tfds").load()


def test_npz_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"no such file.*--data-dir"):
        small(origin="npz").load()


def test_npz_without_a_data_directory(monkeypatch):
    monkeypatch.delenv("JAXMETA_DATA_DIR")
    with pytest.raises(DataError, match=r"JAXMETA_DATA_DIR.*`tfds build omniglot"):
        small(origin="npz").load()


def test_digits_stand_in_and_say_so_once(caplog, monkeypatch):
    monkeypatch.delenv("JAXMETA_DATA_DIR")
    source = small()
    with caplog.at_level(logging.WARNING):
        source.validate()
        images = source.load().images
    assert images.shape[1:] == (28, 28, 1)
    assert source.data_used == "scikit-learn digits, NOT Omniglot"
    assert len(caplog.messages) == 1
    assert "NOT Omniglot" in caplog.messages[0]


def test_digits_that_were_asked_for_need_no_warning(caplog):
    with caplog.at_level(logging.WARNING):
        small(origin="digits").load()
    assert not caplog.messages


def test_a_data_directory_without_the_file_is_a_mistake(tmp_path):
    with pytest.raises(DataError, match=re.escape(f"data directory {tmp_path}. Run")):
        Omniglot().validate()


def test_too_many_ways_for_the_stand_in(monkeypatch):
    monkeypatch.delenv("JAXMETA_DATA_DIR")
    with pytest.raises(ValueError, match="validation classes of scikit-learn digits"):
        Omniglot(ways=20).validate()


@needs_file
def test_whole_omniglot(monkeypatch):
    monkeypatch.setenv("JAXMETA_DATA_DIR", DATA_DIR)
    source = Omniglot()
    data = source.load()
    assert data.images.shape == (1623 * 20, 28, 28, 1)
    assert set(data.counts) == {20}
    sizes = {split: pool.size for split, pool in data.pools.items()}
    assert sizes == {"train": 1028, "validation": 172, "test": 423}
    assert source.example.query.inputs.shape == (75, 28, 28, 1)


@needs_file
def test_split_against_the_names_of_the_alphabets():
    with np.load(Path(DATA_DIR, "omniglot.npz")) as file:
        names = file["alphabet_names"][file["char_alphabet"]]
        split = vinyals_split(file["char_id"])
        background = file["char_split"] == 0
    validation = {"Armenian", "Bengali", "Early_Aramaic", "Hebrew"}
    assert set(names[split == 1]) == validation | {"Mkhedruli_(Georgian)"}
    assert len(set(names[(split == 0) & background])) == 25
    assert len(set(names[(split == 0) & ~background])) == 8
    assert not (background & (split == 2)).any()
    assert len(set(names[split == 2])) == 13
    assert set(names[split == 0]) & set(names[split == 2]) == {"Gurmukhi"}
