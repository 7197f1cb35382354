"""``uss list``: the plug-ins of this package and of other installed packages."""

from __future__ import annotations

import typer


def list() -> None:
    """Show all methods, backbones, datasets and metrics."""
    from uss_dagster import registry

    for family, heading in registry.FAMILIES.items():
        typer.echo(f"{heading}:")
        for name in registry.names(family):
            typer.echo(f"  {name:<16} {registry.load(family, name).SPEC.title}")
