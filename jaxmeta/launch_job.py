"""One training as text: a job, a target that renders it, and the templates.

Standard library alone.
"""

import abc
import dataclasses
import re
import shlex
import textwrap
from pathlib import Path
from typing import ClassVar

_PACKAGE = Path(__file__).resolve().parent
_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
_WORD = re.compile(r"[\w./](?:[\w./*@,:+-]*[\w./*@,+-])?")

PREEMPTED = 42
"""The exit code that says: a checkpoint was written, start me again."""


def template_dir() -> Path:
    """`launch/` of an installed wheel, or of the checkout."""
    installed = _PACKAGE / "launch"
    return installed if installed.is_dir() else _PACKAGE.parent / "launch"


def fill(template: str, **values: object) -> str:
    """The text of a template, `{{name}}` replaced; a line that is left empty goes.

    Raises:
      KeyError: for a name without a value.

    Example:
      >>> fill("slurm.sbatch", name="x")
      Traceback (most recent call last):
      KeyError: 'nodes'
    """
    lines = (template_dir() / template).read_text(encoding="utf-8").splitlines()
    filled = []
    for line in lines:
        indent = re.match(r" *", line)
        assert indent is not None
        text = re.sub(r"\{\{(\w+)\}\}", lambda found: str(values[found[1]]), line)
        # Of a value of several lines every one is indented as the first.
        text = text.replace("\n", f"\n{indent[0]}")
        if text.strip() or not line.strip():
            filled.append(text.rstrip())
    return "\n".join(filled) + "\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One training, wherever it runs.

    Attributes:
      config: the name of an experiment, or a Python file that every host can read.
      run_dir: where the run is kept; all hosts must see the same directory.
      overrides: further options of `jaxmeta train`.

    Example:
      >>> job = Job(config="msr-fc", run_dir="/runs/a b", overrides=("--steps", "9"))
      >>> print(job.line())
      jaxmeta train msr-fc --run-dir '/runs/a b' --steps 9
    """

    config: str
    run_dir: str
    overrides: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """The command of one process."""
        start = ["jaxmeta", "train", self.config, "--run-dir", self.run_dir]
        return [*start, *self.overrides]

    def line(self, *more: str) -> str:
        """The command as a line for a shell, with further words as they are."""
        return " ".join([shlex.join(self.words()), *more])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target(abc.ABC):
    """A place to run."""

    program: ClassVar[tuple[str, ...]]
    """What is given a file with the text."""

    template: ClassVar[str]
    """The file under `launch/` that is filled in."""

    @abc.abstractmethod
    def render(self, job: Job) -> str:
        """Exactly what would run."""


def at_least(target: Target, **limits: int) -> None:
    """Raises ValueError for a field below its limit."""
    for name, low in limits.items():
        if (value := getattr(target, name)) < low:
            raise ValueError(f"{name} must be >= {low}, got {value}.")


def lines(commands: str) -> str:
    """Shell commands as far left as they go, as a block of YAML must begin."""
    return textwrap.dedent(commands).strip()


def word(target: Target, *names: str) -> None:
    """Raises ValueError for a field that is given and that shells or YAML split."""
    for name in names:
        value = getattr(target, name)
        if value and not _WORD.fullmatch(value):
            raise ValueError(
                f"{name} must be one word of letters, digits and ./*@,:+-, got "
                f"{value!r}."
            )


def absolute(job: Job) -> None:
    """Raises ValueError for a run directory that is of one host."""
    if not job.run_dir.startswith("/"):
        raise ValueError(
            "run_dir must be an absolute path that all hosts see, as of a file server "
            f"or a mounted bucket, got {job.run_dir!r}."
        )


def label(name: str) -> None:
    """Raises ValueError for what Kubernetes and clouds take for no name."""
    if not _LABEL.fullmatch(name):
        raise ValueError(
            "name must be small letters, digits and dashes, 40 at most, beginning with "
            f"a letter, got {name!r}."
        )
