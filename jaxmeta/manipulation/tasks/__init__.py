"""The tasks by their official names."""

import difflib
import importlib
import inspect
import pkgutil

from jaxmeta.manipulation.task import ManipulationTask


def _all() -> dict[str, ManipulationTask]:
    found = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for kind in vars(module).values():
            if inspect.isclass(kind) and issubclass(kind, ManipulationTask):
                if kind.__module__ == module.__name__ and "name" in vars(kind):
                    found[kind.name] = kind()
    return dict(sorted(found.items()))


TASKS = _all()


def find(name: str) -> ManipulationTask:
    """The task of that name.

    Raises:
      ValueError: naming the nearest, if there is none.

    Example:
      >>> find("reach").name
      'reach'
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(TASKS)}."
        raise ValueError(f"unknown task {name!r}; {hint}")
    return TASKS[name]
