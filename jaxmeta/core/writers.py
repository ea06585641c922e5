"""Where metrics go: JSON lines always, TensorBoard and W&B when asked."""

import abc
import contextlib
import dataclasses
import importlib.util
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from jaxmeta.core.config import config_hash
from jaxmeta.core.files import write_whole
from jaxmeta.core.metrics import Values, scalars

Row = Mapping[str, Values]
"""The numbers of a step by name."""


class Writer(abc.ABC):
    """Takes the numbers of a step."""

    @abc.abstractmethod
    def resume(self, step: int) -> None:
        """Drops what was recorded after `step`, from which the run goes on."""

    @abc.abstractmethod
    def write(self, step: int, values: Row) -> None:
        """Records `values` for `step`."""

    @abc.abstractmethod
    def close(self) -> None:
        """Flushes and releases."""


class JsonlWriter(Writer):
    """One JSON object a line, `{"step": 100, "train/loss": ...}`: the source of truth.

    `resume` truncates whatever a run that was killed wrote after the checkpoint it
    resumes from, a torn last line included, so that the file of a resumed run is the
    file of an uninterrupted one. Names under `time/` hold what differs between runs.

    Args:
      path: the file; made when first written to.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
      >>> writer = JsonlWriter(path)
      >>> writer.write(1, {"loss": 0.5})
      >>> writer.write(2, {"loss": 0.4})
      >>> writer.resume(1)
      >>> writer.close()
      >>> read_jsonl(path)
      [{'step': 1, 'loss': 0.5}]
    """

    def __init__(self, path: Path):
        self._path = Path(path)
        self._file: TextIO | None = None

    def resume(self, step: int) -> None:
        """Drops the rows of later steps.

        Raises:
          ValueError: naming the line, if the file is damaged before its last line.
        """
        self.close()
        there = self._path.exists()
        rows = read_jsonl(self._path) if there else []
        if (last := max((row["step"] for row in rows), default=0)) < step:
            warnings.warn(
                f"{self._path} has no metrics after step {last}, and the run goes on "
                f"from step {step}: those between are lost.",
                stacklevel=2,
            )
        if there:
            kept = (json.dumps(row) + "\n" for row in rows if row["step"] <= step)
            write_whole(self._path, "".join(kept))

    def write(self, step: int, values: Row) -> None:
        if self._file is None:
            self._file = self._path.open("a")
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def read_jsonl(path: Path) -> list[dict]:
    """The rows of a JSON-lines file; a torn last line is left out.

    Raises:
      ValueError: naming the line, if any other line cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged and not text: {error}.") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number} is not JSON: {error}.") from error
        if not (isinstance(row, dict) and isinstance(row.get("step"), int)):
            raise ValueError(f"{path}, line {number} is no row of metrics: {line:.60}")
        rows.append(row)
    return rows


class TensorboardWriter(Writer):
    """Scalars for TensorBoard (`pip install jaxmeta[tensorboard]`).

    Args:
      directory: of the event files.

    Raises:
      ImportError: if tensorboardX is not installed.
    """

    def __init__(self, directory: Path):
        import tensorboardX

        self._make = lambda step: tensorboardX.SummaryWriter(
            str(directory), purge_step=step + 1
        )
        self._writer = None

    def resume(self, step: int) -> None:
        self.close()
        self._writer = self._make(step)

    def write(self, step: int, values: Row) -> None:
        if self._writer is None:
            self.resume(step - 1)
        assert self._writer is not None
        for name, value in scalars(values).items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class WandbWriter(Writer):
    """Scalars for Weights & Biases (`pip install jaxmeta[wandb]`).

    Args:
      directory: of its local files.
      name: of the run; the same name goes on with the same run.
      config: recorded with it.

    Raises:
      ImportError: if wandb is not installed.
    """

    def __init__(self, directory: Path, name: str, config: Mapping):
        import wandb  # pyright: ignore[reportMissingImports] - optional

        self._run = wandb.init(
            dir=str(directory), id=name, config=dict(config), resume="allow"
        )

    def resume(self, step: int) -> None:
        del step  # a step that W&B has seen it does not take again

    def write(self, step: int, values: Row) -> None:
        self._run.log(scalars(values), step=step)

    def close(self) -> None:
        self._run.finish()


@dataclasses.dataclass(frozen=True)
class Writers(Writer):
    """Several writers as one.

    Attributes:
      members: each is told everything.
    """

    members: tuple[Writer, ...]

    def resume(self, step: int) -> None:
        for member in self.members:
            member.resume(step)

    def write(self, step: int, values: Row) -> None:
        for member in self.members:
            member.write(step, values)

    def close(self) -> None:
        with contextlib.ExitStack() as stack:  # all, also when a disk is full
            for member in self.members:
                stack.callback(member.close)


def check_writers(*, tensorboard: bool, wandb: bool) -> None:
    """Raises what `open_writers` would for want of a package, and opens nothing.

    Raises:
      ValueError: naming the package and how to install it.
    """
    for name, asked, module in (
        ("tensorboard", tensorboard, "tensorboardX"),
        ("wandb", wandb, "wandb"),
    ):
        if asked and importlib.util.find_spec(module) is None:
            raise ValueError(
                f"--{name} needs the package {module}: pip install 'jaxmeta[{name}]'."
            )


def open_writers(
    path: Path, config: Mapping, *, tensorboard: bool, wandb: bool
) -> Writers:
    """The writers of a run.

    Args:
      path: the JSONL file, in the run directory.
      config: the experiment as JSON.
      tensorboard: whether TensorBoard's scalars are written, too.
      wandb: whether Weights & Biases is told, too.
    """
    members: list[Writer] = [JsonlWriter(path)]
    if tensorboard:
        members.append(TensorboardWriter(path.parent / "tensorboard"))
    if wandb:
        name = f"{path.parent.name}-{config_hash(config)}"
        members.append(WandbWriter(path.parent, name, config))
    return Writers(tuple(members))
