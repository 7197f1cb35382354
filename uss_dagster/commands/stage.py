"""``uss stage``: compute one cell. DVC calls it; it is hidden from the help."""

from __future__ import annotations

from typing import Annotated

import typer


def stage(file: Annotated[str, typer.Argument(help="The cell's parameter file, from the project folder.")]) -> None:
    """Compute one cell; this is what dvc.yaml calls."""
    from dagster_dvc.lock_copies import LOCK, copy_lock
    from dagster_dvc.owner import only_machine
    from uss_dagster.planning.plan import read_cell
    from uss_dagster.planning.profiles import find_root
    from uss_dagster.run import run_cell

    root = find_root()
    with only_machine(root):
        run_cell(file, root)
    copy_lock(root, root / read_cell(root, file).pipeline / LOCK)  # a plain `dvc repro` may be ended while it writes the lock of this stage
