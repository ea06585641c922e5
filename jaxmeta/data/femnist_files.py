"""The copies of FEMNIST that are about: who drew how many characters, and which.

- TensorFlow Federated's `fed_emnist_train.h5` and `fed_emnist_test.h5`:
  `examples/<writer>/pixels` `[n, 28, 28]` and `label` `[n]`. Needs h5py.
- TensorFlow Federated's `emnist_all.sqlite`: a table `examples` with one `tf.Example`
  for every drawing, of which the splits `all_train` and `all_test` are read, as
  `digits_only_train` and `digits_only_test` are parts of them.
- FedJAX's `federated_emnist_train.sqlite` and `..._test.sqlite`: a table
  `federated_data` whose `data` is the same two arrays, MessagePack in zlib.
- LEAF's `all_data_0.json` and so on: `users`, `num_samples`, and in `user_data` of each
  user `x` (`[n, 784]`) and `y` (`[n]`).

In all of them paper is 1 and ink 0. The files are treated as untrusted.
"""

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.serialization import msgpack_restore

from jaxmeta.data.source import DataError

NUM_CLASSES = 62
SIDE = 28

MOST_DRAWINGS = 10_000
"""Drawings of one writer, many times what anybody drew for NIST."""

# Of one writer's drawings unpacked: two arrays and their names.
_MOST_BYTES = MOST_DRAWINGS * (SIDE * SIDE + 2) * 8


class Drawings(NamedTuple):
    """What one writer drew.

    Attributes:
      images: `[n, 28, 28, 1]` bytes, ink = 255 and paper = 0.
      labels: `[n]` integers: digits 0 to 9, capitals 10 to 35, small letters 36 to 61.
    """

    images: np.ndarray
    labels: np.ndarray


class Part(NamedTuple):
    """The drawings of one writer in one file.

    Attributes:
      writer: who, such as `f0000_14`.
      size: how many drawings.
      load: reads and checks them.
    """

    writer: str
    size: int
    load: Callable[[], Drawings]


def find_parts(path: Path) -> list[Part]:
    """What is in a file, or in all files of a directory; few drawings are read yet.

    Args:
      path: an `.h5`, `.sqlite` or `.json` file, or a directory with files of one of
        these kinds. A writer may be in more than one of them.

    Raises:
      DataError: if there is no such file, or one is not what it should be.

    Example:
      >>> import json, tempfile
      >>> drawn = {"x": [[1.0] * 784], "y": [61]}
      >>> content = {"users": ["ann"], "num_samples": [1], "user_data": {"ann": drawn}}
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     path = Path(directory, "all_data_0.json")
      ...     _ = path.write_text(json.dumps(content))
      ...     part = find_parts(path)[0]
      >>> part.writer, part.size, part.load().images.max()
      ('ann', 1, np.uint8(0))
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in files if file.suffix in _READERS and file.is_file()]
    kinds = {file.suffix for file in files}
    if len(kinds) != 1:
        raise DataError(
            f"{path}: should be, or hold, files of one kind out of "
            f"{', '.join(_READERS)}, got {', '.join(sorted(kinds)) or 'none'}; name "
            "what TensorFlow Federated, FedJAX or LEAF has made."
        )
    parts = []
    for file in files:
        with _reading(file):
            parts += _READERS[file.suffix](file)
    return parts


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        # json, HDF5, SQLite, zlib and MessagePack raise a dozen types between them on
        # bytes that are not what they should be.
        raise DataError(
            f"{path}: cannot be read, truncated or corrupt "
            f"({type(error).__name__}: {error}); copy it again."
        ) from error


def _part(
    read: Callable[..., Drawings], path: Path, writer: str, size: Any, *rest: Any
) -> Part:
    whole = isinstance(size, int) and not isinstance(size, bool)
    if not (whole and 1 <= size <= MOST_DRAWINGS):
        raise DataError(
            f"{path}: writer {writer!r} should have from 1 to {MOST_DRAWINGS} "
            f"drawings, got {size!r}; copy the file again."
        )
    return Part(writer, size, partial(read, path, writer, size, *rest))


def _drawings(path: Path, writer: str, size: int, pixels: Any, labels: Any) -> Drawings:
    """Checks what a file says a writer drew, and makes it ink on paper.

    Shapes are looked at first: data sets of HDF5 may claim any, and are read after it.
    """
    where, again = f"{path}: writer {writer!r} should have", "copy the file again."
    if labels.shape != (size,) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{where} {size} integer labels, got {labels.dtype} {labels.shape}; {again}"
        )
    shapes = ((size, SIDE, SIDE), (size, SIDE * SIDE))
    if pixels.shape not in shapes or pixels.dtype.kind not in "fiu":
        raise DataError(
            f"{where} {size} drawings of {SIDE} x {SIDE} numbers, got "
            f"{pixels.dtype} {pixels.shape}; {again}"
        )
    pixels, labels = np.asarray(pixels), np.asarray(labels)
    if not 0 <= labels.min() <= labels.max() < NUM_CLASSES:
        raise DataError(
            f"{where} labels 0 to {NUM_CLASSES - 1}, got {labels.min()} to "
            f"{labels.max()}; {again}"
        )
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # nor is nan
        raise DataError(
            f"{where} pixels from 0 (ink) to 1 (paper), got {pixels.min()} to "
            f"{pixels.max()}; {again}"
        )
    ink = np.round((1.0 - pixels) * 255.0).astype(np.uint8)
    return Drawings(ink.reshape(-1, SIDE, SIDE, 1), labels.astype(np.int32))


def _need(path: Path, holder: Any, *names: str) -> list[Any]:
    """The members of a dictionary that must be there."""
    if not isinstance(holder, dict) or not set(names) <= set(holder):
        raise DataError(
            f"{path}: should hold {', '.join(names)} together, got "
            f"{', '.join(sorted(holder)[:5]) if isinstance(holder, dict) else 'a list'}"
            "; copy the file again."
        )
    return [holder[name] for name in names]


def _json_parts(path: Path) -> Iterator[Part]:
    with path.open(encoding="utf-8") as file:
        content = json.load(file)
    users, sizes, drawn = _need(path, content, "users", "num_samples", "user_data")
    names = [writer for writer in users if isinstance(writer, str)]
    if not len(set(names)) == len(names) == len(users):
        raise DataError(f"{path}: users must be different names; copy the file again.")
    for writer, size in zip(users, sizes, strict=True):
        x, y = _need(path, *_need(path, drawn, writer), "x", "y")
        try:
            pixels, labels = np.array(x, np.float32), np.array(y)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{path}: writer {writer!r} should have drawings of one size, as "
                f"numbers ({error}); copy the file again."
            ) from error
        part = _part(_drawings, path, writer, size, pixels, labels)
        # Floats are four times as large as the bytes, so they are not kept.
        found = part.load()
        yield part._replace(load=lambda found=found: found)


def _sqlite_parts(path: Path) -> Iterator[Part]:
    with contextlib.closing(_connect(path)) as file:
        tables = {name for (name,) in file.execute("SELECT name FROM sqlite_master")}
        if "examples" in tables:
            yield from _tff_parts(path, file)
            return
        rows = file.execute("SELECT client_id, num_examples FROM federated_data")
        for key, size in rows:
            # FedJAX puts a hash and a colon before the writer.
            writer = key.decode().rpartition(":")[2]
            yield _part(_load_sqlite, path, writer, size, key)


def _load_sqlite(path: Path, writer: str, size: int, key: bytes) -> Drawings:
    query = "SELECT data FROM federated_data WHERE client_id = ?"
    with _reading(path), contextlib.closing(_connect(path)) as file:
        (packed,) = file.execute(query, [key]).fetchone()
        unpacking = zlib.decompressobj()
        unpacked = unpacking.decompress(packed, _MOST_BYTES)
        if not unpacking.eof:
            raise DataError(
                f"{path}: writer {writer!r} is truncated, or more than {_MOST_BYTES:,} "
                "bytes; copy the file again."
            )
        found = _need(path, msgpack_restore(unpacked), "pixels", "label")
        return _drawings(path, writer, size, *found)


def _tff_parts(path: Path, file: sqlite3.Connection) -> Iterator[Part]:
    rows = file.execute(
        "SELECT split_name, client_id, COUNT(*) FROM examples "
        "WHERE split_name IN ('all_train', 'all_test') GROUP BY split_name, client_id"
    ).fetchall()
    if not rows:
        raise DataError(
            f"{path}: has no drawings in the splits all_train and all_test; copy the "
            "file again."
        )
    for split, writer, size in rows:
        if not isinstance(writer, str):
            raise DataError(
                f"{path}: writers should be named by text, got {writer!r}; copy the "
                "file again."
            )
        yield _part(_load_tff, path, writer, size, split)


def _load_tff(path: Path, writer: str, size: int, split: str) -> Drawings:
    # tensorflow-datasets has the message of TensorFlow, which is not needed for it.
    from tensorflow_datasets.proto import tf_example_pb2

    # Made when the module is imported.
    parse = tf_example_pb2.Example.FromString  # pyright: ignore[reportAttributeAccessIssue]
    query = (
        "SELECT serialized_example_proto FROM examples "
        "WHERE split_name = ? AND client_id = ?"
    )
    pixels, labels = [], []
    with _reading(path), contextlib.closing(_connect(path)) as file:
        for (packed,) in file.execute(query, [split, writer]):
            drawn = dict(parse(packed).features.feature)
            pixel, label = _need(path, drawn, "pixels", "label")
            pixels.append(np.array(pixel.float_list.value, np.float32))
            labels.append(np.array(label.int64_list.value, np.int64))
        if {len(label) for label in labels} != {1}:
            raise DataError(
                f"{path}: writer {writer!r} should have one integer label a drawing; "
                "copy the file again."
            )
        labels = np.concatenate(labels)
        return _drawings(path, writer, size, np.array(pixels), labels)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)


def _h5_parts(path: Path) -> Iterator[Part]:
    with _open_h5(path) as file:
        for writer in _member(path, file, "examples"):
            labels = _member(path, file, f"examples/{writer}/label")
            yield _part(_load_h5, path, writer, len(labels))


def _load_h5(path: Path, writer: str, size: int) -> Drawings:
    with _reading(path), _open_h5(path) as file:
        pixels, labels = (
            _member(path, file, f"examples/{writer}/{name}")
            for name in ("pixels", "label")
        )
        return _drawings(path, writer, size, pixels, labels)


def _open_h5(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise DataError(
            f"{path} needs the package h5py: pip install 'jaxmeta[femnist]'."
        ) from None
    return h5py.File(path, "r")


def _member(path: Path, file: Any, name: str) -> Any:
    """A group or data set; what leads to other files is refused."""
    if name not in file:
        raise DataError(f"{path}: has no '{name}'; copy the file again.")
    found = file[name]
    elsewhere = getattr(found, "is_virtual", False) or getattr(found, "external", None)
    if elsewhere or found.file.filename != file.filename:
        raise DataError(
            f"{path}: '{name}' lies in another file, which is not followed; use the "
            "file as it is published."
        )
    return found


_READERS = {".h5": _h5_parts, ".sqlite": _sqlite_parts, ".json": _json_parts}
