"""``uss gc``: what takes space and is used by nothing; and, with ``--yes``, its removal."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uss_dagster.commands.options import AsJson, echo, echo_json, echo_lines
from uss_dagster.errors import UsageError, check_choice

if TYPE_CHECKING:
    from dvc.repo import Repo

    from dagster_dvc.garbage import History, Space
    from uss_dagster.planning.layout import Layout

TITLES = {
    "cache": "results in DVC's cache that nothing uses",
    "features": "features that no planned stage reads",
    "shards": "stored shards of cells that are not planned",
    "work": "work of stopped runs of cells that are not planned",
    "quarantine": "refused results",
    "runs": "entries of DVC's run cache whose results are gone",
    "locks": "copies of dvc.lock files that are gone",
    "results": "results of entries and datasets that are not planned",
    "unfinished": "work of stopped runs, which go on with it",
    "reproduce": "projects of `uss reproduce`",
}
ONLY_IF_NAMED = ("results", "unfinished", "reproduce")
"""What somebody may still want: it goes only with ``--also``."""
_USED = "used"
_Flag = Annotated[bool, typer.Option(help="Keep what they use too, as `dvc gc` does.")]


def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Remove it.")] = False,
    also: Annotated[
        list[str] | None, typer.Option("--also", metavar="NAME", help=f"Also {', '.join(ONLY_IF_NAMED)}; can be repeated.")
    ] = None,
    project: Annotated[
        list[Path] | None,
        typer.Option("--project", metavar="FOLDER", help="Another project with the same cache, which is kept whole; can be repeated."),
    ] = None,
    all_branches: _Flag = False,
    all_tags: _Flag = False,
    all_commits: _Flag = False,
    all_experiments: _Flag = False,
    date: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="Keep what commits since that day use.")] = None,
    json: AsJson = False,
) -> None:
    """Show what takes space and nothing uses; --yes removes it.

    Results of this project's planned stages stay, in the workspace and in DVC's cache, and so do the datasets. What commits and branches use
    goes, unless an option names them.
    """
    from dagster_dvc.garbage import nobody_builds
    from uss_dagster.commands.requirements import check_tools
    from uss_dagster.files import remove
    from uss_dagster.planning.layout import Layout
    from uss_dagster.planning.profiles import find_root

    root = find_root()
    check_tools(root)
    for name in also or ():
        check_choice("part", name, ONLY_IF_NAMED)
    history: dict[str, bool | str | None] = {
        "all_branches": all_branches,
        "all_tags": all_tags,
        "all_commits": all_commits,
        "all_experiments": all_experiments,
        "commit_date": date,
    }
    layout = Layout(root)
    with nobody_builds([root, *_reproduced(layout), *(path.resolve() for path in project or () if path.resolve() != root)]) as repos:
        garbage = Garbage(layout, repos, also or (), history, whole_cache=bool(project))
        parts = garbage.parts()
        if json:
            echo_json(_sizes(parts, garbage) | {"removed": yes})
        else:
            echo_lines(_table(parts, garbage))
        for path in (path for paths in parts.values() for path in paths) if yes else ():
            remove(path)
        if not json:
            echo("Removed." if yes else "Nothing was removed: `uss gc --yes` does.")


def _spaces(parts: Mapping[str, Sequence[Path]], garbage: Garbage) -> tuple[dict[str, Space], dict[str, Space]]:
    """What each part takes: of those that go, and of those that stay unless they are named."""
    from dagster_dvc.garbage import Removal

    removal = Removal()
    spaces = {name: removal.add(paths) for name, paths in parts.items()}
    return spaces, {name: removal.copy().add(paths) for name, paths in garbage.others().items()}


def _sizes(parts: Mapping[str, Sequence[Path]], garbage: Garbage) -> dict[str, object]:
    """What ``_table`` says, as ``--json`` prints it."""

    def rows(spaces: dict[str, Space]) -> list[dict[str, object]]:
        return [{"part": name, "title": TITLES[name], "files": space.files, "bytes": space.bytes} for name, space in spaces.items()]

    goes, stays = _spaces(parts, garbage)
    return {"goes": rows(goes), "stays_unless_named": rows(stays), "shared_cache": garbage.shared_cache}


def _table(parts: Mapping[str, Sequence[Path]], garbage: Garbage) -> Iterator[str]:
    """What goes, its sum, and what stays unless it is named."""
    from uss_dagster.text import aligned

    spaces, others = _spaces(parts, garbage)
    total = sum(space.bytes for space in spaces.values())
    rows = [_row(TITLES[name], space) for name, space in spaces.items() if space.files]
    head = ["", "files", "MB"]
    yield from aligned(head, [*rows, ["frees", "", f"{total / 1e6:,.1f}"]], right=("files", "MB"))
    rows = [[f"--also {name}", *_row(TITLES[name], space)] for name, space in others.items() if space.files]
    if rows:
        yield ""
        yield from aligned(["stays, unless named", *head], rows, right=("files", "MB"))
    if garbage.shared_cache:
        yield f"DVC's cache, {garbage.cache.folder}, lies outside this project: its objects stay. Name the other projects that use it with --project."


def _row(title: str, space: Space) -> list[str]:
    return [title, f"{space.files:,}", f"{space.bytes / 1e6:,.1f}"]


def _reproduced(layout: Layout) -> list[Path]:
    """The projects of ``uss reproduce``, sorted."""
    return sorted(path.parent for path in (layout.private / "reproduce").glob("*/.dvc"))


class Garbage:
    """What can be removed, part by part.

    Parameters
    ----------
    layout
        Of the project.
    repos
        The project, those of ``uss reproduce`` in it, and others that use its cache, all held.
    also
        Parts of ``ONLY_IF_NAMED`` that are removed too.
    history
        What counts as used beside the workspace.
    whole_cache
        All projects that use the cache are among ``repos``.
    """

    def __init__(self, layout: Layout, repos: Sequence[Repo], also: Collection[str], history: History, whole_cache: bool) -> None:
        from dagster_dvc.garbage import Cache
        from uss_dagster.artifacts.dvc_cache import cache_folder
        from uss_dagster.planning.plan import read_plan

        self.layout, self.repos, self.history, self.whole_cache = layout, repos, history, whole_cache
        self.chosen = [name for name in TITLES if name not in ONLY_IF_NAMED or name in also]
        self.cells = read_plan(layout.root).cells
        self.cache = Cache(cache_folder(layout.root))
        self._gone: dict[str, list[str]] = {"features": [], "results": []}
        self._users: dict[str, set[str]] = {}
        self._find_users()
        self._objects = [] if self.shared_cache else list(self.cache.objects())

    @property
    def shared_cache(self) -> bool:
        """Whether projects that are not known here may use DVC's cache."""
        return not self.whole_cache and self.layout.root not in self.cache.folder.resolve().parents

    def parts(self) -> dict[str, list[Path]]:
        """Part → the files and folders that are removed."""
        return {name: self._part(name, set(self.chosen)) for name in self.chosen}

    def others(self) -> dict[str, list[Path]]:
        """The same of those parts that stay, each as if it alone were removed too."""
        return {name: self._part(name, {*self.chosen, name}) for name in ONLY_IF_NAMED if name not in self.chosen}

    def _part(self, name: str, chosen: set[str]) -> list[Path]:
        from dagster_dvc.lock_copies import old_copies

        private, names = self.layout.private, {cell.name for cell in self.cells}
        if name == "shards":
            return list(_apart(private / "shards", {private / "shards" / cell for cell in names}))
        if name == "work":
            return list(_apart(private / "work", self._work_folders()))
        if name == "unfinished":
            return [path for folder in sorted(self._work_folders()) for path in _apart(folder, set())]
        if name == "quarantine":
            return list(_apart(private / "quarantine", set()))
        if name == "runs":
            present = {digest for digest, _ in self._objects if not self._goes(digest, chosen)}
            return [] if self.shared_cache else list(self.cache.dead_runs(present))
        if name == "locks":
            return old_copies(self.layout.root)
        objects = [path for digest, path in self._objects if self._goes(digest, chosen) and self._first_user(digest) == name]
        if name == "reproduce":
            return [*objects, *_apart(private / "reproduce", set())]
        return [*objects, *(self.layout.root / path for path in self._gone.get(name, ()))]

    def _work_folders(self) -> set[Path]:
        """Where cells that are planned work."""
        from uss_dagster.feature_shards import IN_WORK

        work = self.layout.private / "work"
        return {work / cell.name for cell in self.cells} | {work / IN_WORK / cell.name for cell in self.cells if cell.computed_features()}

    # -- who uses an object of the cache

    def _find_users(self) -> None:
        """Note which parts use each hash; and the results of stages that are gone."""
        from dagster_dvc.garbage import recorded, used_by
        from dagster_dvc.project import DvcProject

        root, reproduced = self.layout.root, _reproduced(self.layout)
        stages = DvcProject(root).stages
        written = {out for stage in stages.values() for out in stage.outs}
        for repo in self.repos:
            folder = Path(repo.root_dir)
            name = "reproduce" if folder in reproduced else _USED
            self._note(used_by(repo, self.history if folder == root else {}), name)
            for address, outs in recorded(folder).items():
                gone = folder == root and address not in stages
                for out in outs:
                    members = self.cache.members(out.hash)
                    if members is None and not gone and (folder / out.path).exists():
                        raise UsageError(
                            f"DVC's cache lacks the list of files of {folder / out.path}. Run `uss verify --repair` there, then this again."
                        )
                    self._note(members or {out.hash}, self._part_of(out.path, written) if gone else name)

    def _note(self, hashes: Collection[str], part: str) -> None:
        for digest in hashes if part else ():
            self._users.setdefault(digest, set()).add(part)

    def _part_of(self, path: str, written: Collection[str]) -> str:
        """The part that a result belongs to whose stage is not planned; '' where a planned stage writes it now."""
        if path in written:
            return ""
        if not path.startswith(("data/", "reports/")) or path.startswith("data/datasets/"):
            return _USED
        part = "features" if path.startswith("data/features/") else "results"
        if (self.layout.root / path).exists():
            self._gone[part].append(path)
        return part

    def _goes(self, digest: str, chosen: set[str]) -> bool:
        return self._users.get(digest, set()) <= chosen

    def _first_user(self, digest: str) -> str:
        """The part that an object is counted in."""
        users = self._users.get(digest, set())
        return next((name for name in TITLES if name in users), "cache")


def _apart(top: Path, planned: set[Path]) -> Iterator[Path]:
    """The topmost files and folders in a folder that neither are planned nor hold what is; folders without a file are left out."""
    above = {parent for path in planned for parent in path.parents}
    for path in sorted(top.iterdir()) if top.is_dir() else ():
        if path in above:
            yield from _apart(path, planned)
        elif path not in planned and _has_file(path):
            yield path


def _has_file(path: Path) -> bool:
    return not path.is_dir() or any(not inside.is_dir() for inside in path.rglob("*"))
