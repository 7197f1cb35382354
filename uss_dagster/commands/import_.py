"""``uss import``: masks of other programs → ``regions.parquet`` and ``regions.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uss_dagster.commands.export import FormatName
from uss_dagster.commands.options import echo, echo_error
from uss_dagster.errors import UsageError


def import_(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file or folder that another program wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="New folder for regions.parquet and regions.json.")],
    name: FormatName = None,
) -> None:
    """Read masks of another program.

    For example `uss import PATH --format cvat --out DIR`.

    What comes out is what `uss segment` writes, so `uss score`, `uss export`, entries of the kind `masks` and `uss.regions` read it.
    """
    from uss_dagster.formats import catalogue
    from uss_dagster.formats.transfer import import_masks

    if name is None:
        raise UsageError(f"Say which program's format it is, with --format: {', '.join(catalogue.names())}.")
    done = import_masks(path, name, out)
    for note in done.notes:
        echo_error(note)
    echo(f"{out}: {done.images} images, {done.regions} regions.")
