"""The options of every command, and their parsing.

A mistake of the user's becomes a `UserError`, which fits on a line.
"""

import contextlib
import dataclasses
import difflib
import io
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructTypeInfo,
)

Options = TypeVar("Options")


class UserError(Exception):
    """A mistake of the user's: told in one line, exit code 2."""


def one_line(error: Exception | str) -> str:
    """A message without its line breaks, cut where it gets too long to be read.

    Example:
      >>> one_line(ValueError("steps must be >= 1,\\n  got 0."))
      'steps must be >= 1, got 0.'
    """
    text = " ".join(str(error).split())
    return text if len(text) <= 500 else f"{text[:500]} ..."


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Every experiment and table: what it is, paper, expected time and hardware."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Where data sets are looked for."""

    data_dir: Path | None = None
    """Directory with data files; $JAXMETA_DATA_DIR when not given."""

    download: bool = False
    """Allow a missing data set to be downloaded; nothing is otherwise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Where several processes meet; JAX looks for their cluster when not given."""

    coordinator: str | None = None
    """HOST:PORT of process 0."""

    num_processes: int | None = None
    """How many there are."""

    process_id: int | None = None
    """Which of them this is, from 0."""

    watchdog: float = 600.0
    """Seconds without finished steps after which one of several processes ends."""

    def __post_init__(self):
        if not self.watchdog > 0:
            raise ValueError(f"watchdog must be positive, got {self.watchdog}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train an experiment; a rerun in the same directory goes on where it stopped."""

    run_dir: Path | None = None
    """Where the run is kept; runs/NAME when not given."""

    dry_run: bool = False
    """Print the resolved experiment and what it would cost, and train nothing."""

    diagnostics: bool = False
    """Also log and draw conflict, curvature and theorem 2 of gradient surgery, unless
    the config has step metrics of its own."""

    tensorboard: bool = False
    """Also write TensorBoard scalars into the run directory."""

    wandb: bool = False
    """Also log to Weights & Biases."""

    cluster: Annotated[ClusterOptions, tyro.conf.arg(name="")] = ClusterOptions()

    data: Annotated[DataOptions, tyro.conf.arg(name="")] = DataOptions()


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Measure a trained run on held-out tasks."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory."""

    num_tasks: int | None = None
    """Held-out tasks, of an agent goals of each task; as many as the experiment says
    when not given."""

    trust: tuple[str, ...] = ()
    """Packages of your own that the run may name; importing them runs their code."""

    data: Annotated[DataOptions, tyro.conf.arg(name="")] = DataOptions()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceOptions:
    """Run a published table, ours beside the paper's; a rerun goes on."""

    table: Annotated[str, tyro.conf.Positional]
    """A table of `jaxmeta list`, or a Python file."""

    quick: bool = False
    """A small version that takes minutes."""

    seeds: int | None = None
    """Runs per cell; as the table says when not given."""

    rows: tuple[str, ...] = ()
    """Only these rows."""

    jobs: int = 1
    """Runs at a time, each in a process with its share of the CPU cores."""

    run_dir: Path | None = None
    """Where it is kept; runs/TABLE when not given."""

    data: Annotated[DataOptions, tyro.conf.arg(name="")] = DataOptions()


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """Put a training on many machines; what the target does not know is of `train`."""

    run_dir: str | None = None
    """Where the run is kept; all hosts must see it. runs/NAME when not given."""

    dry_run: bool = False
    """Print exactly what would run, and start nothing."""


BENCHES = {
    "env": "steps, compile time and memory of the manipulation environment",
    "meta-gradient": "time and memory of MAML's outer gradient, in every way there is",
    "scaling": "what devices tell each other in a step, and where that stops scaling",
}
"""What can be measured."""

BENCH_OPTIONS = {
    "num_envs": "env",
    "inner_steps": "meta-gradient",
    "devices": "scaling",
    "utilisation": "scaling",
    "plot": "scaling",
}
"""What has which option alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Measure the speed of something on this machine.

    env: environment steps a second (of the processor, or on an accelerator of the
    clock) with faithful and fast physics, all tasks mixed and one alone; compile time;
    memory. Beside it the official package, where JAXMETA_METAWORLD_PYTHON names an
    interpreter that has it, and EnvPool's where that is installed.

    meta-gradient: seconds and temporary memory of the gradient through 1, 5, 20 and 50
    inner steps: unrolled with and without recomputation, MixFlow, truncated, implicit,
    first order.

    scaling: exchanges and bytes of one step of MSR, MAML, ARM-CML and a multitask
    network without and with PCGrad, compiled for 1, 8, 64 and 256 devices and run on
    none; and the efficiency that follows from published figures of TPUs and GPUs."""

    name: Annotated[Literal["env", "meta-gradient", "scaling"], tyro.conf.Positional]
    """What is measured."""

    num_envs: tuple[int, ...] = ()
    """env: environments in a batch; some that suit the device when not given."""

    inner_steps: tuple[int, ...] = ()
    """meta-gradient: other numbers of inner steps."""

    devices: tuple[int, ...] = ()
    """scaling: other numbers of devices, to 1024; one is always among them."""

    utilisation: float | None = None
    """scaling: share of its peak at which a chip computes; 1 when not given."""

    plot: Path | None = None
    """scaling: also draw the predicted efficiency into this file, a PNG."""

    out: Path | None = None
    """Also write the figures to this file, as JSON."""

    def __post_init__(self):
        for option, name in BENCH_OPTIONS.items():
            if getattr(self, option) not in (None, ()) and name != self.name:
                flag = f"--{option.replace('_', '-')}"
                raise ValueError(f"{flag} is not of `jaxmeta bench {self.name}`.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Render runs and tables as Markdown and PNG, into their directories.

    Of several runs with --diagnostics the curves are drawn side by side."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories of `train` or `reproduce`."""


def parse(kind: type[Options] | Any, argv: list[str], prog: str, **keywords) -> Options:
    """Parses with tyro; a mistake becomes one line that names it and the near miss."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(
                kind, args=argv, prog=prog, registry=_functions_by_name(), **keywords
            )
    except SystemExit as stop:
        if stop.code == 0:
            raise
        raise UserError(f"{_plain(told.getvalue())} (see {prog} --help)") from None
    except ValueError as error:
        raise UserError(f"{one_line(error)} (see {prog} --help)") from None


def _functions_by_name() -> ConstructorRegistry:
    """Lets a function be given as MODULE:NAME, or by the fields that it has."""
    registry = ConstructorRegistry()

    @registry.struct_rule
    def fields(info) -> Any:
        kinds = (info.type, *typing.get_args(info.type))
        may_be_function = any(typing.get_origin(kind) is Callable for kind in kinds)
        if not (may_be_function and dataclasses.is_dataclass(info.default)):
            return None
        return ConstructorRegistry.get_struct_spec(
            StructTypeInfo.make(
                type(info.default), info.default, in_union_context=False
            )
        )

    @registry.primitive_rule
    def rule(info):
        if typing.get_origin(info.type) is not Callable:
            return None
        name = lambda f: f"{f.__module__}:{f.__qualname__}"
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="MODULE:NAME",
            instance_from_str=lambda args: _function(args[0]),
            is_instance=callable,
            str_from_instance=lambda f: [name(f) if hasattr(f, "__name__") else str(f)],
        )

    return registry


def _function(address: str) -> Any:
    """What `module:name` names; of a class the instance with its defaults."""
    from jaxmeta.core.config import find

    found = find(address)
    if not isinstance(found, type):
        return found
    try:
        return found()
    except TypeError as error:
        raise ValueError(f"{address} is no function: {error}.") from error


def _plain(boxed: str) -> str:
    """The first paragraph of a boxed message, and the first flag it suggests."""
    lines = [line.strip("│╭╮╰╯ ") for line in boxed.splitlines()[1:]]  # without title
    paragraphs = [""]
    for line in lines:
        if set(line) <= {"─", "-"}:
            paragraphs.append("")
        else:
            paragraphs[-1] += f" {line}"
    message, *others = (text.strip() for text in paragraphs if text)
    # Names of our own wrapper classes mean nothing to the user.
    message = re.sub(r"Error parsing (\w+\.)*experiment\.?", "invalid ", message)
    message = message.replace("invalid :", "invalid experiment:").rstrip(".")
    flags = re.findall("--[^\\s,]+", " ".join(others))
    if any("Perhaps you meant" in text for text in others) and flags:
        # The parser lists what resembles the flag, not the nearest first.
        wrong = re.search("--[^\\s,]+", message)
        near = difflib.get_close_matches(wrong.group() if wrong else "", flags, 1, 0.0)
        message += f". Did you mean {near[0]}?"
    return message
