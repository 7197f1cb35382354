"""``uss list``: the plug-ins of this package and of other installed packages, and the parameters of one."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import typer

from uss_dagster.commands.options import AsJson, echo_json, echo_lines

WIDTH = 100
"""Of the descriptions."""


class About(TypedDict, total=False):
    """A plug-in as ``--json`` prints it. features: of a method, those that it reads. parameters: of one that was named; metrics: of a family."""

    family: str
    name: str
    title: str
    summary: str
    paper: str
    features: str
    parameters: list[dict[str, object]]
    metrics: dict[str, str]


def list(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A plug-in, to see its parameters.", show_default=False)] = None,
    json: AsJson = False,
) -> None:
    """Show what is here, or the parameters of one plug-in."""
    from uss_dagster import registry

    plugins = [*_named(name)] if name is not None else [_about(family, n) for family in registry.FAMILIES for n in registry.names(family)]
    if json:
        echo_json(plugins)
    elif name is not None:
        echo_lines(line for about in plugins for line in _lines(about))
    else:
        for family, heading in registry.FAMILIES.items():
            echo_lines([f"{heading}:", *(f"  {about['name']:<16} {about['title']}" for about in plugins if about["family"] == family)])


def _named(name: str) -> Iterator[About]:
    """What is called so, with its parameters; of each family that has one of this name."""
    from uss_dagster import registry
    from uss_dagster.errors import UsageError, did_you_mean
    from uss_dagster.report.parameters import descriptions_of, parameters_of_class

    families = [family for family in registry.FAMILIES if name in registry.names(family)]
    if not families:
        raise UsageError(
            f"Nothing is called '{name}'.{did_you_mean(name, [n for family in registry.FAMILIES for n in registry.names(family)])}"
        )
    for family in families:
        spec = registry.load(family, name).SPEC
        about = _about(family, name)
        if family == "metric":
            yield about | About(metrics={metric: number.protocol for metric, number in spec.metrics.items()})
            continue
        texts = descriptions_of(spec.params)
        yield about | About(
            parameters=[
                {"name": p.name, "default": p.default, "choices": [*p.choices], "type": p.kind, "description": texts.get(p.name, "")}
                for p in parameters_of_class(spec.params, {})
            ]
        )


def _about(family: str, name: str) -> About:
    from uss_dagster import registry
    from uss_dagster.methods.base import features_read

    spec = registry.load(family, name).SPEC
    about = About(family=family, name=name, title=spec.title, summary=getattr(spec, "summary", ""), paper=getattr(spec, "paper", ""))
    return about | About(features=features_read(spec)) if family == "method" else about


def _lines(about: About) -> Iterator[str]:
    """What a person reads of one plug-in."""
    from uss_dagster.report.parameters import value_text
    from uss_dagster.text import aligned

    yield f"{about['family']} {about['name']}: {about['title']}"
    yield from (line for line in (about["summary"], about["paper"]) if line)
    if "features" in about:
        yield f"features of a backbone: {about['features']}"
    if "metrics" in about:
        yield from aligned(["number", "protocol"], [[*row] for row in about["metrics"].items()])
    parameters: Any = about.get("parameters")
    if not parameters:
        return
    rows = [[p["name"], value_text(p["default"]), ", ".join(map(value_text, p["choices"])) or p["type"]] for p in parameters]
    head, *table = aligned(["parameter", "default", "values"], rows)
    yield head
    for row, parameter in zip(table, parameters, strict=True):
        yield row
        yield from textwrap.wrap(parameter["description"], WIDTH, initial_indent="    ", subsequent_indent="    ")
