"""``uss history``: how scores moved from one recorded leaderboard to the next; also writes what the site's history page reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uss_dagster.report.history import write_history


def history_lines(root: Path) -> Iterator[str]:
    """Newest first: each version, and below it what came, went or moved, with what had changed."""
    said = write_history(root)
    if not said["versions"]:
        yield "No commit of this project records a leaderboard yet. Run `uss repro` and commit dvc.lock."
        return
    lacking = sum(not version["known"] for version in said["versions"])
    if lacking:
        yield (
            f"The numbers of {lacking} of {len(said['versions'])} versions are not in DVC's cache here; "
            "`dvc fetch --all-commits leaderboard` brings those that a remote has."
        )
    for number, version in reversed(list(enumerate(said["versions"]))):
        yield f"{version['commit']}  {version['date']}  {version['subject']}".rstrip()
        for change in said["changes"]:
            if change["version"] == number:
                why = f" ({'; '.join(change['why'])})" if change["why"] else ""
                yield f"    {change['entry']} on {change['dataset']}: {_words(said, number, change)}{why}"


def _words(said: dict[str, Any], number: int, change: dict[str, Any]) -> str:
    """What happened to one cell: its first ranking stands for it."""
    if change["state"] != "moved":
        return {"same": "made anew, equal"}.get(change["state"], str(change["state"]))
    for group in said["groups"]:
        points = group["entries"].get(change["entry"], []) if group["dataset"] == change["dataset"] else []
        now = next((value for version, value, *_ in points if version == number), None)
        before = [value for version, value, *_ in points if version < number]
        if now is not None and before and before[-1] is not None and before[-1] != now:
            return f"{group['title']} {before[-1]:.3f} → {now:.3f}"
    return "moved"
