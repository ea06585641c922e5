"""Objects are configs: a frozen dataclass to JSON and back.

A run directory keeps the resolved experiment as JSON, so that it can be read by a
person, compared with another, and made into the same objects again. Only dataclasses
and module-level functions of importable modules are written. Reading imports modules
and hands functions to code that calls them, so it names trusted packages only.
"""

import dataclasses
import functools
import hashlib
import importlib
import inspect
import json
from collections.abc import Sequence
from typing import Any, TypeGuard

from flax import linen as nn


def _address(thing: Any) -> str:
    return f"{thing.__module__}:{thing.__qualname__}"


TRUSTED = ("jaxmeta", "optax", "flax", "jax")
"""Packages whose classes and functions a configuration may name."""


def find(address: str) -> Any:
    """What `module:name` names.

    Raises:
      ValueError: if it cannot be imported.

    Example:
      >>> find("math:sqrt")(4.0)
      2.0
    """
    module, _, name = address.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{address} cannot be imported ({error}); a run can be read again only if "
            "its classes live in an importable module."
        ) from error
    return found


def _is_addressable(obj: Any) -> bool:
    """Whether its address finds it again: no lambda, no closure, no bound method."""
    named = callable(obj) and "<" not in getattr(obj, "__qualname__", "<")
    return named and not inspect.ismethod(obj)


def _is_partial(obj: Any) -> TypeGuard[functools.partial]:
    partial = isinstance(obj, functools.partial) and not obj.args
    return partial and _is_addressable(obj.func)


def _fields(obj: Any) -> list[dataclasses.Field]:
    linen = ("parent", "name") if isinstance(obj, nn.Module) else ()
    return [f for f in dataclasses.fields(obj) if f.init and f.name not in linen]


def to_json(obj: Any) -> Any:
    """A JSON value that `from_json` turns back into an equal object.

    Raises:
      TypeError: naming the type, for what cannot be written.

    Example:
      >>> from jaxmeta import Parallel
      >>> to_json(Parallel(backend="vmap"))["backend"]
      'vmap'
      >>> from_json(to_json(Parallel(num_devices=2)))
      Parallel(backend='shard_map', num_devices=2, params_shards=1, data_shards=1,
               task_batch_size=None, deterministic=False)
    """
    if obj is None or isinstance(obj, bool | int | float | str):
        return obj
    if isinstance(obj, tuple | list):
        return [to_json(item) for item in obj]
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        values = {f.name: to_json(getattr(obj, f.name)) for f in _fields(obj)}
        return {"class": _address(type(obj)), **values}
    if _is_partial(obj):
        keywords = {name: to_json(value) for name, value in obj.keywords.items()}
        return {"partial": _address(obj.func), **keywords}
    if _is_addressable(obj):
        return {"function": _address(obj)}
    raise TypeError(
        f"cannot write a {type(obj).__name__} into a run's configuration: {obj!r}. Use "
        "numbers, strings, tuples, dataclasses and module-level functions."
    )


def from_json(value: Any, trusted: Sequence[str] = TRUSTED) -> Any:
    """The object that `to_json` wrote; lists come back as tuples.

    Args:
      value: JSON.
      trusted: top-level packages that it may name. A run directory from somebody else
        could otherwise name any function there is, to be called later.

    Raises:
      ValueError: if a class or function is of no trusted package, cannot be imported,
        or its fields have changed.

    Example:
      >>> from_json({"partial": "subprocess:run", "args": ["true"]})
      Traceback (most recent call last):
      ValueError: subprocess:run is of no trusted package (jaxmeta, optax, flax, jax)...
    """
    if isinstance(value, list):
        return tuple(from_json(item, trusted) for item in value)
    if not isinstance(value, dict):
        return value
    kind = next((k for k in ("class", "partial", "function") if k in value), None)
    if kind is None or not isinstance(value[kind], str):
        raise ValueError(f"this is no object of a configuration: {value!r:.60}.")
    address = value[kind]
    if address.partition(":")[0].partition(".")[0] not in trusted:
        raise ValueError(
            f"{address} is of no trusted package ({', '.join(trusted)}). If you trust "
            "it, and it can be imported, name its package: jaxmeta evaluate --trust."
        )
    arguments = {k: from_json(v, trusted) for k, v in value.items() if k != kind}
    found = find(address)
    if kind == "function":
        return found
    if kind == "partial":
        return functools.partial(found, **arguments)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise ValueError(f"{address} is not a dataclass.")
    try:
        return found(**arguments)
    except TypeError as error:
        raise ValueError(
            f"{address} does not take the recorded fields: {error}."
        ) from error


def as_of_now(value: Any) -> Any:
    """A configuration with every field that has been added since it was written.

    Example:
      >>> as_of_now({"class": "jaxmeta.core.parallel:Parallel"})["num_devices"] is None
      True
      >>> as_of_now({"class": "nowhere:Thing"})
      {'class': 'nowhere:Thing'}
    """
    try:
        return to_json(from_json(value))
    except (AttributeError, TypeError, ValueError):  # not ours, or of no use any more
        return value


def config_hash(value: Any) -> str:
    """Twelve hexadecimal digits that name a configuration (as JSON).

    Example:
      >>> config_hash({"a": 1}) == config_hash({"a": 2})
      False
    """
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Dotted names of the fields in which two JSON configurations differ.

    Example:
      >>> differences({"a": {"b": 1}}, {"a": {"b": 2}})
      ['a.b: 1 here, 2 there']
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        names = sorted(ours.keys() | theirs.keys())
        pairs = [(n, ours.get(n), theirs.get(n)) for n in names]
        found = [differences(a, b, f"{path}.{n}" if path else n) for n, a, b in pairs]
        return [line for lines in found for line in lines]
    if ours == theirs:
        return []
    return [f"{path}: {ours} here, {theirs} there"]
