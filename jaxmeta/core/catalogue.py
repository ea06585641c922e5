"""The experiments and tables under `configs/`, found without importing JAX.

A config is a Python file with `get_config() -> Experiment` or
`get_table(quick) -> Table`. The first line of its docstring says what it is, the
constants `PAPER` and `COST` where it is from and what it takes. A config is code: run
only those you trust.
"""

import ast
import dataclasses
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, Literal, TypeVar

from jaxmeta.core.names import did_you_mean

Made = TypeVar("Made")

PACKAGE = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One config file.

    Attributes:
      name: how it is called on the command line.
      path: the file.
      kind: an experiment to train, or a table to reproduce.
      what: the first line of its docstring.
      paper: the paper, with section or table.
      cost: expected time and hardware.
    """

    name: str
    path: Path
    kind: Literal["experiment", "table"]
    what: str
    paper: str
    cost: str


def config_dir() -> Path:
    """`configs/` of an installed wheel, or of the checkout."""
    installed = PACKAGE / "configs"
    return installed if installed.is_dir() else PACKAGE.parent / "configs"


def describe(path: Path) -> Entry:
    """Reads what a config says of itself, without running it.

    Raises:
      ValueError: if the file is not Python or defines neither function.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=path.name)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as a config: {error}; correct the file."
        ) from error
    functions = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    if not functions & {"get_config", "get_table"}:
        raise ValueError(
            f"{path} defines neither get_config() nor get_table(quick); a config is a "
            "Python file with one of them."
        )
    return Entry(
        name=_name(path),
        path=path,
        kind="table" if "get_table" in functions else "experiment",
        what=(ast.get_docstring(tree) or "").split("\n")[0],
        paper=str(constants.get("PAPER", "")),
        cost=str(constants.get("COST", "")),
    )


def _name(path: Path) -> str:
    """`manipulation/reach-ppo` of what is shipped, else the file's own name."""
    path = path.resolve().with_suffix("")
    shipped = path.is_relative_to(config_dir().resolve())
    name = path.relative_to(config_dir().resolve()) if shipped else Path(path.name)
    return name.as_posix().replace("_", "-")


def entries() -> list[Entry]:
    """All shipped configs, by name."""
    paths = sorted(config_dir().rglob("*.py"))
    return [describe(path) for path in paths if not path.name.startswith("_")]


def find(name: str, kind: Literal["experiment", "table"]) -> Entry:
    """The config of that name, or at that path.

    Raises:
      ValueError: naming near misses, or the command for the other kind.
    """
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise ValueError(
                f"there is no config file {name}; `jaxmeta list` shows what is shipped."
            )
        entry = describe(Path(name))
    else:
        known = {entry.name: entry for entry in entries()}
        wanted = name.replace("_", "-")
        if wanted not in known:
            names = [entry.name for entry in known.values() if entry.kind == kind]
            hint = did_you_mean(wanted, known, f"known: {', '.join(names)}.")
            raise ValueError(
                f"unknown {kind} {name!r}; {hint} `jaxmeta list` shows all."
            )
        entry = known[wanted]
    if entry.kind != kind:
        command = "reproduce" if entry.kind == "table" else "train"
        raise ValueError(
            f"{name} is a{'n' * (entry.kind == 'experiment')} {entry.kind}; use "
            f"`jaxmeta {command} {name}`."
        )
    return entry


def load(entry: Entry) -> ModuleType:
    """Runs the config file and returns it as a module.

    Raises:
      ValueError: if running it fails.
    """
    # Dataclasses look their module up by name, so it has one, which shadows no other.
    name = f"jaxmeta_config_{entry.path.stem}"
    spec = importlib.util.spec_from_file_location(name, entry.path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        # Compiled here, so that nothing is written beside somebody's file.
        code = compile(entry.path.read_bytes(), entry.path.absolute(), "exec")
        exec(code, module.__dict__)
    except Exception as error:
        raise _failure(entry, error) from error
    return module


def make(entry: Entry, wanted: type[Made] | UnionType, *arguments: Any) -> Made | Any:
    """What `get_config()` or `get_table(quick)` of a config returns.

    Args:
      entry: the config.
      wanted: the class, or the union of classes, that it should return.
      arguments: given to the function.

    Raises:
      ValueError: if running it fails, or it returns something else.
    """
    name = "get_table" if entry.kind == "table" else "get_config"
    function = getattr(load(entry), name)
    try:
        made = function(*arguments)
    except Exception as error:
        raise _failure(entry, error) from error
    if not isinstance(made, wanted):
        kind = {"table": "a Table", "experiment": "an Experiment"}[entry.kind]
        raise ValueError(
            f"{entry.path}: {name}() returns {made!r:.60}; it must return {kind}."
        )
    return made


def _failure(entry: Entry, error: Exception) -> ValueError:
    path, steps = entry.path.absolute(), traceback.extract_tb(error.__traceback__)
    lines = [step.lineno for step in steps if Path(step.filename) == path]
    where = f" at line {lines[-1]}" if lines else ""
    return ValueError(
        f"{entry.path} fails{where}: {type(error).__name__}: {error}; correct the file."
    )
