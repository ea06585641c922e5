"""The run directory: what belongs to one training run, and to no other.

config.json     the resolved experiment
card.json       versions, hardware, seed, wall and CPU seconds
metrics.jsonl   one line every `log_every` steps
checkpoints/    latest/ and best/
result.json     held-out figures, once it has finished
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar
from zipfile import BadZipFile

import jax

from jaxmeta.core.checkpoint import CheckpointError, Checkpoints
from jaxmeta.core.config import (
    TRUSTED,
    as_of_now,
    config_hash,
    differences,
    from_json,
    to_json,
)
from jaxmeta.core.experiment import Experiment
from jaxmeta.core.files import write_whole
from jaxmeta.core.procedure import Procedure

Work = TypeVar("Work", bound=Experiment | Procedure)
"""What a run directory belongs to."""

PACKAGES = (
    "jaxmeta",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "numpy",
    "orbax-checkpoint",
    "mujoco",
    "mujoco-mjx",
    "brax",
)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON in one atomic step; what is not finite becomes null.

    Args:
      path: the file.
      value: anything that JSON can hold.
    """
    text = json.dumps(_finite(value), indent=2, allow_nan=False)
    write_whole(path, text + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def reading(directory: Path) -> Iterator[None]:
    """Says that a run directory is damaged when its files cannot be read.

    Raises:
      CheckpointError: naming the directory.

    Example:
      >>> with reading(Path("runs/x")):
      ...     {}["value"]
      Traceback (most recent call last):
      jaxmeta.core.checkpoint.CheckpointError: runs/x is damaged ('value'); ...
    """
    try:
        yield
    except (ValueError, FileNotFoundError, KeyError, EOFError, BadZipFile) as error:
        raise CheckpointError(
            f"{directory} is damaged ({error}); delete it to run it again."
        ) from error


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
      ValueError: naming the file, if it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is missing or damaged and cannot be read: {error}."
        ) from error


def git_revision() -> str | None:
    """The revision of the code, with `-dirty` when it has changes; None outside git."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=here.parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout

    try:
        # An installed package may lie within a repository of something else.
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty", "--abbrev=12").strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in PACKAGES
    }


def hardware() -> dict[str, Any]:
    """What this runs on."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
    }


def cpu_seconds() -> float:
    """Processor time of this process, and of those it has started and seen end."""
    return time.process_time() + sum(os.times()[2:4])


@dataclasses.dataclass(frozen=True)
class Run(Generic[Work]):
    """One run directory.

    Attributes:
      directory: its path.
      experiment: what runs in it.
    """

    directory: Path
    experiment: Work

    @classmethod
    def open(cls, directory: Path, experiment: Work) -> "Run[Work]":
        """Makes the directory, or opens it again for the same experiment.

        Raises:
          ValueError: if it belongs to another configuration, or cannot be written.
        """
        cls.check(directory, experiment)
        run = cls(Path(directory), experiment)
        if run.config_path.exists():
            return run
        try:
            run.directory.mkdir(parents=True, exist_ok=True)
            write_json(run.config_path, to_json(experiment))
        except OSError as error:
            raise ValueError(
                f"cannot write to the run directory {directory} ({error.strerror}); "
                "choose another --run-dir."
            ) from error
        return run

    @classmethod
    def check(cls, directory: Path, experiment: Work) -> None:
        """Raises what `open` would, and writes nothing.

        Raises:
          ValueError: if the directory is a file or belongs to something else.
          TypeError: if the experiment cannot be written as JSON.
        """
        run, config = cls(Path(directory), experiment), to_json(experiment)
        if run.directory.exists() and not run.directory.is_dir():
            raise ValueError(
                f"the run directory {directory} is a file; choose another --run-dir."
            )
        if (run.directory / "table.json").exists():
            raise ValueError(
                f"{directory} belongs to a table that was reproduced; choose another "
                "--run-dir."
            )
        if not run.config_path.exists():
            if (run.directory / "checkpoints").exists():
                raise ValueError(
                    f"{directory} has checkpoints and no config.json that says whose; "
                    "choose another --run-dir."
                )
            return
        found = differences(config, as_of_now(read_json(run.config_path)))
        if found:
            raise ValueError(
                f"{directory} belongs to another configuration ({found[0]}"
                f"{f', and {len(found) - 1} more' if len(found) > 1 else ''}); "
                "choose another --run-dir."
            )

    @classmethod
    def load(cls, directory: Path, trust: Sequence[str] = ()) -> "Run[Any]":
        """Opens a finished or interrupted run from its own configuration.

        Args:
          directory: its path.
          trust: packages, beside the usual ones, that the configuration may name.

        Raises:
          ValueError: if there is no run, or its configuration cannot be read.
        """
        path = Path(directory) / "config.json"
        if not path.is_file():
            raise ValueError(
                f"{directory} is not a run directory (it has no config.json); give "
                "the --run-dir of a `jaxmeta train`."
            )
        value = read_json(path)
        try:
            experiment = from_json(value, (*TRUSTED, *trust))
        except (AttributeError, TypeError, ValueError, StopIteration) as error:
            raise ValueError(
                f"{path} is damaged, of another version, or cannot be read here: "
                f"{error}"
            ) from error
        if not isinstance(experiment, Experiment | Procedure):
            raise ValueError(f"{path} is damaged: it does not describe an experiment.")
        run: Run[Any] = Run(Path(directory), experiment)
        return run

    @property
    def config_path(self) -> Path:
        """The resolved experiment as JSON."""
        return self.directory / "config.json"

    @property
    def metrics_path(self) -> Path:
        """The metrics, one JSON object a line."""
        return self.directory / "metrics.jsonl"

    @property
    def result_path(self) -> Path:
        """The test metrics, once the run has finished."""
        return self.directory / "result.json"

    @property
    def latest(self: "Run[Experiment]") -> Checkpoints:
        """The newest checkpoints."""
        keep = self.experiment.checkpoint.keep
        return Checkpoints(self.directory / "checkpoints" / "latest", keep)

    @property
    def best(self) -> Checkpoints:
        """The checkpoints with the best validation metric so far."""
        return Checkpoints(self.directory / "checkpoints" / "best")

    @property
    def finished(self) -> bool:
        """Whether the run has been trained to its last step and measured."""
        return self.result_path.exists()

    def keep_card(self) -> Callable[[], None]:
        """Writes `card.json` for a start of the run that begins now.

        Returns:
          A function that writes it again, with the seconds that have passed since.
        """
        path = self.directory / "card.json"
        started, cpu_started = time.time(), cpu_seconds()
        try:
            before = read_json(path)
        except ValueError:  # the first start, or a damaged card
            before = {}
        before = before if isinstance(before, dict) else {}
        config, norm_stats = to_json(self.experiment), self._norm_stats()

        def write():
            wall, cpu = time.time() - started, cpu_seconds() - cpu_started
            card = {
                "config_hash": config_hash(config),
                "seed": self.experiment.seed,
                "git_revision": git_revision(),
                "versions": versions(),
                "hardware": hardware(),
                "starts": before.get("starts", 0) + 1,
                "wall_seconds": before.get("wall_seconds", 0.0) + wall,
                "cpu_seconds": before.get("cpu_seconds", 0.0) + cpu,
                "norm_stats": norm_stats,
                "config": config,
            }
            write_json(path, card)

        write()
        return write

    def _norm_stats(self) -> str | None:
        """Whose batch statistics the method uses, if its network has any."""
        experiment: Any = self.experiment
        learner = getattr(experiment, "learner", None)
        chosen = getattr(learner, "norm_stats", None)
        if learner is None or chosen is None:
            return None
        example = experiment.source.example
        _, state = jax.eval_shape(learner.init, jax.random.key(0), example)
        return chosen if any(leaf.ndim for leaf in jax.tree.leaves(state)) else None
