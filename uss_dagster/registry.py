"""Plug-ins by file name: one file a method, backbone, dataset or metric, and no list anywhere else.

Belongs here: finding plug-in modules in a folder, reading their ``SPEC``, turning a mapping from a
parameter file into the plug-in's parameter dataclass. Does not belong here: what any plug-in does.

A plug-in is a public module (no leading underscore, not ``base``) that defines ``SPEC``.
Listing names never imports them; looking one up imports only that one.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from uss_dagster.errors import UsageError, did_you_mean

FAMILIES = {"method": "methods", "backbone": "backbones", "dataset": "datasets", "metric": "metrics"}

P = TypeVar("P")


def package_name(family: str) -> str:
    """The package that holds a family's plug-ins."""
    return f"uss_dagster.{FAMILIES[family]}"


@cache
def names(family: str) -> tuple[str, ...]:
    """Names of all plug-ins of a family, sorted, without importing them."""
    package = importlib.import_module(package_name(family))
    found = (m.name for m in pkgutil.iter_modules(package.__path__) if not m.ispkg)
    return tuple(sorted(n for n in found if not n.startswith("_") and n not in ("base", "support")))


def module_name(family: str, name: str) -> str:
    """The dotted module of a plug-in; an unknown name is refused with the nearest known one."""
    if name not in names(family):
        raise UsageError(f"Unknown {family} '{name}'.{did_you_mean(name, names(family))}")
    return f"{package_name(family)}.{name}"


def load(family: str, name: str) -> Any:
    """Import a plug-in module and check that it has a ``SPEC``."""
    module = importlib.import_module(module_name(family, name))
    if not hasattr(module, "SPEC"):
        raise UsageError(f"{family} '{name}' ({module.__file__}) defines no SPEC. See CONTRIBUTING.md for the shape of one.")
    return module


def build_params(cls: type[P], values: Mapping[str, Any], owner: str) -> P:
    """Fill a parameter dataclass from a mapping; names and types are checked, and an int is taken for a float."""
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    filled: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise UsageError(f"{owner} has no parameter '{name}'.{did_you_mean(name, fields)}")
        filled[name] = _coerce(value, hints[name], f"{owner}: parameter '{name}'")
    try:
        return cls(**filled)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{owner}: {error}") from error


def params_to_dict(params: Any) -> dict[str, Any]:
    """A parameter dataclass as plain YAML/JSON values (tuples become lists)."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(params).items()}


def _coerce(value: Any, hint: Any, what: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if value not in args:
            raise UsageError(f"{what} is {value!r}.{did_you_mean(str(value), map(str, args))}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        for option in (a for a in args if a is not type(None)):
            try:
                return _coerce(value, option, what)
            except UsageError:
                continue
        raise UsageError(f"{what} is {value!r}, expected {hint}.")
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UsageError(f"{what} is {value!r}, expected a list.")
        return tuple(_coerce(v, args[0], what) for v in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise UsageError(f"{what} is {value!r}, expected {hint.__name__}.")
    return value
