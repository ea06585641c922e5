"""Where the images of a data set come from: a directory, a file or TFDS."""

import dataclasses
from pathlib import Path
from typing import Literal, TypeAlias

from jaxmeta.data.source import (
    downloads_allowed,
    find_directory,
    find_file,
    needed_file,
    tfds_prepared,
)

OriginUsed: TypeAlias = Literal["npz", "tfds", "directory"]
"""A file of ours, TFDS, or a directory of images."""

Origin: TypeAlias = Literal["auto", OriginUsed]
"""What may be asked for; `auto` is what is there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
    """Where one data set may lie.

    Attributes:
      npz: the name of its file in the data directory.
      otherwise: what to do where there is nothing, for the message.
      directory: the name of its directory in the data directory, if it can be one.
      tfds: its name in TFDS, if it is there.

    Example:
      >>> birds = Places(npz="birds.npz", directory="birds", otherwise="draw some")
      >>> birds.origins
      ('auto', 'npz', 'directory')
      >>> birds.find("auto", path="~/birds")
      'directory'
    """

    npz: str
    otherwise: str
    directory: str | None = None
    tfds: str | None = None

    @property
    def origins(self) -> tuple[str, ...]:
        """What may be asked for."""
        there = {"npz": self.npz, "tfds": self.tfds, "directory": self.directory}
        return ("auto", *(origin for origin, place in there.items() if place))

    def check(self, origin: str, path: str | None = None) -> None:
        """Checks what was asked for.

        Args:
          origin: one of `origins`.
          path: the directory that was named, or None.

        Raises:
          ValueError: for an unknown origin, or a path that another origin would ignore.
        """
        if origin not in self.origins:
            raise ValueError(
                f"origin must be one of {', '.join(self.origins)}, got {origin!r}."
            )
        if path is not None and origin not in ("auto", "directory"):
            raise ValueError(
                f"path must be None for origin {origin!r}, which does not read it, got "
                f"{path!r}; use origin 'directory'."
            )

    def find(self, origin: Origin, path: str | None = None) -> OriginUsed:
        """The origin that was asked for; `auto` is the first that is there.

        First comes a directory, then the file, then TFDS.

        Args:
          origin: one of `origins`.
          path: the directory that was named, or None.

        Raises:
          DataError: if it is `auto` and there is none.
        """
        if origin != "auto":
            return origin
        if path is not None or (self.directory and find_directory(self.directory)):
            return "directory"
        may_be_tfds = self.tfds and (downloads_allowed() or tfds_prepared(self.tfds))
        if may_be_tfds and not find_file(self.npz):
            return "tfds"
        self.file()
        return "npz"

    def file(self) -> Path:
        """The path of the file.

        Raises:
          DataError: if it is not there.
        """
        return needed_file(self.npz, otherwise=self.otherwise)

    def root(self, path: str | None = None) -> Path:
        """The path of the directory, which need not be there.

        Args:
          path: the directory that was named; None is the one in the data directory.
        """
        assert self.directory is not None
        return Path(
            path or find_directory(self.directory) or self.directory
        ).expanduser()
