"""Checkpoints that notice a flipped bit.

Orbax writes atomically but does not check what it reads: a single flipped bit in the
array data restores silently, a changed dtype is cast, and what cannot be read leaves
tasks behind that complain later. So every checkpoint carries a CRC-32 per file, looked
at before orbax sees it, and a CRC-32, dtype and shape per leaf, and `restore` falls
back, with one warning, to the newest step that is whole.

A step is *taken* by `save`, which copies it off the devices. In the background it is
*written*, under a name of orbax's own until all of it is there, and its files are
*listed*. `finish` waits for all that.
"""

import contextlib
import json
import logging
import re
import textwrap
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from jaxmeta.core import hosts
from jaxmeta.core.files import write_whole

State = TypeVar("State")


FILES = "files.json"
"""CRC-32 of every other file of a step, in its directory."""


_STEP = re.compile("[0-9]{1,10}")


class CheckpointError(Exception):
    """A checkpoint cannot be written or read; the message names the directory."""


class _OtherStateError(ValueError):
    """A whole checkpoint, of another tree."""


def _numbers(leaf: Any) -> Any:
    """A typed key as its data, and any other leaf as it is."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _host(leaf: Any) -> np.ndarray:
    leaf = _numbers(leaf)
    if isinstance(leaf, jax.Array) and not (
        leaf.is_fully_addressable or leaf.is_fully_replicated
    ):
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(leaf)


def fingerprint(tree: Any) -> dict[str, dict[str, Any]]:
    """CRC-32, dtype and shape of every leaf, by its path.

    Example:
      >>> fingerprint({"w": np.zeros(2, np.float32)})["['w']"]
      {'crc32': 1696784233, 'dtype': 'float32', 'shape': [2]}
    """
    prints = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = _host(leaf)
        prints[jax.tree_util.keystr(path)] = {
            "crc32": zlib.crc32(np.ascontiguousarray(array).tobytes()),
            "dtype": str(leaf.dtype),
            "shape": list(array.shape),
        }
    return prints


def _layout(prints: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: f"{p['dtype']}{p['shape']}" for name, p in prints.items()}


def _layout_of(tree: Any) -> dict[str, str]:
    """That of the fingerprint of `tree`, without a look at its values."""
    shape = lambda leaf: list(jax.eval_shape(_numbers, leaf).shape)
    return {
        jax.tree_util.keystr(path): f"{leaf.dtype}{shape(leaf)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _crc32(value: Any) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _files(directory: Path) -> dict[str, int]:
    paths = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != FILES)
    return {
        path.relative_to(directory).as_posix(): zlib.crc32(path.read_bytes())
        for path in paths
    }


def _require_equal(kind: str, expected: dict, actual: dict) -> None:
    for name in sorted(expected.keys() | actual.keys()):
        if expected.get(name) != actual.get(name):
            raise ValueError(f"the {kind} of {name} does not match")


class Checkpoints:
    """The checkpoints of one run in one directory, newest last.

    Args:
      directory: made when first written to.
      keep: how many steps stay; at least two, so that there is one to fall back to.
    """

    def __init__(self, directory: Path, keep: int = 2):
        self.directory = Path(directory).absolute()
        self._keep = keep
        self._opened: ocp.CheckpointManager | None = None
        self._unfinished: tuple[int, Future[None]] | None = None
        self._background = ThreadPoolExecutor(max_workers=1)

    def _manager(self) -> ocp.CheckpointManager:
        if self._opened is None:
            # What orbax logs as an error, with a traceback, it raises here as well.
            logging.getLogger("absl").setLevel(logging.CRITICAL)
            logging.getLogger("asyncio").addFilter(_is_not_of_orbax)
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self._keep, enable_async_checkpointing=True
            )
            self._opened = ocp.CheckpointManager(self.directory, options=options)
        return self._opened

    def steps(self) -> list[int]:
        """Steps that claim to be there or are being written, ascending."""
        found = set() if self._unfinished is None else {self._unfinished[0]}
        if self.directory.is_dir():
            names = (path.name for path in self.directory.iterdir())
            steps = (int(name) for name in names if _STEP.fullmatch(name))
            found |= {step for step in steps if step < 2**31}
        return sorted(found)

    def save(self, step: int, state: Any, extra: dict[str, Any] | None = None) -> None:
        """Takes `state` and `extra` (JSON) for `step`; they are written meanwhile.

        The state may be given away as soon as this returns. A step is there whole or
        not at all, and the last one is there after `finish`.

        Raises:
          CheckpointError: if the file system refuses this step or the one before it;
            older steps are untouched.
        """
        self.finish()
        meta = {"leaves": fingerprint(state), "extra": extra or {}}
        meta["crc32"] = _crc32(meta["extra"])
        composite = ocp.args.Composite(
            state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
        )
        with self._writing(step):
            # It may have been written before the run fell back behind it.
            if hosts.as_first(step in self.steps()):
                self._manager().delete(step)
            self._manager().save(step, args=composite, force=True)
            self._unfinished = step, self._background.submit(self._complete, step)

    def finish(self) -> None:
        """Returns when the last step is on disk.

        Raises:
          CheckpointError: if the file system refuses it.
        """
        if self._unfinished is None:
            return
        (step, completed), self._unfinished = self._unfinished, None
        with self._writing(step):
            completed.result()

    @contextlib.contextmanager
    def _writing(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # tensorstore raises many types for a full disk
            older = [s for s in self.steps() if s != step]
            kept = f"step {older[-1]} is intact" if older else "there is none before it"
            raise CheckpointError(
                f"cannot write the checkpoint of step {step} to {self.directory} "
                f"({_one_line(error)}); {kept}. Free some space or make it writable."
            ) from error

    def _complete(self, step: int) -> None:
        """Lists the files of a step when they are there; killed before, it has no list,
        and leaves are still compared."""
        self._manager().wait_until_finished()
        if not hosts.is_first():
            return
        directory = self.directory / str(step)
        write_whole(directory / FILES, json.dumps(_files(directory)))

    def restore(self, like: State) -> tuple[State, dict[str, Any]] | None:
        """The newest whole checkpoint, or None if none was ever written.

        Damaged steps are passed over with one warning. They stay where they are, for
        the damage may be of the moment, until their step is saved again.

        Args:
          like: a state of the wanted structure, shapes, dtypes and placement, or those
            alone (`jax.ShapeDtypeStruct`).

        Returns:
          The state, and what was saved beside it as `extra`.

        Raises:
          CheckpointError: if there are checkpoints and none is whole.
        """
        self.finish()
        damaged: list[str] = []
        fix = "go on with the version that wrote it, or train in another run directory"
        for step in reversed(hosts.numbers_of_first(self.steps())):
            try:
                with hosts.together():
                    self._check_files(step)
                with hosts.together():
                    found = self._read(step, like)
            except Exception as error:  # whatever a damaged file makes readers raise
                damaged.append(f"step {step}: {_one_line(error)}")
                if not isinstance(error, _OtherStateError):
                    fix = "delete the directory to start again"
                continue
            if damaged:
                warnings.warn(
                    f"damaged checkpoint in {self.directory} ({'; '.join(damaged)}); "
                    f"going on from step {step}.",
                    stacklevel=2,
                )
            return found
        if damaged:
            raise CheckpointError(
                f"no checkpoint in {self.directory} can be read ({damaged[0]}); {fix}."
            )
        return None

    def _check_files(self, step: int) -> None:
        directory = self.directory / str(step)
        if not directory.is_dir():
            raise FileNotFoundError(f"{directory} is not there")
        if (directory / FILES).exists():
            expected = json.loads((directory / FILES).read_text())
            _require_equal("checksum", expected, _files(directory))

    def _read(self, step: int, like: State) -> tuple[State, dict[str, Any]]:
        items = self._manager().restore(
            step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
        )
        leaves, extra = items["meta"]["leaves"], items["meta"]["extra"]
        if items["meta"].get("crc32", _crc32(extra)) != _crc32(extra):
            raise ValueError("the checksum of what was saved beside it does not match")
        try:
            _require_equal("shape or dtype", _layout(leaves), _layout_of(like))
        except ValueError as error:
            raise _OtherStateError(str(error)) from error
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = self._manager().restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        )
        _require_equal("checksum", leaves, fingerprint(items["state"]))
        return items["state"], extra

    def close(self) -> None:
        """Finishes, and releases the directory."""
        try:
            self.finish()
        finally:
            if self._opened is not None:
                # What `finish` has raised orbax raises again.
                with contextlib.suppress(Exception):
                    self._opened.close()
                self._opened = None


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    """False for one of several writes that failed, of which orbax raises the first."""
    return "orbax" not in record.getMessage()


def _one_line(error: Exception) -> str:
    return textwrap.shorten(str(error), 160, placeholder=" ...") or type(error).__name__
