"""How scores moved from one recorded leaderboard to the next, and what had changed before each move.

A version is a leaderboard that ``dvc.lock`` names in some commit; its table comes from DVC's cache by its hash, so nothing has to be
kept twice and no commit's numbers can drift from what it recorded. The result grows with every commit while the site must not
change with one, so it lies beside the site as ``reports/history.js``, like ``costs.js``: the same repository and cache give the same
bytes. Belongs here: reading git and the cache. Does not belong here: drawing (``assets/history.js``), running anything.
"""

from __future__ import annotations

import configparser
import datetime
import io
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from uss_dagster.files import write_whole
from uss_dagster.report.html import packed
from uss_dagster.report.leaderboard import GROUP, convention

LOCK = "dvc.lock"
MOST = 60
"""Versions that are looked at, the newest."""
NOW = "now"
_SILENT = {"title", "about", "shard_images", "pool", "images", "reads", "samples"}
"""Parts of a cell that no score depends on."""
_OUTPUT = re.compile(r"^    - path: reports/leaderboard\n(?:      .*\n)*?      md5: (\w+)\.dir$", re.MULTILINE)


@dataclass(frozen=True)
class Version:
    """A recorded leaderboard. commit: short hash, or ``NOW`` for what is not committed. frame: None where the cache does not have it."""

    commit: str
    date: str
    subject: str
    frame: pd.DataFrame | None
    cells: Mapping[str, Mapping[str, Any]]


def write_history(root: Path) -> dict[str, Any]:
    """Write ``reports/history.js`` and return what it says."""
    said = told(versions(root))
    write_whole(root / "reports" / "history.js", f"window.USS_HISTORY = {packed(said)};\n")
    return said


def versions(root: Path) -> list[Version]:
    """The recorded leaderboards of this checkout, oldest first; the working copy's last, where it is another."""
    found: list[Version] = []
    last = ""
    cache = _cache(root)
    for commit, date, subject, text in _locks(root):
        section = re.search(r"^  leaderboard:\n(?:    .*\n|\s*\n)*", text + "\n", re.MULTILINE)
        named = _OUTPUT.findall(section.group()) if section else []
        if not named or named[-1] == last:
            continue
        last = named[-1]
        found.append(Version(commit, date, subject, _table(cache, last), _cells(text)))
    return found


def told(found: list[Version]) -> dict[str, Any]:
    """The versions as plain data: series a ranking and entry, and for every version which entries came, went or moved, and why."""
    series: dict[tuple[str, ...], dict[str, Any]] = {}
    titles: dict[str, str] = {}
    changes = []
    before: Version | None = None
    for number, version in enumerate(found):
        if version.frame is None:
            continue
        titles |= dict(zip(version.frame["entry"], version.frame["title"], strict=True))
        for row in version.frame[~version.frame["detail"]].to_dict("records"):
            key = tuple(str(row[c]) for c in GROUP)
            facts = {"title": row["metric_title"], "convention": convention(row), "higher": bool(row["higher_is_better"])}
            group = series.setdefault(key, {**{c: str(row[c]) for c in GROUP}, "entries": {}})
            group |= facts
            group["entries"].setdefault(row["entry"], []).append([number, *(_round(row[c]) for c in ("value", "low", "high"))])
        changes += [{"version": number, **change} for change in _changes(before, version)]
        before = version
    return {
        "versions": [{"commit": v.commit, "date": v.date, "subject": v.subject, "known": v.frame is not None} for v in found],
        "groups": list(series.values()),
        "titles": titles,
        "changes": changes,
    }


def _changes(before: Version | None, after: Version) -> Iterator[dict[str, Any]]:
    """One for each cell that is new, gone, moved, or was made anew without moving."""
    assert after.frame is not None
    old = _values(before.frame) if before is not None and before.frame is not None else {}
    new = _values(after.frame)
    for entry, dataset in sorted({*old, *new}):
        was, now = old.get((entry, dataset)), new.get((entry, dataset))
        why = _why(before.cells, after.cells, entry, dataset) if before is not None and was is not None and now is not None else []
        state = "gone" if now is None else "new" if was is None else "moved" if was != now else "same"
        if before is not None and (state != "same" or why):
            yield {"entry": entry, "dataset": dataset, "state": state, "why": why}


def _values(frame: pd.DataFrame) -> dict[tuple[str, str], dict[tuple[str, ...], float | None]]:
    """(entry, dataset) → ranking → value, of what is no detail."""
    found: dict[tuple[str, str], dict[tuple[str, ...], float | None]] = {}
    for row in frame[~frame["detail"]].to_dict("records"):
        found.setdefault((str(row["entry"]), str(row["dataset"])), {})[tuple(str(row[c]) for c in GROUP)] = _round(row["value"])
    return found


def _why(before: Mapping[str, Any], after: Mapping[str, Any], entry: str, dataset: str) -> list[str]:
    """What differs in the cells that lead to an entry's scores on a dataset, in words."""
    said = []
    backbone = str((after.get(f"segments.{entry}__{dataset}") or {}).get("backbone") or "")
    names = [f"datasets.{dataset}", *([f"features.{backbone}__{dataset}"] if backbone else [])]
    for name in [*names, *(f"{stage}.{entry}__{dataset}" for stage in ("segments", "labels", "scores"))]:
        was, now, stage = before.get(name), after.get(name), name.split(".")[0]
        if was is None or now is None:
            said += [] if was is now else [f"{stage}: {'new' if was is None else 'gone'}"]
            continue
        for key in sorted({*was, *now} - _SILENT):
            if was.get(key) == now.get(key):
                continue
            if key == "params" and isinstance(was.get(key), dict) and isinstance(now.get(key), dict):
                mine, theirs = was[key], now[key]
                said += [f"{stage}: {p} {mine.get(p)} → {theirs.get(p)}" for p in sorted({*mine, *theirs}) if mine.get(p) != theirs.get(p)]
            elif isinstance(now.get(key), int | float | str) and key not in ("code", "content"):
                said.append(f"{stage}: {key} {was.get(key)} → {now[key]}")
            else:
                said.append(f"{stage}: {key}")
    return said


def _round(value: Any) -> float | None:
    return None if pd.isna(value) else round(float(value), 6)


# -- git and DVC's cache ----------------------------------------------------------------------------------


def _locks(root: Path) -> Iterator[tuple[str, str, str, str]]:
    """(commit, date, subject, text of dvc.lock), oldest first, the working copy's last."""
    log = _git(root, "log", f"-n{MOST}", "--format=%h%x1f%ct%x1f%s", "--", LOCK)
    for line in reversed(log.splitlines()):
        commit, seconds, subject = line.split("\x1f", 2)
        date = datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).date().isoformat()
        yield commit, date, subject, _git(root, "show", f"{commit}:./{LOCK}")
    if (root / LOCK).exists():
        yield NOW, "", "not committed", (root / LOCK).read_text(encoding="utf-8")


def _git(root: Path, *words: str) -> str:
    """What git says; nothing where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, check=False)
    except OSError:
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def _cells(text: str) -> dict[str, dict[str, Any]]:
    """'stage.key' → its cell, as a lock file records it."""
    lock = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    found = {}
    for stage in (lock.get("stages") or {}).values():
        for name, cell in ((stage.get("params") or {}).get("grid.yaml") or {}).items():
            if isinstance(cell, dict):
                found[name.removeprefix("grid.")] = cell
    return found


def _cache(root: Path) -> Path:
    """DVC's cache folder: where its configuration says, or its own."""
    home = root / ".dvc"
    place = home / "cache"
    for name in ("config", "config.local"):
        settings = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            settings.read(home / name, encoding="utf-8")
        except configparser.Error:
            continue
        place = home / settings.get("cache", "dir", fallback=str(place))
    return place


def _table(cache: Path, version: str) -> pd.DataFrame | None:
    """The leaderboard's table of a recorded version, None where the cache lacks it or another program wrote it."""
    listed = _cached(cache, f"{version}.dir")
    if listed is None:
        return None
    members = {item["relpath"]: item["md5"] for item in json.loads(listed)}
    data = _cached(cache, members.get("leaderboard.csv", ""))
    if data is None:
        return None
    # Only empty cells are missing: an entry may well be called "null".
    frame = pd.read_csv(io.BytesIO(data), keep_default_na=False, na_values={c: [""] for c in ("value", "low", "high", "rank")})
    return frame if {*GROUP, "entry", "title", "value", "low", "high", "detail", "metric_title", "higher_is_better"} <= set(frame) else None


def _cached(cache: Path, name: str) -> bytes | None:
    """A file of the cache by its hash."""
    for folder in (cache / "files" / "md5", cache) if name else ():
        path = folder / name[:2] / name[2:]
        if path.is_file():
            return path.read_bytes()
    return None
