"""How scores moved from one recorded leaderboard to the next, and what had changed before each move.

A version is a leaderboard that ``dvc.lock`` names in some commit; its table comes from DVC's cache by its hash, so nothing is stored
twice and no commit's numbers can differ from what it recorded. The result grows with every commit while the site must not change with
one, so it lies beside the site as ``reports/history.js``, like ``costs.js``: the same repository and cache give the same bytes.

Belongs here: comparing versions. Does not belong here: reading git (``lock_files``), drawing (``assets/history.js``).
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import pandas as pd

from uss_dagster.artifacts.dvc_cache import cache_folder, cached_member
from uss_dagster.files import write_whole
from uss_dagster.planning.layout import Layout
from uss_dagster.report.html import packed
from uss_dagster.report.leaderboard import COLUMNS, GROUP, RANKS, Ranking, Row, rows_of
from uss_dagster.report.lock_files import Commit, RecordedStage, commits

_SILENT = {
    *("title", "about", "summary", "stage", "entry", "dataset", "family"),
    *("shard_images", "pool", "images", "reads", "reads_model", "samples", "model_is_planned"),
}
"""Parameters that no score depends on."""
_HASHES = {"code", "content"}
"""Parameters that are hashes: that they changed is said, but not from what to what."""


@dataclass(frozen=True)
class Version:
    """A recorded leaderboard. rows: those of main metrics; None where the cache does not have the table."""

    commit: Commit
    rows: list[Row] | None


class VersionFacts(TypedDict):
    """A version, for the page. known: whether the cache has its numbers."""

    commit: str
    date: str
    subject: str
    known: bool


class Series(TypedDict):
    """One ranking over all versions, with the words of the newest. entries: entry → [version, value, low, high]."""

    dataset: str
    metric: str
    protocol: str
    scope: str
    grid: str
    title: str
    convention: str
    higher: bool
    entries: dict[str, list[list[float | None]]]


class Change(TypedDict):
    """What happened to an entry on a dataset. state: 'new', 'gone', 'moved' or 'same' (computed again, equal). why: in words."""

    version: int
    entry: str
    dataset: str
    state: str
    why: list[str]


class History(TypedDict):
    """All versions, oldest first; changes and series name them by their number."""

    versions: list[VersionFacts]
    groups: list[Series]
    titles: dict[str, str]
    changes: list[Change]


def write_history(root: Path) -> History:
    """Write ``reports/history.js`` of a project and return what it says."""
    history = compare_versions(versions(root))
    write_whole(Layout(root).reports / "history.js", f"window.USS_HISTORY = {packed(history)};\n")
    return history


def versions(root: Path) -> list[Version]:
    """The recorded leaderboards of this checkout, oldest first; the working copy's last, where it is another."""
    cache = cache_folder(root)
    recorded: list[Version] = []
    last = ""
    for commit in commits(root):
        if commit.leaderboard and commit.leaderboard != last:
            recorded.append(Version(commit, _rows(cache, commit.leaderboard)))
            last = commit.leaderboard
    return recorded


def compare_versions(recorded: Sequence[Version]) -> History:
    """The versions as plain data: a series for each ranking, and for every version which entries came, went or moved, and why."""
    series: dict[Ranking, Series] = {}
    titles: dict[str, str] = {}
    changes: list[Change] = []
    before: Version | None = None
    for number, version in enumerate(recorded):
        if version.rows is None:
            continue
        for row in version.rows:
            titles[row.entry] = row.title
            entries = series[row.ranking]["entries"] if row.ranking in series else {}
            entries.setdefault(row.entry, []).append([number, *map(_rounded, (row.value, row.low, row.high))])
            series[row.ranking] = Series(
                dataset=row.dataset,
                metric=row.metric,
                protocol=row.protocol,
                scope=row.scope,
                grid=row.grid,
                title=row.metric_title,
                convention=row.ranking.convention,
                higher=row.higher_is_better,
                entries=entries,
            )
        if before is not None:
            changes += _changes(number, before, version)
        before = version
    facts = [VersionFacts(commit=v.commit.name, date=v.commit.date, subject=v.commit.subject, known=v.rows is not None) for v in recorded]
    return History(versions=facts, groups=list(series.values()), titles=titles, changes=changes)


def _changes(number: int, before: Version, after: Version) -> Iterator[Change]:
    """One for each entry and dataset that is new, gone, moved, or was computed again without moving."""
    old, new, layout = _values(before), _values(after), Layout(after.commit.root)
    for entry, dataset in sorted({*old, *new}):
        was, now = old.get((entry, dataset)), new.get((entry, dataset))
        scores = layout.relative(layout.scores(entry, dataset))
        why = reasons(before.commit, after.commit, scores) if was is not None and now is not None else []
        state = "gone" if now is None else "new" if was is None else "moved" if was != now else "same"
        if state != "same" or why:
            yield Change(version=number, entry=entry, dataset=dataset, state=state, why=why)


def _values(version: Version) -> dict[tuple[str, str], dict[Ranking, float | None]]:
    """(entry, dataset) → ranking → value."""
    values: dict[tuple[str, str], dict[Ranking, float | None]] = {}
    for row in version.rows or []:
        values.setdefault((row.entry, row.dataset), {})[row.ranking] = _rounded(row.value)
    return values


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _rows(cache: Path, version: str) -> list[Row] | None:
    """Rows of main metrics of a recorded table, None where the cache lacks it or another program wrote it."""
    data = cached_member(cache, version, "leaderboard.csv")
    if data is None:
        return None
    # Only empty cells are missing: an entry may well be called "null".
    frame = pd.read_csv(io.BytesIO(data), keep_default_na=False, na_values={c: [""] for c in ("value", "low", "high", *RANKS)})
    if not {*GROUP, "entry", "title", "value", "low", "high", "detail", "metric_title", "higher_is_better"} <= set(frame):
        return None
    text = {column: frame[column].astype(str) for column in GROUP}  # a name may look like a number
    return [row for row in rows_of(frame.assign(**text).reindex(columns=COLUMNS)) if not row.detail]


# -- why a number moved -------------------------------------------------------------------------------


def reasons(before: Commit, after: Commit, output: str) -> list[str]:
    """What differs between two commits in the stages that an artefact comes from, in words, inputs before what is made of them."""
    lines: list[str] = []
    for path in _upstream(after, output):
        was, now = before.stages.get(path), after.stages[path]
        if was is None:
            lines.append(f"{now.name}: new")
            continue
        lines += [f"{now.name}: {line}" for line in _differences(before, was, after, now)]
    gone = [before.stages[path].name for path in _upstream(before, output) if path not in after.stages]
    return [*dict.fromkeys(lines), *(f"{name}: gone" for name in gone)]


def _upstream(commit: Commit, output: str) -> list[str]:
    """Artefacts that an artefact comes from, and itself, each after its inputs."""
    order: list[str] = []

    def visit(path: str) -> None:
        artefact = _artefact_of(commit, path)
        if artefact and artefact not in order:
            for source in sorted(commit.stages[artefact].inputs):
                visit(source)
            order.append(artefact)

    visit(output)
    return order


def _artefact_of(commit: Commit, path: str) -> str:
    """The recorded artefact that a path is, or lies in; empty where there is none."""
    parts = path.split("/")
    paths = ("/".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((candidate for candidate in paths if candidate in commit.stages), "")


def _differences(before: Commit, was: RecordedStage, after: Commit, now: RecordedStage) -> Iterator[str]:
    """What differs in one stage: its parameters, and inputs that no other stage writes."""
    if was.file and was.file == now.file and was.inputs[was.file] == now.inputs[now.file]:
        old, new = {}, {}  # equal hashes, so git need not be asked for the two files
    else:
        old, new = before.parameters(was), after.parameters(now)
    same_layout = bool(was.file) == bool(now.file)  # else a parameter that only one of them names says nothing
    for name in sorted(({*old, *new} if same_layout else {*old} & {*new}) - _SILENT):
        if old.get(name) != new.get(name):
            is_plain = name not in _HASHES and isinstance(new.get(name), int | float | str | None)
            yield f"{name} {old.get(name)} → {new.get(name)}" if is_plain else name
    for path in sorted(set(was.inputs) & set(now.inputs) - {was.file, now.file}):
        if was.inputs[path] != now.inputs[path] and not _artefact_of(after, path):
            yield path
