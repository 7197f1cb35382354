"""``uss history``: how scores changed from one recorded leaderboard to the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from uss_dagster.commands.options import AsJson, echo_json, echo_lines

if TYPE_CHECKING:
    from uss_dagster.report.history import Change, History


def history(json: AsJson = False) -> None:
    """Show how scores changed over recorded leaderboards, and why.

    Reads dvc.lock in git's history and DVC's cache. Writes reports/history.js, which the site's history page reads.
    """
    from uss_dagster.planning.profiles import find_root
    from uss_dagster.report.history import write_history

    record = write_history(find_root())
    if json:
        echo_json(record)
    else:
        echo_lines(history_lines(record))


def history_lines(record: History) -> Iterator[str]:
    """Newest version first; below it the entries that were added, removed or changed, with the cause."""
    versions = record["versions"]
    if not versions:
        yield "No commit of this project records a leaderboard yet. Run `uss repro` and commit dvc.lock."
        return
    missing = sum(not version["known"] for version in versions)
    if missing:
        yield (
            f"The numbers of {missing} of {len(versions)} versions are not in DVC's cache here; "
            "`dvc fetch --all-commits leaderboard` brings those that a remote has."
        )
    for number, version in reversed(list(enumerate(versions))):
        yield f"{version['commit']}  {version['date']}  {version['subject']}".rstrip()
        for change in record["changes"]:
            if change["version"] == number:
                causes = f" ({'; '.join(change['why'])})" if change["why"] else ""
                yield f"    {change['entry']} on {change['dataset']}: {_description(record, number, change)}{causes}"


def _description(history: History, number: int, change: Change) -> str:
    """What happened to one entry on one dataset; the first ranking that changed stands for all."""
    if change["state"] != "moved":
        return {"same": "made anew, equal"}.get(change["state"], str(change["state"]))
    for series in history["groups"]:
        points = series["entries"].get(change["entry"], []) if series["dataset"] == change["dataset"] else []
        now = next((value for version, value, *_ in points if version == number), None)
        before = next((value for version, value, *_ in reversed(points) if version is not None and version < number), None)
        if now is not None and before is not None and before != now:
            return f"{series['title']} {before:.3f} → {now:.3f}"
    return "moved"
