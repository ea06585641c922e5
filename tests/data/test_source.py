import io
import json
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxmeta.data.source import (
    DataError,
    data_dir,
    downloads_allowed,
    find_file,
    load_npz,
    load_tfds,
    needed_file,
    tfds_prepared,
)

KEYS = {"images": (3, "u"), "label": (1, "iu")}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("JAXMETA_DATA_DIR", raising=False)
    monkeypatch.delenv("JAXMETA_DOWNLOAD", raising=False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


def write(path, compression=zipfile.ZIP_DEFLATED, **arrays):
    """An npz file with what is given; bytes are written as they are."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, value in arrays.items():
            buffer = io.BytesIO()
            if isinstance(value, bytes):
                buffer.write(value)
            else:
                np.lib.format.write_array(buffer, np.asarray(value))
            archive.writestr(f"{name}.npy", buffer.getvalue())
    return path


def good(tmp_path, compression=zipfile.ZIP_DEFLATED):
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    label = np.array([5, 6])
    return write(tmp_path / "a.npz", compression, images=images, label=label)


def one_line_error(path, *parts):
    with pytest.raises(DataError) as caught:
        load_npz(path, KEYS)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    for part in parts:
        assert part in message


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_LZMA])
def test_load_npz_reads_what_is_asked_for(tmp_path, compression):
    file = load_npz(good(tmp_path, compression), KEYS)
    assert set(file) == {"images", "label"}
    np.testing.assert_array_equal(file["label"], [5, 6])
    assert file["images"].shape == (2, 3, 4)


def test_load_npz_ignores_other_arrays(tmp_path):
    assert set(load_npz(good(tmp_path), {"label": (1, "i")})) == {"label"}


def test_a_needed_file_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"a.npz: not found; .*, or do without\.$"):
        needed_file("a.npz", otherwise="do without")
    (tmp_path / "a.npz").touch()
    assert needed_file("a.npz", otherwise="") == tmp_path / "a.npz"


def test_missing_file(tmp_path):
    one_line_error(tmp_path / "none.npz", "no such file", "--data-dir")


def test_directory_in_place_of_a_file(tmp_path):
    one_line_error(tmp_path, "no such file")


def test_empty_file(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"")
    one_line_error(path, "truncated or corrupt")


def test_text_file(tmp_path):
    path = tmp_path / "a.npz"
    path.write_text("version https://git-lfs.github.com/spec/v1\n" * 9)
    one_line_error(path, "truncated or corrupt", "copy it again, or make it")


def test_truncated_file(tmp_path):
    path = good(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    one_line_error(path, "truncated or corrupt")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_LZMA])
def test_flipped_byte(tmp_path, compression):
    path = good(tmp_path, compression)
    data = bytearray(path.read_bytes())
    # Inside the second array's contents: its header is 128 bytes before them.
    data[data.index(b"label.npy") + (130 if compression == 0 else 30)] ^= 255
    path.write_bytes(bytes(data))
    one_line_error(path, "truncated or corrupt")


def test_every_truncation_is_a_data_error(tmp_path):
    path = good(tmp_path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        one_line_error(path)


def test_plain_npy_file(tmp_path):
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    one_line_error(path, "truncated or corrupt")


def test_missing_array_names_what_is_there(tmp_path):
    path = write(tmp_path / "a.npz", label=np.array([1]))
    one_line_error(path, "no array 'images'", "it holds: label")


def test_wrong_number_of_axes(tmp_path):
    path = write(tmp_path / "a.npz", images=np.zeros((2, 3), np.uint8), label=[1])
    one_line_error(path, "'images' should be uint with 3 axes", "(2, 3)")


def test_wrong_kind(tmp_path):
    path = write(tmp_path / "a.npz", images=np.zeros((2, 3, 4)), label=[1])
    one_line_error(path, "'images' should be uint", "float64")


def test_structured_array(tmp_path):
    value = np.zeros((1, 1, 1), [("a", "u1"), ("b", "u1")])
    one_line_error(write(tmp_path / "a.npz", images=value, label=[1]), "'images'")


class Bomb:
    """Leaves a trace if it is ever unpickled."""

    def __reduce__(self):
        return (print, ("unpickled",))


def test_pickled_objects_are_refused_unread(tmp_path, capsys):
    path = tmp_path / "a.npz"
    np.savez(path, images=np.array([[[Bomb()]]], object), label=[1])
    capsys.readouterr()
    one_line_error(path, "pickled objects")
    assert capsys.readouterr().out == ""


def header(shape, descr="|u1"):
    text = repr({"descr": descr, "fortran_order": False, "shape": shape})
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "shape", [(10**5, 10**5, 40), (2, 3, 5), (2, 3, 3), (-2, -3, 4)]
)
def test_header_that_does_not_match_the_contents(tmp_path, shape):
    content = header(shape) + bytes(24)
    path = write(tmp_path / "a.npz", images=content, label=[1])
    one_line_error(path, "claims", "24 are there")


def test_garbage_header(tmp_path):
    content = b"\x93NUMPY\x01\x00\x10\x00" + b"__import__('os')" + bytes(24)
    path = write(tmp_path / "a.npz", images=content, label=[1])
    one_line_error(path, "truncated or corrupt")


def test_unknown_npy_version(tmp_path):
    content = b"\x93NUMPY\x07\x00" + bytes(100)
    one_line_error(write(tmp_path / "a.npz", images=content, label=[1]), "7")


def test_archive_that_claims_to_unpack_to_too_much(tmp_path):
    path = good(tmp_path)
    data = bytearray(path.read_bytes())
    # The uncompressed size of the first member, in the central directory.
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(bytes(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxmeta.data.source._MAX_UNPACKED_BYTES", 2**31)
        one_line_error(path, "more than")


def test_data_dir_is_the_environment_variable(monkeypatch, tmp_path):
    assert data_dir() is None
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path))
    assert data_dir() == tmp_path


def test_empty_data_dir_counts_as_unset(monkeypatch):
    monkeypatch.setenv("JAXMETA_DATA_DIR", "")
    assert data_dir() is None


def test_data_dir_must_be_a_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path / "none"))
    with pytest.raises(DataError, match="not a directory; set JAXMETA_DATA_DIR"):
        data_dir()


def test_find_file(monkeypatch, tmp_path):
    assert find_file("a.npz") is None
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path))
    assert find_file("a.npz") is None
    assert find_file(good(tmp_path).name) == tmp_path / "a.npz"


@pytest.mark.parametrize(("value", "allowed"), [("1", True), ("0", False), ("", False)])
def test_downloads_allowed(monkeypatch, value, allowed):
    monkeypatch.setenv("JAXMETA_DOWNLOAD", value)
    assert downloads_allowed() is allowed


def test_downloads_are_not_allowed_by_default():
    assert not downloads_allowed()


def test_tfds_examples(monkeypatch):
    monkeypatch.setenv("JAXMETA_DOWNLOAD", "1")  # which the mock makes harmless
    with tfds.testing.mock_data(num_examples=3):
        examples = list(load_tfds("omniglot", "train"))
    assert len(examples) == 3
    assert examples[0]["image"].shape == (105, 105, 3)


def test_absent_tfds_data_set_says_how_to_fetch_it_without_trying(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("TFDS must not be asked.")

    monkeypatch.setattr(tfds, "data_source", fail)
    assert not tfds_prepared("omniglot")
    with pytest.raises(DataError, match=r"'omniglot' is not in .*--download") as caught:
        load_tfds("omniglot", "train")
    assert "\n" not in str(caught.value)


def test_unknown_tfds_data_set(monkeypatch):
    monkeypatch.setenv("JAXMETA_DOWNLOAD", "1")
    with pytest.raises(DataError, match="'no_such_set' cannot be opened") as caught:
        load_tfds("no_such_set", "train")
    assert len(str(caught.value)) < 400


def prepared(tmp_path, file_format):
    """A TFDS directory with the metadata of a prepared data set and no records."""
    directory = tmp_path / "tfds" / "omniglot" / "3.0.0"
    directory.mkdir(parents=True)
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    split = {
        "name": "train",
        "shardLengths": ["1"],
        "numBytes": "1",
        "filepathTemplate": template,
    }
    info = {
        "name": "omniglot",
        "version": "3.0.0",
        "fileFormat": file_format,
        "splits": [split],
    }
    (directory / "dataset_info.json").write_text(json.dumps(info))
    return directory


def test_tfrecord_directory_says_how_to_prepare_it_again(tmp_path):
    prepared(tmp_path, "tfrecord")
    assert tfds_prepared("omniglot")
    with pytest.raises(DataError, match=r"without random access.*tfds build omniglot"):
        load_tfds("omniglot", "train")


def test_tfds_directory_without_its_records(tmp_path):
    prepared(tmp_path, "array_record")
    with pytest.raises(DataError, match="'omniglot'"):
        list(load_tfds("omniglot", "train"))


def test_damaged_tfds_metadata(tmp_path):
    (prepared(tmp_path, "array_record") / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match="'omniglot' cannot be opened"):
        load_tfds("omniglot", "train")


def test_tfds_example_that_cannot_be_decoded(monkeypatch):
    class Damaged:
        def __len__(self):
            return 2

        def __getitem__(self, i):
            if i == 1:
                raise RuntimeError("bad PNG\nsecond line")
            return {"label": 0}

    monkeypatch.setenv("JAXMETA_DOWNLOAD", "1")
    monkeypatch.setattr(tfds, "data_source", lambda *args, **kwargs: Damaged())
    examples = load_tfds("omniglot", "train")
    assert next(examples) == {"label": 0}
    with pytest.raises(DataError, match=r"example 1 cannot be read .*bad PNG\)"):
        next(examples)


def test_preparing_without_tensorflow_says_what_to_install(monkeypatch):
    def fail(*args, **kwargs):
        raise ModuleNotFoundError("No module named 'tensorflow'")

    monkeypatch.setenv("JAXMETA_DOWNLOAD", "1")
    monkeypatch.setattr(tfds, "data_source", fail)
    with pytest.raises(DataError, match="pip install tensorflow"):
        load_tfds("omniglot", "train")
