"""Files that are there whole or not at all."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Writes text in one atomic step; its bytes are on disk before its name is.

    Args:
      path: the file; for a moment there is one beside it that ends in `.tmp`.
      text: what is written.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "a.txt"
      >>> write_whole(path, "whole")
      >>> path.read_text()
      'whole'
    """
    fresh = path.with_name(f"{path.name}.tmp")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
