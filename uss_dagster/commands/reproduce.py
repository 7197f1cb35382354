"""``uss reproduce``: the tables of the papers, each computed in a project of its own, beside the published figures.

The project lies in ``.uss/reproduce/<table>``, with the profile of the table and the cache of the user's own project. So DVC resumes it and
shares results, and params.yaml, the plan and the locks of the user's project stay as they are.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uss_dagster.commands.options import echo, echo_lines
from uss_dagster.errors import Unavailable, UsageError, UssError, did_you_mean

if TYPE_CHECKING:
    from uss_dagster.planning.cells import Cell
    from uss_dagster.planning.layout import Layout
    from uss_dagster.planning.profiles import Profile

PAPERS = "papers/"
"""Profiles of tables are in this folder of profiles/."""


def reproduce(
    table: Annotated[str | None, typer.Argument(metavar="TABLE", help="A table, such as has-table1.", show_default=False)] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show all tables, what they compute, and what is missing here.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Only the first N images of each dataset.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, metavar="N", help="Processes; one a core by default.")] = None,
) -> None:
    """Compute a table of a paper beside its published figures.

    What needs data or weights that are not here is left out, with what to fetch; the exit code is then 69. The same command continues an
    interrupted run. The user's own plan is not touched.
    """
    from uss_dagster.planning.profiles import find_root

    root = find_root()
    if list_ or table is None:
        echo_lines(listing(root, [table] if table else tables(root)))
        return
    if workers is not None:
        os.environ["USS_WORKERS"] = str(workers)
    raise typer.Exit(_compute(root, table, limit))


def tables(root: Path) -> list[str]:
    """Names of all tables."""
    from uss_dagster.planning.profiles import profile_names

    return [name.removeprefix(PAPERS) for name in profile_names(root) if name.startswith(PAPERS)]


def profile_of(root: Path, table: str) -> Profile:
    """The profile of a table, alone: params.yaml is not laid over it."""
    from uss_dagster.planning.profiles import read_profile

    if table not in tables(root):
        raise UsageError(f"Unknown table '{table}'.{did_you_mean(table, tables(root))}")
    return read_profile(root, PAPERS + table, alone=True)


# -- what is there ------------------------------------------------------------------------------------------


def listing(root: Path, names: Sequence[str]) -> Iterator[str]:
    """Each table: what it is, how many cells it has, what is missing here, and what is not planned."""
    from uss_dagster.planning.plan import make_plan, with_readers

    for name in names:
        profile = profile_of(root, name)
        cells = make_plan(profile, root).cells
        counts = Counter(cell.stage for cell in cells if cell.partition)
        lacks = missing_of(cells)
        scores = [cell for cell in cells if cell.stage == "scores"]
        computable = len(scores) - sum(cell.name in with_readers(lacks, cells) for cell in scores)
        yield f"{name:<24} {profile.title}"
        if profile.table:
            yield f"    {profile.table.paper}, {profile.table.number}"
        yield f"    cells: {', '.join(f'{count} {stage}' for stage, count in counts.items())}"
        yield f"    can be computed here: {computable} of {len(scores)} scores"
        yield from _missing_lines(lacks)
        for word, text in (("note", profile.table.note), ("left out", profile.table.missing)) if profile.table else ():
            if text:
                yield f"    {word}: {' '.join(text.split())}"


def _missing_lines(lacks: Mapping[str, str]) -> Iterator[str]:
    """A line for each thing to fetch."""
    yield from (f"    missing: {what}" for what in dict.fromkeys(lacks.values()))


def missing_of(cells: Sequence[Cell]) -> dict[str, str]:
    """Name of a cell → what has to be fetched before it can be computed; only of cells that lack something themselves."""
    from uss_dagster.stages.datasets import Datasets

    missing = {}
    for cell in cells:
        whats = [what for encoder in cell.loaded_backbones() if (what := encoder.missing_weights)]
        if isinstance(cell, Datasets):
            whats += [_missing_data(cell.adapter.name, json.dumps(cell.adapter.params, sort_keys=True))]
        if what := next(filter(None, whats), ""):
            missing[cell.name] = what
    return missing


@functools.cache
def _missing_data(kind: str, params: str) -> str:
    """How to get a dataset, where its adapter cannot read a first image; '' where it can. params: as JSON."""
    from uss_dagster import registry
    from uss_dagster.downloads.get import access

    module = registry.load("dataset", kind)
    values = {**json.loads(params), "limit": 1}
    try:
        if next(iter(module.examples(registry.build_params(module.SPEC.params, values, f"dataset '{kind}'"))), None) is not None:
            return ""
    except UssError:
        pass
    return f"uss data get {kind} ({access(module.SPEC)})"


# -- computing ----------------------------------------------------------------------------------------------


def _compute(root: Path, table: str, limit: int | None) -> int:
    """Compute and print a table; returns 0, or the exit code of what failed."""
    from uss_dagster.commands.partial_runs import run_without, stale_among
    from uss_dagster.commands.requirements import check_tools
    from uss_dagster.planning.layout import Layout
    from uss_dagster.planning.plan import read_plan, with_readers, write_plan

    profile = profile_of(root, table)
    layout = Layout(make_project(root, table, profile, limit))
    check_tools(layout.root)
    write_plan(layout.root)
    cells = read_plan(layout.root).cells
    lacks = stale_among(layout, cells, missing_of(cells))
    absent = with_readers(lacks, cells)
    scores = [cell for cell in cells if cell.stage == "scores"]
    left = [cell for cell in scores if cell.name in absent]
    fetch = "\n".join(_missing_lines(lacks))
    if len(left) == len(scores):
        raise Unavailable(f"Nothing of {table} can be computed here. It needs:\n{fetch}")
    code = run_without(layout, cells, absent)
    if code:
        return code
    echo_lines(_result(layout, profile, table))
    folder = os.path.relpath(layout.root)
    echo("")
    echo(f"More: {folder}/reports/site/index.html; `cd {folder}`, then `uss compare ENTRY ENTRY` for paired intervals.")
    if absent:
        raise Unavailable(f"{table} is incomplete: {len(left)} of {len(scores)} scores need what is not here:\n{fetch}")
    return 0


def make_project(root: Path, table: str, profile: Profile, limit: int | None) -> Path:
    """The folder of a table's project, written where it differs."""
    import yaml

    from uss_dagster import registry
    from uss_dagster.artifacts.dvc_cache import cache_folder, dvc_settings
    from uss_dagster.datasets.base import SOURCES
    from uss_dagster.files import write_whole
    from uss_dagster.planning.layout import PARAMS, PROFILES, Layout

    folder = Layout(root).private / "reproduce" / table
    kinds = dvc_settings(root).get("cache", "type", fallback="reflink,hardlink,symlink")
    limits = {
        name: {"limit": min(filter(None, (limit, section.params.get("limit"))))}
        for name, section in profile.datasets.items()
        if limit and "limit" in registry.params_to_dict(registry.load("dataset", section.kind or name).SPEC.params())
    }
    texts = {
        PARAMS: yaml.safe_dump({"profile": PAPERS + table, **({"datasets": limits} if limits else {})}, sort_keys=False),
        ".dvc/config": "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"
        f"[cache]\n    dir = {os.path.abspath(cache_folder(root))}\n    type = {kinds}\n",
        ".dvcignore": ".uss\n/data/sources\n",
    }
    if not (folder / "dvc.yaml").exists():
        texts["dvc.yaml"] = "stages: {}\n"
    for name, text in texts.items():
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text:
            write_whole(folder / name, text)
    shutil.rmtree(folder / PROFILES, ignore_errors=True)
    (folder / PROFILES).mkdir()  # `plan` reads it
    if (root / PROFILES).is_dir():
        shutil.copytree(root / PROFILES, folder / PROFILES, dirs_exist_ok=True)
    sources = folder / SOURCES
    if not sources.is_symlink():
        sources.parent.mkdir(parents=True, exist_ok=True)
        sources.symlink_to((root / SOURCES).absolute())
    return folder


def _result(layout: Layout, profile: Profile, table: str) -> Iterator[str]:
    """The computed table, as text."""
    from uss_dagster.planning.plan import read_plan
    from uss_dagster.report import leaderboard, published_and_ours
    from uss_dagster.report.paper_table import table_lines
    from uss_dagster.stages.leaderboard import Leaderboard

    (board,) = read_plan(layout.root).of(Leaderboard)
    frame = leaderboard.read(layout.leaderboard)
    named = {table, *(section.published.partition("/")[0] for section in profile.entries.values() if section.published)}
    repeating = {dataset for entry, dataset in board.scores if board.entries[entry].get("published")}  # others are for training
    class_sets = {
        name: facts.get("class_set", facts["kind"]) for name, facts in board.datasets.items() if name in repeating or not repeating
    }
    yield ""
    yield profile.title + (f" ({profile.table.paper}, {profile.table.number})" if profile.table else "")
    yield from table_lines(frame, published_and_ours.read(layout.leaderboard), named, class_sets)
    if profile.table and profile.table.note:
        yield f"Note: {' '.join(profile.table.note.split())}"
