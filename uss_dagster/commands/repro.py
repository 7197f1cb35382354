"""``uss repro``: plan, then bring stages up to date with DVC."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from uss_dagster.commands.options import STOPPED, Profile, echo_lines
from uss_dagster.errors import UsageError, check_choice, did_you_mean


def repro(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="[TARGETS]...", help="Cells such as scores/slic_merge/scenes, or stages; all by default.")
    ] = None,
    profile: Profile = None,
    shared: Annotated[
        bool,
        typer.Option(
            "--shared", help="Get from the default remote what other clones computed, and put there at once what is computed here."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compute and write nothing; print the cells that would be computed.")] = False,
) -> None:
    """Plan, then compute what is out of date, and only that."""
    from uss_dagster.commands.requirements import check_tools
    from uss_dagster.planning.plan import write_plan
    from uss_dagster.planning.profiles import find_root

    root = find_root()
    check_tools(root)
    if dry_run:
        echo_lines(would_compute(root, targets or [], profile))
        return
    echo_lines(f"planned  {line}" for line in write_plan(root, profile))
    raise typer.Exit(run_dvc(root, targets or [], shared))


def would_compute(root: Path, targets: list[str], profile: str | None = None) -> list[str]:
    """Names of the cells that planning and DVC would compute, in order: those out of date, and all that read what they write.

    Where a cell writes the same bytes again, those that read it are not computed. Parameters as of ``repro``.
    """
    from dagster_dvc.runner import DvcRunner
    from uss_dagster.planning.layout import Layout
    from uss_dagster.planning.plan import make_plan, read_plan, with_readers, write_plan
    from uss_dagster.planning.profiles import read_profile
    from uss_dagster.stages.plan import PlanCheck

    cells = make_plan(read_profile(root, profile), root).cells
    for target in targets:
        check_choice("cell or stage", target, {name for cell in cells for name in (cell.name, cell.stage)})
    changed = {line.partition(": ")[0] for line in write_plan(root, profile, check=True)}
    if Layout(root).pipelines.is_dir():
        stale = DvcRunner(root).status()
        changed |= {cell.name for cell in read_plan(root).cells if cell.address in stale}
    # Every cell reads the plan; what differs in it is known already.
    changed -= {cell.name for cell in cells if isinstance(cell, PlanCheck)}
    below = with_readers(changed.intersection(cell.name for cell in cells), cells)
    wanted = {cell.name for cell in cells if not targets or {cell.name, cell.stage} & {*targets}}
    return [cell.name for cell in cells if cell.name in below and wanted & with_readers([cell.name], cells)]


def run_dvc(root: Path, targets: list[str], shared: bool = False) -> int:
    """Bring targets up to date; returns 0, or the exit code of what failed.

    Parameters
    ----------
    root
        The project folder.
    targets
        See ``addresses``; all cells, when none are named.
    shared
        Share each stage with other clones through the default remote.
    """
    from dagster_dvc.runner import DvcRunner
    from uss_dagster.artifacts.cluster import shared_cluster
    from uss_dagster.stage_server import stage_server

    words = addresses(root, targets)
    sys.stdout.flush()  # DVC writes to the same place
    with stage_server() as server, shared_cluster() as cluster:
        runner = DvcRunner(root, {**server, **cluster}, shared=shared)
        code = runner.repro(words, lambda message: print(message, file=sys.stderr, flush=True))
    if code == 128 + signal.SIGINT:
        print(STOPPED, file=sys.stderr)
    return code


def addresses(root: Path, targets: list[str]) -> list[str]:
    """What DVC calls the targets.

    Parameters
    ----------
    root
        The project folder.
    targets
        Names of cells, names of stages (which mean all their cells), or what DVC itself takes: addresses, files and folders.
    """
    from uss_dagster.planning.cells import stage_classes
    from uss_dagster.planning.plan import read_plan

    cells = read_plan(root).cells if targets else ()
    names = {cell.name: cell.address for cell in cells}
    words: list[str] = []
    for target in targets:
        of_stage = [cell.address for cell in cells if cell.stage == target]
        if target in names:
            words.append(names[target])
        elif of_stage:
            words += of_stage
        elif target in names.values() or (root / target.partition(":")[0]).exists():
            words.append(target)
        elif target in stage_classes():
            raise UsageError(f"The plan has no cell of the stage '{target}'.")
        else:
            raise UsageError(f"Unknown stage '{target}'.{did_you_mean(target, names if '/' in target else stage_classes())}")
    return words
