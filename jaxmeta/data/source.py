"""Where a data set is found: in a local file, through TFDS, or not at all.

Two environment variables decide, and nothing else does: `JAXMETA_DATA_DIR` names a
directory of `.npz` files, and `JAXMETA_DOWNLOAD=1` permits the network. The command
line sets them from `--data-dir` and `--download`. Files are treated as untrusted:
nothing in them is executed, and a damaged one ends in one line that says what to do.
"""

import dataclasses
import functools
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from jaxmeta.core.task import TaskSource

_DATA_DIR = "JAXMETA_DATA_DIR"
_DOWNLOAD = "JAXMETA_DOWNLOAD"

# Larger than any file this library reads, smaller than what would hurt a workstation:
# an archive of a few kilobytes may claim to unpack to any size.
_MAX_UNPACKED_BYTES = 4 * 2**30

_KINDS = {"b": "bool", "i": "int", "u": "uint", "f": "float", "U": "str"}
_READ_HEADER = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}


class DataError(ValueError):
    """A data set is missing, damaged or not what it should be.

    The message is always one line; it names the file or data set, says what is wrong
    with it and what to do about it.

    Example:
      >>> print(DataError("a.npz: truncated.\\nCopy it again."))
      a.npz: truncated. Copy it again.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


def data_dir() -> Path | None:
    """The directory of local data files: the environment's `JAXMETA_DATA_DIR`.

    Returns:
      The directory, or None where the variable is unset or empty.

    Raises:
      DataError: if the variable names something that is not a directory.

    Example:
      >>> import os
      >>> saved = os.environ.pop("JAXMETA_DATA_DIR", None)
      >>> print(data_dir())
      None
      >>> if saved is not None:
      ...     os.environ["JAXMETA_DATA_DIR"] = saved
    """
    value = os.environ.get(_DATA_DIR, "")
    if not value:
        return None
    path = Path(value).expanduser()
    if not path.is_dir():
        raise DataError(
            f"{path}: not a directory; set {_DATA_DIR} or --data-dir to the directory "
            "that holds the data files, or unset it."
        )
    return path


def downloads_allowed() -> bool:
    """Whether the network may be used: is `JAXMETA_DOWNLOAD` equal to `1`?

    Example:
      >>> import os
      >>> downloads_allowed() == (os.environ.get("JAXMETA_DOWNLOAD") == "1")
      True
    """
    return os.environ.get(_DOWNLOAD) == "1"


@functools.singledispatch
def settle(source: TaskSource) -> TaskSource:
    """The source with everything decided that depends on what this machine has.

    What a run records must say which data it saw. A source with an `origin` and an
    `origin_used` is settled on the latter; others register an implementation here.

    Args:
      source: any source.

    Returns:
      The source itself, or one that has made its choice.

    Example:
      >>> from jaxmeta.data.digits import Digits
      >>> settle(Digits(queries=5)) == Digits(queries=5)
      True
    """
    chosen: Any = source
    names = {field.name for field in dataclasses.fields(chosen)}
    if "origin" not in names or not hasattr(type(source), "origin_used"):
        return source
    return dataclasses.replace(chosen, origin=chosen.origin_used)


def find_file(name: str) -> Path | None:
    """The path of a file in `data_dir()`, or None where it is not there.

    Args:
      name: the file's name, such as `omniglot.npz`.

    Raises:
      DataError: if `JAXMETA_DATA_DIR` names something that is not a directory.

    Example:
      >>> print(find_file("no_such_data_set.npz"))
      None
    """
    return _find(name, Path.is_file)


def find_directory(name: str) -> Path | None:
    """The path of a directory in `data_dir()`, or None where it is not there.

    Args:
      name: the directory's name, such as `femnist`.

    Raises:
      DataError: if `JAXMETA_DATA_DIR` names something that is not a directory.

    Example:
      >>> print(find_directory("no_such_data_set"))
      None
    """
    return _find(name, Path.is_dir)


def _find(name: str, is_it: Callable[[Path], bool]) -> Path | None:
    directory = data_dir()
    path = directory / name if directory else None
    return path if path and is_it(path) else None


def needed_file(name: str, *, otherwise: str) -> Path:
    """The path of a file that must be in `data_dir()`.

    Args:
      name: the file's name.
      otherwise: what to do without it, for the message.

    Raises:
      DataError: if it is not there, or `JAXMETA_DATA_DIR` is none.

    Example:
      >>> try:
      ...     needed_file("no_such_data_set.npz", otherwise="use digits")
      ... except DataError as error:
      ...     print(str(error)[:32], str(error)[-15:])
      no_such_data_set.npz: not found; or use digits.
    """
    path = find_file(name)
    if path is None:
        raise DataError(
            f"{name}: not found; set {_DATA_DIR} or --data-dir to the directory that "
            f"holds it, or {otherwise}."
        )
    return path


def load_npz(
    path: str | os.PathLike[str],
    keys: Mapping[str, tuple[int, str]],
    *,
    fetch: str = "or make it again",
) -> dict[str, np.ndarray]:
    """Reads some arrays of a `.npz` file that nobody vouches for.

    Every header is checked against the size of what it describes before anything is
    allocated, and pickled objects are refused unread.

    Args:
      path: the file.
      keys: `{name: (number of axes, kinds)}` of the arrays wanted; `kinds` holds one
        letter of `numpy.dtype.kind` for each kind accepted, for instance `"iu"`.
      fetch: how else the data can be had, for the message; names a command.

    Returns:
      The arrays by name. What else the file holds is not read.

    Raises:
      DataError: if the file is missing, not a zip archive, truncated or corrupt, if
        an array is missing, pickled, of another rank or kind, or if it claims more
        bytes than the file holds.

    Example:
      >>> import pathlib, tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     path = pathlib.Path(directory, "a.npz")
      ...     np.savez(path, x=np.arange(3.0))
      ...     load_npz(path, {"x": (1, "f")})
      {'x': array([0., 1., 2.])}
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; point {_DATA_DIR} or --data-dir at the directory "
            f"that holds it, {fetch}."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            for name, (num_axes, kinds) in keys.items():
                _check_member(path, archive, name, num_axes, kinds)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in keys}
    except DataError:
        raise
    except Exception as error:
        # zipfile, the decompressors and NumPy raise a dozen types between them on
        # bytes that are not what they should be.
        raise DataError(
            f"{path}: cannot be read, truncated or corrupt "
            f"({type(error).__name__}: {error}); copy it again, {fetch}."
        ) from error


def _check_member(
    path: Path, archive: zipfile.ZipFile, name: str, num_axes: int, kinds: str
) -> None:
    """Checks one array of the archive by its header alone."""
    fix = "make the file again, or use the file this data set is published as."
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        found = ", ".join(sorted(x.removesuffix(".npy") for x in archive.namelist()))
        raise DataError(
            f"{path}: has no array '{name}' (it holds: {found or 'nothing'}); {fix}"
        ) from None
    if info.file_size > _MAX_UNPACKED_BYTES:
        raise DataError(
            f"{path}: array '{name}' claims {info.file_size:,} bytes, more than the "
            f"{_MAX_UNPACKED_BYTES:,} this library reads; {fix}"
        )
    with archive.open(info) as member:
        version = npy.read_magic(member)
        if version not in _READ_HEADER:
            raise DataError(
                f"{path}: array '{name}' has npy version {version}, expected 1.0 or "
                f"2.0; {fix}"
            )
        shape, _, dtype = _READ_HEADER[version](member)
        num_bytes = info.file_size - member.tell()
    if dtype.hasobject:
        raise DataError(
            f"{path}: array '{name}' holds pickled objects, which are never loaded "
            f"because unpickling runs code; {fix}"
        )
    if dtype.kind not in kinds or len(shape) != num_axes:
        expected = " or ".join(_KINDS.get(kind, kind) for kind in kinds)
        raise DataError(
            f"{path}: array '{name}' should be {expected} with {num_axes} axes, got "
            f"{dtype} of shape {shape}; {fix}"
        )
    claimed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or claimed != num_bytes:
        raise DataError(
            f"{path}: array '{name}' claims {claimed:,} bytes for shape {shape} but "
            f"{num_bytes:,} are there; {fix}"
        )


def tfds_prepared(name: str) -> bool:
    """Whether TFDS has this data set on disk, in any version and format.

    It looks in TFDS's own directory (`TFDS_DATA_DIR`, else `~/tensorflow_datasets`)
    without importing TFDS, which takes seconds.

    Args:
      name: of the data set in TFDS, `set` or `set/configuration`, without version.

    Example:
      >>> tfds_prepared("no_such_data_set")
      False
    """
    files = (_tfds_dir() / name).glob("**/dataset_info.json")
    return next(files, None) is not None


def load_tfds(name: str, split: str) -> Iterator[dict[str, Any]]:
    """Iterates over one split of a TFDS data set, without TensorFlow.

    It reads through `tfds.data_source`, so the data must have been prepared in a
    format with random access. Nothing is downloaded unless `downloads_allowed()`:
    without a network TFDS would try for minutes.

    Args:
      name: of the data set in TFDS, `set` or `set/configuration`, without version.
      split: its split, such as `"train"`.

    Returns:
      An iterator over its examples, dictionaries of NumPy arrays. The data set is
      opened by the call itself, and each example is decoded when it is asked for.

    Raises:
      DataError: if the data set is unknown, absent, prepared in a format without
        random access (TFRecord), cannot be prepared, or is damaged.

    Example:
      >>> try:
      ...     load_tfds("no_such", "train")
      ... except DataError as error:
      ...     print(str(error)[:23])
      TFDS data set 'no_such'
    """
    if not downloads_allowed() and not tfds_prepared(name):
        raise DataError(
            f"TFDS data set '{name}' is not in {_tfds_dir()}; run again with "
            f"--download (or {_DOWNLOAD}=1), or set TFDS_DATA_DIR to where it is."
        )
    import tensorflow_datasets as tfds

    rebuild = f"`tfds build {name} --file_format=array_record`"
    try:
        # TFDS reads TFDS_DATA_DIR once, when it is imported.
        source = tfds.data_source(
            name,
            split=split,
            data_dir=_tfds_dir(),
            download=downloads_allowed(),
        )
    except NotImplementedError:
        raise DataError(
            f"TFDS data set '{name}' in {_tfds_dir()} is prepared in a format without "
            f"random access; delete it and prepare it with {rebuild}."
        ) from None
    except ImportError as error:
        raise DataError(
            f"TFDS data set '{name}' needs a package to be prepared ({error}); where "
            f"that is installed (`pip install tensorflow`) run {rebuild} once."
        ) from error
    except Exception as error:
        # What TFDS raises here is not documented: registry, network, disk, checksum.
        raise DataError(
            f"TFDS data set '{name}' cannot be opened ({_first_line(error)}); check "
            f"the name and {_tfds_dir()}, and prepare it with {rebuild}."
        ) from error
    return _examples(name, source, rebuild)


def _examples(name: str, source: Any, rebuild: str) -> Iterator[dict[str, Any]]:
    for i in range(len(source)):
        try:
            example = source[i]
        except Exception as error:
            raise DataError(
                f"TFDS data set '{name}' in {_tfds_dir()}: example {i} cannot be read "
                f"({_first_line(error)}); delete it and prepare it with {rebuild}."
            ) from error
        yield example


def _first_line(error: Exception) -> str:
    """The error on one line; TFDS appends lists of hundreds of names."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _tfds_dir() -> Path:
    directory = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(directory).expanduser()
