"""``uss list``: the plug-ins of this package and of other installed packages, and the parameters of one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from uss_dagster.commands.options import echo_lines


def list(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A plug-in, to see its parameters.", show_default=False)] = None,
) -> None:
    """Show what is here, or the parameters of one plug-in."""
    from uss_dagster import registry

    if name is not None:
        echo_lines(_about(name))
        return
    for family, heading in registry.FAMILIES.items():
        typer.echo(f"{heading}:")
        for known in registry.names(family):
            typer.echo(f"  {known:<16} {registry.load(family, known).SPEC.title}")


def _about(name: str) -> Iterator[str]:
    """What a plug-in is, and its parameters with their defaults; of each family that has one of this name."""
    from uss_dagster import registry
    from uss_dagster.errors import UsageError, did_you_mean
    from uss_dagster.report.parameters import parameters_of_class, value_text
    from uss_dagster.text import aligned

    families = [family for family in registry.FAMILIES if name in registry.names(family)]
    if not families:
        raise UsageError(
            f"Nothing is called '{name}'.{did_you_mean(name, [n for family in registry.FAMILIES for n in registry.names(family)])}"
        )
    for family in families:
        spec = registry.load(family, name).SPEC
        yield f"{family} {name}: {spec.title}"
        yield from (line for line in (getattr(spec, "summary", ""), getattr(spec, "paper", "")) if line)
        if family == "metric":
            yield from aligned(["number", "protocol"], [[metric, about.protocol] for metric, about in spec.metrics.items()])
            continue
        rows = [
            [p.name, value_text(p.default), ", ".join(value_text(choice) for choice in p.choices) or p.kind]
            for p in parameters_of_class(spec.params, {})
        ]
        if rows:
            yield from aligned(["parameter", "default", "values"], rows)
