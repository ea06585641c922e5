"""The four copies of FEMNIST: tiny files of their forms, whole and damaged."""

import contextlib
import json
import sqlite3
import subprocess
import sys
import zlib

import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from tensorflow_datasets.proto import tf_example_pb2

from jaxmeta.data.femnist_files import find_parts
from jaxmeta.data.source import DataError

LABELS = {"f0001_10": [0, 61, 36], "f0000_14": [7]}


def drawn(labels):
    """Paper with one pixel of ink, in the row that the label says."""
    pixels = np.ones((len(labels), 28, 28), np.float32)
    pixels[np.arange(len(labels)), np.asarray(labels, int) % 28, 3] = 0.25
    return {"pixels": pixels, "label": np.asarray(labels, np.int32)}


def whole():
    return {writer: drawn(labels) for writer, labels in LABELS.items()}


def write_h5(directory, writers, name="fed_emnist_train.h5"):
    h5py = pytest.importorskip("h5py", reason="needs the extra femnist")
    with h5py.File(directory / name, "w") as file:
        for writer, arrays in writers.items():
            group = file.create_group(f"examples/{writer}")
            for key, array in arrays.items():
                group[key] = array
    return directory / name


def write_sqlite(directory, writers, name="federated_emnist_train.sqlite"):
    create = "CREATE TABLE federated_data (client_id BLOB, data BLOB, num_examples INT)"
    with contextlib.closing(sqlite3.connect(directory / name)) as file, file:
        file.execute(create)
        for writer, arrays in writers.items():
            packed = zlib.compress(msgpack_serialize(dict(arrays)))
            size = len(arrays.get("label", arrays.get("pixels")))
            key = f"{'0' * 16}:{writer}".encode()
            file.execute(
                "INSERT INTO federated_data VALUES (?, ?, ?)", [key, packed, size]
            )
    return directory / name


def write_tff(directory, writers, name="emnist_all.sqlite"):
    """One row a drawing, which is there a second time, in a split of digits alone."""
    create = (
        "CREATE TABLE examples (split_name TEXT, client_id TEXT, "
        "serialized_example_proto BLOB)"
    )
    with contextlib.closing(sqlite3.connect(directory / name)) as file, file:
        file.execute(create)
        for writer, arrays in writers.items():
            for i in range(len(arrays.get("label", arrays.get("pixels")))):
                message = tf_example_pb2.Example()
                feature = message.features.feature
                if "pixels" in arrays:
                    pixels = np.ravel(arrays["pixels"][i]).tolist()
                    feature["pixels"].float_list.value.extend(pixels)
                if "label" in arrays:
                    feature["label"].int64_list.value.append(int(arrays["label"][i]))
                for split in ("all_test", "digits_only_test"):
                    row = (split, writer, message.SerializeToString())
                    file.execute("INSERT INTO examples VALUES (?, ?, ?)", row)
    return directory / name


def write_json(directory, writers, name="all_data_0.json"):
    names = {"pixels": "x", "label": "y"}
    flat = lambda x: (
        [np.ravel(row).tolist() for row in x] if x.ndim == 3 else x.tolist()
    )
    users = {
        writer: {names[key]: flat(array) for key, array in arrays.items()}
        for writer, arrays in writers.items()
    }
    sizes = [len(user.get("y", ())) for user in users.values()]
    content = {"users": list(users), "num_samples": sizes, "user_data": users}
    (directory / name).write_text(json.dumps(content))
    return directory / name


WRITE = {
    "h5": write_h5,
    "sqlite": write_sqlite,
    "sqlite of TFF": write_tff,
    "json": write_json,
}
every_kind = pytest.mark.parametrize("write", WRITE.values(), ids=WRITE)


def load(path):
    return [part.load() for part in find_parts(path)]


@every_kind
def test_ink_is_255_and_classes_are_what_they_are(write, tmp_path):
    parts = {part.writer: part for part in find_parts(write(tmp_path, whole()))}
    assert set(parts) == set(LABELS)
    for writer, labels in LABELS.items():
        found = parts[writer].load()
        assert parts[writer].size == len(labels)
        assert found.labels.tolist() == labels
        expected = np.zeros((len(labels), 28, 28, 1), np.uint8)
        # 0.75 of 255 is 191.25.
        expected[np.arange(len(labels)), np.array(labels) % 28, 3] = 191
        np.testing.assert_array_equal(found.images, expected)
        assert found.images.dtype == np.uint8


@every_kind
def test_all_files_of_a_directory(write, tmp_path):
    suffix = write(tmp_path, {"f0": drawn([1])}).suffix
    write(tmp_path, {"f0": drawn([2, 3]), "f1": drawn([4])}, f"more{suffix}")
    (tmp_path / "README.md").write_text("not data")
    found = sorted(
        (part.writer, part.load().labels.tolist()) for part in find_parts(tmp_path)
    )
    assert found == [("f0", [1]), ("f0", [2, 3]), ("f1", [4])]


def test_files_of_two_kinds(tmp_path):
    write_json(tmp_path, whole())
    write_sqlite(tmp_path, whole())
    with pytest.raises(DataError, match=r"files of one kind .*got \.json, \.sqlite"):
        find_parts(tmp_path)


def test_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "a.tar.bz2", tmp_path / "all_data_0.json"):
        with pytest.raises(
            DataError, match=r"one kind out of \.h5, \.sqlite, \.json, got no"
        ):
            find_parts(path)


# What a file may hold wrongly, and the words that must be in the message.
WRONG = {
    "a label too high": (drawn([62]), "labels 0 to 61, got 62 to 62"),
    "a negative label": (drawn([-1]), "labels 0 to 61, got -1"),
    "labels that are not whole": (
        drawn([1]) | {"label": np.array([1.5])},
        "integer labels, got float64",
    ),
    "small images": (
        drawn([1]) | {"pixels": np.ones((1, 14, 14), np.float32)},
        "1 drawings of 28 x 28",
    ),
    "a drawing too many": (
        drawn([1]) | {"pixels": np.ones((2, 28, 28), np.float32)},
        r"1 drawings of 28 x 28 numbers, got float32 \(2, ",
    ),
    "bytes": (
        drawn([1]) | {"pixels": np.full((1, 28, 28), 255.0, np.float32)},
        r"pixels from 0 \(ink\) to 1 \(paper\), got 255",
    ),
    "nan": (
        drawn([1]) | {"pixels": np.full((1, 28, 28), np.nan, np.float32)},
        "pixels from 0 .*got nan",
    ),
    "nothing drawn": (
        {"pixels": np.ones((0, 28, 28), np.float32), "label": np.zeros(0, np.int32)},
        "from 1 to 10000 drawings, got 0",
    ),
}


# A row for every drawing has as many labels, which are whole.
NOT_OF_TFF = {"labels that are not whole", "a drawing too many", "nothing drawn"}


@pytest.mark.parametrize(
    ("write", "arrays", "message"),
    [
        pytest.param(write, *wrong, id=f"{kind}-{name}")
        for kind, write in WRITE.items()
        for name, wrong in WRONG.items()
        if not (write is write_tff and name in NOT_OF_TFF)
    ],
)
def test_a_wrong_writer_is_named(write, arrays, message, tmp_path):
    path = write(tmp_path, {"f0000_14": drawn([1]), "f0099_01": arrays})
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert f"{path}: writer 'f0099_01'" in str(caught.value)
    assert "\n" not in str(caught.value)


@every_kind
@pytest.mark.parametrize("key", ["pixels", "label"])
def test_a_missing_key(write, key, tmp_path):
    arrays = drawn([1])
    del arrays[key]
    name = {"pixels": "x", "label": "y"}[key] if write is write_json else key
    path = write(tmp_path, {"f0": arrays})
    if write is write_json and key == "pixels":
        assert json.loads(path.read_text())["num_samples"] == [1]
    with pytest.raises(DataError, match=f"{path}: .*{name}"):
        load(path)


@every_kind
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_a_truncated_file(write, share, tmp_path):
    many = {f"f{i}": drawn(list(range(20))) for i in range(9)}
    path = write(tmp_path, many)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(
        DataError, match="cannot be read, truncated or corrupt"
    ) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@every_kind
def test_any_bytes_end_in_one_line(write, tmp_path):
    """Bytes changed at random: the file is read, or there is one line about it."""
    path = write(tmp_path, whole())
    content, rng = np.frombuffer(path.read_bytes(), np.uint8), np.random.default_rng(0)
    messages = []
    for _ in range(40):
        changed = content.copy()
        places = rng.integers(len(content), size=max(1, len(content) // 500))
        changed[places] = rng.integers(256, size=len(places))
        path.write_bytes(changed.tobytes())
        try:
            load(path)
        except DataError as error:
            messages.append(str(error))
    assert messages
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "should hold users, num_samples, user_data together, got a list"),
        ({"users": []}, "together, got users"),
        (
            {"users": [3], "num_samples": [0], "user_data": {}},
            "users must be different names",
        ),
        (
            {"users": ["a", "a"], "num_samples": [1, 1], "user_data": {}},
            "users must be different names",
        ),
        ({"users": ["a"], "num_samples": [], "user_data": {}}, "cannot be read"),
        ({"users": ["a"], "num_samples": [1], "user_data": {}}, "should hold a togeth"),
        (
            {
                "users": ["a"],
                "num_samples": [2],
                "user_data": {"a": {"x": [], "y": [1]}},
            },
            r"writer 'a' should have 2 integer labels, got int64 \(1,\)",
        ),
        (
            {
                "users": ["a"],
                "num_samples": [2],
                "user_data": {"a": {"x": [[1.0], [1.0, 0.5]], "y": [1, 2]}},
            },
            "writer 'a' should have drawings of one size.*inhomogeneous",
        ),
    ],
)
def test_a_wrong_json(content, message, tmp_path):
    path = tmp_path / "all_data_0.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        find_parts(path)


@pytest.mark.parametrize("size", [True, "1", 1.0, None])
def test_a_number_of_drawings_that_is_none(size, tmp_path):
    drawn = {"x": [[1.0] * 784], "y": [1]}
    content = {"users": ["a"], "num_samples": [size], "user_data": {"a": drawn}}
    (tmp_path / "all_data_0.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"10000 drawings, got {size!r}; copy"):
        find_parts(tmp_path)


@pytest.mark.parametrize("labels", [[[1, 2], []], [[], []]])
def test_rows_that_have_no_label_or_two(labels, tmp_path):
    path = write_tff(tmp_path, {"f0": drawn([1, 1])})
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        rows = file.execute("SELECT rowid, serialized_example_proto FROM examples")
        for (rowid, packed), own in zip(rows.fetchall()[::2], labels, strict=True):
            message = tf_example_pb2.Example.FromString(packed)
            values = message.features.feature["label"].int64_list.value
            del values[:]
            values.extend(own)
            change = "UPDATE examples SET serialized_example_proto = ? WHERE rowid = ?"
            file.execute(change, [message.SerializeToString(), rowid])
    with pytest.raises(DataError, match="'f0' should have one integer label a draw"):
        load(path)


@pytest.mark.parametrize("writer", [b"f0", None])
def test_a_writer_without_a_name(writer, tmp_path):
    path = write_tff(tmp_path, {"f0": drawn([1])})
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE examples SET client_id = ?", [writer])
    with pytest.raises(DataError, match=r"named by text, got (b'f0'|None);"):
        load(path)


def test_sqlite_of_digits_alone(tmp_path):
    path = write_tff(tmp_path, whole())
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("DELETE FROM examples WHERE split_name = 'all_test'")
    with pytest.raises(DataError, match="no drawings in the splits all_train and all"):
        find_parts(path)


def test_deep_json(tmp_path):
    path = tmp_path / "all_data_0.json"
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="cannot be read"):
        find_parts(path)


def test_sqlite_that_unpacks_to_any_size(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxmeta.data.femnist_files._MOST_BYTES", 1000)
    with pytest.raises(DataError, match="truncated, or more than 1,000 bytes"):
        load(write_sqlite(tmp_path, whole()))


def test_sqlite_that_says_another_number(tmp_path):
    path = write_sqlite(tmp_path, whole())
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE federated_data SET num_examples = 2")
    with pytest.raises(DataError, match="should have 2 integer labels"):
        load(path)


def test_sqlite_is_not_written(tmp_path):
    path = write_sqlite(tmp_path, whole())
    before = path.read_bytes()
    path.chmod(0o400)
    load(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_h5_that_claims_more_than_it_holds(tmp_path):
    """A data set of a tebibyte that takes no room: its shape is looked at first."""
    path = write_h5(tmp_path, {})
    import h5py

    with h5py.File(path, "a") as file:
        group = file.create_group("examples/f0")
        group["label"] = np.zeros(3, np.int32)
        group.create_dataset("pixels", (2**30, 28, 28), np.float32, chunks=(1, 28, 28))
    with pytest.raises(DataError, match="3 drawings of 28 x 28"):
        load(path)
    with h5py.File(path, "a") as file:
        group = file.create_group("examples/f1")
        group.create_dataset("label", (2**40,), np.int32, chunks=(1024,))
    with pytest.raises(DataError, match="'f1' should have from 1 to 10000 drawings"):
        load(path)


@pytest.mark.parametrize("kind", ["link", "writer", "virtual", "external"])
def test_h5_that_leads_to_another_file(kind, tmp_path):
    other = write_h5(tmp_path, {"f0": drawn([1])}, "other.h5")
    path = write_h5(tmp_path, {"f1": drawn([1])})
    import h5py

    with h5py.File(path, "a") as file:
        if kind == "writer":
            file["examples/f0"] = h5py.ExternalLink(str(other), "/examples/f0")
        else:
            file["examples/f0/pixels"] = drawn([1])["pixels"]
        if kind == "link":
            file["examples/f0/label"] = h5py.ExternalLink(
                str(other), "/examples/f0/label"
            )
        if kind == "virtual":
            layout = h5py.VirtualLayout((1,), np.int32)
            layout[:] = h5py.VirtualSource(str(other), "examples/f0/label", (1,))
            file["examples/f0"].create_virtual_dataset("label", layout)
        if kind == "external":
            file["examples/f0"].create_dataset(
                "label", (1,), np.int32, external=str(tmp_path / "raw")
            )
    with pytest.raises(DataError, match="lies in another file, which is not followed"):
        load(path)


def test_h5_without_examples(tmp_path):
    with pytest.raises(DataError, match="has no 'examples'"):
        find_parts(write_h5(tmp_path, {}))


def test_h5_without_h5py(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"")
    program = (
        "import sys, pathlib; sys.modules['h5py'] = None\n"
        "from jaxmeta.data.femnist_files import find_parts\n"
        f"find_parts(pathlib.Path({str(tmp_path)!r}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert "needs the package h5py: pip install 'jaxmeta[femnist]'" in found.stderr
