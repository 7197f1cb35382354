"""Plug-ins by name: one file a method, backbone, dataset or metric, and no list anywhere else.

Belongs here: finding plug-in modules, reading their ``SPEC``, turning a mapping from a parameter file into the plug-in's parameter
dataclass and back. Does not belong here: what any plug-in does.

A plug-in is a public module in the package of its family (no leading underscore, not ``base``) that defines ``SPEC``. Another installed
package adds plug-ins through the entry point groups ``uss_dagster.methods``, ``uss_dagster.backbones``, ``uss_dagster.datasets`` and
``uss_dagster.metrics``; the name of the entry point is the name of the plug-in, its value the module. In that package's ``pyproject.toml``::

    [project.entry-points."uss_dagster.methods"]
    my_method = "my_package.my_method"

Listing names never imports plug-ins; looking one up imports only that one.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import math
import pkgutil
import re
import types
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

from uss_dagster.errors import ParameterError, UsageError, check_choice, did_you_mean

PACKAGE = "uss_dagster"
FAMILIES = {"method": "methods", "backbone": "backbones", "dataset": "datasets", "metric": "metrics"}

EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
"""A number such as 1e-3, which YAML 1.1 reads as text: it wants a point and a sign, as in 1.0e-3."""
P = TypeVar("P")
Values = dict[str, Any]
"""Parameters as plain YAML values by name; those of a section are a mapping of their own."""


# -- modules ------------------------------------------------------------------------------------------


def package_name(family: str) -> str:
    """The package of this project that holds a family's plug-ins, and the group of entry points that adds to them."""
    return f"{PACKAGE}.{FAMILIES[family]}"


@cache
def names(family: str) -> tuple[str, ...]:
    """Names of all plug-ins of a family, sorted, without importing them."""
    return tuple(sorted(_origins(family)))


def module_name(family: str, name: str) -> str:
    """The dotted module of a plug-in.

    Raises
    ------
    UsageError
        No package has a plug-in of this name (the nearest name is in the message), or two packages have one.
    """
    check_choice(family, name, names(family))
    first, *others = _origins(family).get(name, {PACKAGE: f"{package_name(family)}.{name}"}).items()
    if others:
        raise UsageError(
            f"Two packages define the {family} '{name}': {first[0]} and {others[0][0]}. Uninstall one of them, or rename its entry point."
        )
    return first[1]


def load(family: str, name: str) -> Any:
    """Import a plug-in module and check that it has a ``SPEC``."""
    dotted = module_name(family, name)
    try:
        module = importlib.import_module(dotted)
    except ImportError as error:
        if dotted.startswith(f"{PACKAGE}."):
            raise
        raise UsageError(
            f"{family} '{name}' of another package cannot be imported from '{dotted}' ({error}). Update or uninstall it."
        ) from error
    if not hasattr(module, "SPEC"):
        raise UsageError(f"{family} '{name}' ({module.__file__}) defines no SPEC. See CONTRIBUTING.md for the shape of one.")
    return module


@cache
def _origins(family: str) -> dict[str, dict[str, str]]:
    """Name of a plug-in → package that defines it → module."""
    folder = importlib.import_module(package_name(family)).__path__
    public = (
        m.name for m in pkgutil.iter_modules(folder) if not m.ispkg and not m.name.startswith("_") and m.name not in ("base", "support")
    )
    origins = {name: {PACKAGE: f"{package_name(family)}.{name}"} for name in public}
    for point in importlib.metadata.entry_points(group=package_name(family)):
        package = point.dist.name if point.dist else point.module.partition(".")[0]
        origins.setdefault(point.name, {})[package] = point.module
    return origins


# -- parameters ---------------------------------------------------------------------------------------


def build_params(cls: type[P], values: Mapping[str, Any], owner: str) -> P:
    """Fill a parameter dataclass from a mapping.

    Parameters
    ----------
    cls : type
        A dataclass. A field whose type is a dataclass is a section, and takes a mapping.
    values : mapping
        Values by name. Names and types are checked; a whole number is taken for a float, a list for a tuple.
    owner : str
        Whose parameters these are, for messages: ``method 'kmeans'``.

    Raises
    ------
    ParameterError
        A name or a value is wrong. Parameters of sections are called by dotted names, such as ``refine.kind``.

    Examples
    --------
    >>> build_params(Params, {"seed": 1, "refine": {"kind": "guided"}}, "method 'unsam'")  # doctest: +SKIP
    """
    return _build(cls, values, owner, (), flat_types(cls))


def params_to_dict(params: Any) -> Values:
    """A parameter dataclass as plain YAML/JSON values: sections become mappings, tuples become lists."""
    return {
        field.name: params_to_dict(value) if dataclasses.is_dataclass(value) else list(value) if isinstance(value, tuple) else value
        for field in dataclasses.fields(params)
        for value in (getattr(params, field.name),)
    }


def flat_params(params: Any) -> Values:
    """The values of a parameter dataclass, or of a mapping with sections, by dotted name; tuples become lists.

    Examples
    --------
    >>> flat_params({"seed": 1, "refine": {"kind": "none", "iou": 0.5}})
    {'seed': 1, 'refine.kind': 'none', 'refine.iou': 0.5}
    """
    values = params if isinstance(params, Mapping) else params_to_dict(params)
    flat: Values = {}
    for name, value in values.items():
        flat |= {f"{name}.{inner}": v for inner, v in flat_params(value).items()} if isinstance(value, Mapping) else {name: value}
    return flat


def flat_types(cls: type) -> dict[str, Any]:
    """The type of every parameter of a dataclass by dotted name, in the order of ``flat_params``."""
    hints = _type_hints(cls)
    flat: Values = {}
    for name in (field.name for field in dataclasses.fields(cls)):
        is_section = dataclasses.is_dataclass(hints[name])
        flat |= {f"{name}.{inner}": hint for inner, hint in flat_types(hints[name]).items()} if is_section else {name: hints[name]}
    return flat


def nested_params(flat: Mapping[str, Any]) -> Values:
    """The inverse of ``flat_params``.

    Examples
    --------
    >>> nested_params({"seed": 1, "refine.kind": "none", "refine.iou": 0.5})
    {'seed': 1, 'refine': {'kind': 'none', 'iou': 0.5}}
    """
    values: Values = {}
    for name, value in flat.items():
        *sections, last = name.split(".")
        section = values
        for key in sections:
            section = section.setdefault(key, {})
        section[last] = value
    return values


_type_hints = cache(typing.get_type_hints)


def _build(cls: type[P], values: Mapping[str, Any], owner: str, above: tuple[str, ...], known: Iterable[str], default: Any = None) -> P:
    """default: the section as the plug-in has it, which need not be the section's own default."""
    hints = _type_hints(cls)  # type: ignore[arg-type]
    fields = {field.name: hints[field.name] for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    filled: Values = {}
    for name, value in values.items():
        path = (*above, str(name))
        dotted = ".".join(path)
        if name not in fields:
            raise ParameterError(f"{owner} has no parameter '{dotted}'.{_suggestion(dotted, above, fields, known)}", path)
        if not dataclasses.is_dataclass(fields[name]):
            filled[name] = _coerce(value, fields[name], f"{owner}: parameter '{dotted}'", path)
            if name == "seed" and filled[name] < 0:
                raise ParameterError(f"{owner}: parameter '{dotted}' is {filled[name]}, expected 0 or more.", path)
        elif isinstance(value, Mapping):
            filled[name] = _build(typing.cast(type, fields[name]), value, owner, path, known, getattr(cls(), name))
        else:
            raise ParameterError(f"{owner}: '{dotted}' is {value!r}, expected a mapping of parameters.", path)
    try:
        return cls(**filled) if default is None else dataclasses.replace(default, **filled)
    except ParameterError as error:
        raise ParameterError(f"{owner}: {'.'.join((*above, str(error)))}", (*above, *error.path)) from None
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{owner}: {error}", above) from error


def _suggestion(dotted: str, above: tuple[str, ...], fields: Iterable[str], known: Iterable[str]) -> str:
    """``did_you_mean`` for a parameter that is not there. A parameter of the same name in another section comes first."""
    moved = [name for name in known if name.rpartition(".")[2] == dotted.rpartition(".")[2]]
    return did_you_mean(moved[0], moved[:1]) if moved else did_you_mean(dotted, (".".join((*above, name)) for name in fields))


def _coerce(value: Any, hint: Any, what: str, path: tuple[str, ...]) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if value not in args:
            raise ParameterError(f"{what} is {value!r}.{did_you_mean(str(value), map(str, args))}", path)
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        for option in (a for a in args if a is not type(None)):
            try:
                return _coerce(value, option, what, path)
            except UsageError:
                continue
        raise ParameterError(f"{what} is {value!r}, expected {hint}.", path)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ParameterError(f"{what} is {value!r}, expected a list.", path)
        return tuple(_coerce(v, args[0], what, path) for v in value)
    if hint is float and isinstance(value, str) and EXPONENT.fullmatch(value):
        value = float(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ParameterError(f"{what} is {value}, expected a finite number.", path)
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise ParameterError(f"{what} is {value!r}, expected {hint.__name__}.", path)
    return value
