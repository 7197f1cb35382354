"""``uss demo``: the profile ``demo`` from nothing to its leaderboard."""

from __future__ import annotations

import os

import typer

from uss_dagster.commands.repro import run_dvc


def demo() -> None:
    """A leaderboard from nothing, without a network.

    Drawn scenes, the embedded backbone, classic methods; a table here, and a page in reports/site.
    """
    from uss_dagster.commands.requirements import check_tools
    from uss_dagster.planning.layout import Layout
    from uss_dagster.planning.plan import write_plan
    from uss_dagster.planning.profiles import find_root

    layout = Layout(find_root())
    check_tools(layout.root)
    write_plan(layout.root, "demo")
    code = run_dvc(layout.root, [])
    if code == 0:
        table = (layout.leaderboard / "leaderboard.md").read_text(encoding="utf-8")
        typer.echo(f"\n{table.strip()}\n\nOpen {os.path.relpath(layout.site / 'index.html')}")
    raise typer.Exit(code)
