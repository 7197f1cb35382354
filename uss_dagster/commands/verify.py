"""``uss verify``: hash every result and DVC's cache against the dvc.lock files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from uss_dagster.commands.options import AsJson, echo_error, echo_json
from uss_dagster.errors import BadData, TryAgain

if TYPE_CHECKING:
    from dagster_dvc.verification import Difference, Verifier

_SHOWN = 20


def verify(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="[TARGETS]...", help="Cells such as scores/slic_merge/scenes, or stages; all by default.")
    ] = None,
    mend: Annotated[
        bool, typer.Option("--repair", help="Bring back what differs: from a remote, from DVC's cache, or by computing it.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Hash every result against dvc.lock and name what differs."""
    from dagster_dvc.lock_copies import check_locks
    from dagster_dvc.owner import only_machine
    from dagster_dvc.project import DvcProject
    from dagster_dvc.runner import DvcRunner, lock_holders
    from dagster_dvc.verification import Verifier, repair
    from uss_dagster.artifacts.dvc_cache import cache_folder
    from uss_dagster.artifacts.shards import worker_count
    from uss_dagster.commands.repro import addresses
    from uss_dagster.commands.requirements import check_tools, remotes, unusable_remotes
    from uss_dagster.planning.profiles import find_root
    from uss_dagster.stage_server import stage_server

    root = find_root()
    check_tools(root)
    if holders := lock_holders(root):
        raise TryAgain(f"Process {next(iter(holders))} is building results in this project. Verify when it has ended.")
    for sentence in check_locks(root):
        echo_error(sentence)
    chosen = addresses(root, targets or []) or list(DvcProject(root).stages)
    verifier = Verifier(root, cache_folder(root), worker_count(8))
    differences = verifier.differences(chosen)
    if json:
        echo_json({"files": verifier.files, "bytes": verifier.bytes, "differences": [asdict(difference) for difference in differences]})
    else:
        _show(verifier, differences)
    if not differences:
        return
    count = "1 file differs" if len(differences) == 1 else f"{len(differences)} files differ"
    if not mend:
        raise BadData(f"{count} from what dvc.lock records. Run `uss verify --repair` to bring back what was recorded.")
    for _, sentence in unusable_remotes(root):
        echo_error(sentence)
    with only_machine(root), stage_server() as environment:
        code = repair(verifier, DvcRunner(root, environment), differences, bool(remotes(root)), echo_error if json else typer.echo)
    if code:
        raise typer.Exit(code)
    left = verifier.differences(chosen)
    if left:
        raise BadData(f"{left[0]}, also after the repair: its stage computes other bytes now. Run `uss repro`, and look at `git diff`.")
    (echo_error if json else typer.echo)(f"Repaired: {count.partition(' differ')[0]}. All is what dvc.lock records.")


def _show(verifier: Verifier, differences: Sequence[Difference]) -> None:
    """The first differences, or that there are none."""
    for difference in differences[:_SHOWN]:
        typer.echo(f"  {difference}")
    if len(differences) > _SHOWN:
        typer.echo(f"  and {len(differences) - _SHOWN} more")
    if not differences:
        typer.echo(f"{verifier.files} files ({verifier.bytes / 1e6:,.0f} MB) are what dvc.lock records.")
