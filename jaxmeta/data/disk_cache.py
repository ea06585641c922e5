"""Images that took minutes to make, kept on disk.

They are in `JAXMETA_CACHE_DIR`, else in `~/.cache/jaxmeta`. A cache may always be
deleted, and that it cannot be used is never an error.
"""

import hashlib
import logging
import math
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np

_CACHE_DIR = "JAXMETA_CACHE_DIR"
_DIGEST_BYTES = hashlib.sha256().digest_size
_LOGGER = logging.getLogger(__name__)


def cache_dir() -> Path:
    """The directory of what is kept: `JAXMETA_CACHE_DIR`, else `~/.cache/jaxmeta`.

    Raises:
      RuntimeError: if it is in the home directory, and there is none.

    Example:
      >>> saved = os.environ.get("JAXMETA_CACHE_DIR")
      >>> os.environ["JAXMETA_CACHE_DIR"] = "kept"
      >>> cache_dir().name
      'kept'
      >>> if saved is None:
      ...     del os.environ["JAXMETA_CACHE_DIR"]
      ... else:
      ...     os.environ["JAXMETA_CACHE_DIR"] = saved
    """
    return Path(os.environ.get(_CACHE_DIR) or "~/.cache/jaxmeta").expanduser()


def kept_bytes(
    name: str, shape: tuple[int, ...], make: Callable[[], np.ndarray]
) -> np.ndarray:
    """An array of bytes: read if it was kept, else made and kept.

    The file holds the SHA-256 of the bytes, then the bytes. One that is damaged or cut
    short is made again, with a warning in the log. If it cannot be written, that is a
    warning too.

    Args:
      name: of the file; it must say everything that decides the content.
      shape: of the array.
      make: makes the array, `uint8` of this shape.

    Returns:
      The array.

    Example:
      >>> import tempfile
      >>> from unittest import mock
      >>> make = lambda: np.arange(3, dtype=np.uint8)
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     with mock.patch.dict(os.environ, JAXMETA_CACHE_DIR=directory):
      ...         first = kept_bytes("a", (3,), make)
      ...         kept_bytes("a", (3,), lambda: None)
      array([0, 1, 2], dtype=uint8)
    """
    try:
        path = cache_dir() / name
    except RuntimeError as error:
        _LOGGER.warning(
            "%s is not kept (%s); set %s to a directory.", name, error, _CACHE_DIR
        )
        return make()
    kept = _read(path, shape)
    if kept is not None:
        return kept
    made = np.ascontiguousarray(make())
    _write(path, made)
    return made


def _read(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        with path.open("rb") as file:
            # The size comes first: what claims to be larger is not read.
            if os.fstat(file.fileno()).st_size == _DIGEST_BYTES + math.prod(shape):
                digest = file.read(_DIGEST_BYTES)
                content = np.fromfile(file, np.uint8)
                if digest == hashlib.sha256(content.data).digest():
                    return content.reshape(shape)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _LOGGER.warning("%s cannot be read (%s); it is made again.", path, error)
        return None
    _LOGGER.warning("%s is damaged; it is made again.", path)
    return None


def _write(path: Path, content: np.ndarray) -> None:
    # Under another name first, so that nobody reads half a file.
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("xb") as file:
                file.write(hashlib.sha256(content.data).digest())
                file.write(content.data)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        _LOGGER.warning(
            "%s cannot be kept (%s), so it will be made again next time; set %s to a "
            "directory that can be written to.",
            path,
            error,
            _CACHE_DIR,
        )
