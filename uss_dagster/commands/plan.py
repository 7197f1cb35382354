"""``uss plan``: write the pipeline from params.yaml, its profile and the code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from uss_dagster.commands.options import AsJson, Profile, echo_json, echo_lines
from uss_dagster.errors import UsageError


def plan(
    profile: Profile = None,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit with 64 when the planned files are out of date.")] = False,
    json: AsJson = False,
) -> None:
    """Write the pipeline from params.yaml, its profile and the code."""
    from uss_dagster.planning.plan import write_plan
    from uss_dagster.planning.profiles import find_root

    root = find_root()
    changes = write_plan(root, profile, check)
    if json:
        echo_json({"changes": changes, "computed_features": [*computing_lines(root)]})
    else:
        echo_lines(f"  {line}" for line in changes)
    if check and changes:
        raise UsageError(f"The plan is out of date ({len(changes)} differences). Run `uss plan` and commit the result.")
    if json:
        return
    echo_lines(f"  {line}" for line in computing_lines(root))
    typer.echo(f"The plan changed in {len(changes)} places." if changes else "The plan is up to date.")


def computing_lines(root: Path) -> Iterator[str]:
    """A line for each backbone whose features are not stored: which stages compute them."""
    from uss_dagster.planning.plan import read_plan
    from uss_dagster.planning.profiles import read_profile

    unkept = [name for name, section in read_profile(root).backbones.items() if not section.keep]
    cells = read_plan(root).cells if unkept else ()
    for backbone in unkept:
        names = [cell.name for cell in cells if backbone in cell.computed_features()]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        if names:
            times = "once" if len(names) == 1 else f"{len(names)} times"
            yield f"features of '{backbone}' are not stored; computed {times}: by {', '.join(names[:3])}{more}"
