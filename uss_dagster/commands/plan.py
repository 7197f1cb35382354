"""``uss plan``: write the pipeline from params.yaml, its profile and the code."""

from __future__ import annotations

from typing import Annotated

import typer

from uss_dagster.commands.options import Profile, echo_lines
from uss_dagster.errors import UsageError


def plan(
    profile: Profile = None,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit with 64 when the planned files are out of date.")] = False,
) -> None:
    """Write the pipeline from params.yaml, its profile and the code."""
    from uss_dagster.planning.plan import write_plan
    from uss_dagster.planning.profiles import find_root

    changes = write_plan(find_root(), profile, check)
    echo_lines(f"  {line}" for line in changes)
    if check and changes:
        raise UsageError(f"The plan is out of date ({len(changes)} differences). Run `uss plan` and commit the result.")
    typer.echo(f"The plan changed in {len(changes)} places." if changes else "The plan is up to date.")
