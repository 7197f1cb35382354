"""Options that several commands have in common."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from uss_dagster.text import printable

STOPPED = "stopped; run the same command again to go on"
"""What is said after Ctrl-C."""


def _names_of(family: str) -> Callable[[str], list[str]]:
    """Completes the names of plug-ins in a shell."""

    def complete(incomplete: str) -> list[str]:
        from uss_dagster import registry

        return [name for name in registry.names(family) if name.startswith(incomplete)]

    return complete


Profile = Annotated[str | None, typer.Option("--profile", "-p", metavar="NAME", help="Use this profile (a file in profiles/) from now on.")]
Images = Annotated[list[Path], typer.Argument(metavar="IMAGES", help="Image files, or folders of images.")]
Method = Annotated[
    str,
    typer.Option("--method", "-m", metavar="NAME", help="How regions are found; `uss list` shows all.", autocompletion=_names_of("method")),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        "-b",
        metavar="NAME",
        help="Feature source, or one of its models, such as dinov2_vits14. [default: patches, which needs no weights]",
        autocompletion=_names_of("backbone"),
    ),
]
MethodParameters = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="NAME=VALUE", help="A parameter of the method, as in a profile; can be repeated."),
]
BackboneParameters = Annotated[
    list[str] | None,
    typer.Option(
        "--backbone-param",
        metavar="NAME=VALUE",
        help="A parameter of the backbone, as checkpoint=FILE; can be repeated.",
    ),
]
LongSide = Annotated[
    int, typer.Option(min=0, metavar="PIXELS", help="Larger images are segmented at this size; 0 for never. Regions have the full size.")
]

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.")]


def echo(line: str) -> None:
    """Print a line; what would steer a terminal is escaped."""
    typer.echo(printable(line))


def echo_lines(lines: Iterable[str]) -> None:
    """Print lines as they come."""
    for line in lines:
        echo(line)


def echo_error(line: str) -> None:
    """Print a line on standard error."""
    typer.echo(printable(line), err=True)


def echo_json(result: object) -> None:
    """Print a result as JSON on standard output; a number that is not finite is null."""
    typer.echo(json.dumps(_finite(result), indent=1, ensure_ascii=False, allow_nan=False))


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _finite(part) for name, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value
