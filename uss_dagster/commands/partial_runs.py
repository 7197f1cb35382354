"""Running what can be computed where data or weights are missing.

DVC cannot build a table or a page whose inputs are missing. So what needs something that is not here is not run, and the table and the page
without it are built beside DVC, whose plan and dvc.lock files do not change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from uss_dagster.commands.repro import run_dvc

if TYPE_CHECKING:
    from uss_dagster.planning.cells import Cell
    from uss_dagster.planning.layout import Layout


def stale_among(layout: Layout, cells: Sequence[Cell], lacks: Mapping[str, str]) -> dict[str, str]:
    """Those cells that are out of date, of the ones that lack something. lacks: name of a cell → what it lacks."""
    from dagster_dvc.runner import DvcRunner

    if not lacks:
        return {}
    stale = DvcRunner(layout.root).status()
    return {cell.name: lacks[cell.name] for cell in cells if cell.name in lacks and cell.address in stale}


def run_without(layout: Layout, cells: Sequence[Cell], absent: Collection[str]) -> int:
    """Bring all cells but those named ``absent`` up to date; returns 0, or the exit code of what failed.

    ``absent`` holds the readers of its cells too, see ``plan.with_readers``.
    """
    from uss_dagster.planning.plan import in_order
    from uss_dagster.run import compute

    code = run_dvc(layout.root, [cell.address for cell in cells if cell.name not in absent] if absent else [])
    if code == 0:
        left = set(absent)
        for cell in in_order(cells):
            reduced = cell.without(left) if cell.name in left else None
            if reduced is not None:
                compute(reduced, layout)
                left.discard(cell.name)  # those that read it have it
    return code
