"""``uss stage``: compute one cell. DVC calls it; it is hidden from the help."""

from __future__ import annotations

from typing import Annotated

import typer


def stage(file: Annotated[str, typer.Argument(help="The cell's parameter file, from the project folder.")]) -> None:
    """Compute one cell; this is what dvc.yaml calls."""
    from uss_dagster.planning.profiles import find_root
    from uss_dagster.run import run_cell

    run_cell(file, find_root())
