"""The parameters of a method as the pages list them: value, default, and what else each can be."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping

from uss_dagster import registry
from uss_dagster.report.facts import Parameter


def parameters_of(method: str, params: Mapping[str, object]) -> list[Parameter]:
    """Every parameter of a method.

    Parameters
    ----------
    method : str
        Name of the plug-in.
    params : mapping
        Values that differ from the defaults; those of a section are a mapping of their own.
    """
    return parameters_of_class(registry.load("method", method).SPEC.params, params)


def parameters_of_class(cls: type, params: Mapping[str, object]) -> list[Parameter]:
    """Every parameter of a parameter dataclass; params: as of ``parameters_of``."""
    default = registry.flat_params(cls())
    values = default | registry.flat_params(params)
    return [Parameter(name, values[name], default[name], _choices(hint), _kind(hint)) for name, hint in registry.flat_types(cls).items()]


def _choices(hint: object) -> list[object]:
    """All values of a type, if they are few."""
    if hint is bool:
        return [False, True]
    parts = (hint, *typing.get_args(hint))
    options: list[object] = [option for part in parts if typing.get_origin(part) is typing.Literal for option in typing.get_args(part)]
    return [*options, None] if options and type(None) in parts else options


def _kind(hint: object) -> str:
    """A type in words that a person who writes a profile knows."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(_kind(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"list of {_kind(typing.get_args(hint)[0])}"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null"}
    return names[hint] if isinstance(hint, type) and hint in names else getattr(hint, "__name__", str(hint))


def value_text(value: object) -> str:
    """A value as a profile writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {value_text(part)}" for name, part in value.items()) + "}"
    return f"[{', '.join(map(value_text, value))}]" if isinstance(value, list | tuple) else str(value)


def descriptions_of(cls: type) -> dict[str, str]:
    """What the docstring of a parameter dataclass says of each parameter, by dotted name; nothing of those that it leaves out."""
    about: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        about |= _documented(base.__doc__ or "")
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            about |= {f"{field.name}.{inner}": text for inner, text in descriptions_of(hints[field.name]).items()}
    return about


def _documented(docstring: str) -> dict[str, str]:
    """Name → description, of the section 'Parameters'."""
    _, _, section = inspect.cleandoc(docstring).partition("Parameters\n----------\n")
    about: dict[str, str] = {}
    names: list[str] = []
    for line in re.split(r"\n(?=\S[^\n]*\n-+(?:\n|$))", section)[0].splitlines():
        if line.strip() and not line.startswith(" "):
            names = [name.strip() for name in line.partition(" : ")[0].split(",")]
            about |= dict.fromkeys(names, "")
        elif line.strip():
            about |= {name: f"{about[name]} {line.strip()}".strip() for name in names}
    return about
