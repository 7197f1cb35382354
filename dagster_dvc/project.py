"""A DVC project as plain data: its resolved stages, the edges between them, and what the dvc.lock files record.

Stages are read through DVC, so that templates resolve as in ``dvc repro``, or as plain YAML where there are none; lock files are read as
plain YAML. A project may have many ``dvc.yaml`` files, each with its own ``dvc.lock``. Nothing here writes, runs a stage, or knows Dagster.
"""

from __future__ import annotations

import bisect
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from dagster_dvc import figures, plain_stages, stage_cache
from dagster_dvc.errors import UsageError, did_you_mean

META_KEYS = (
    *("asset", "partition", "group", "code_version", "description", "kinds", "owners", "tags", "pool", "report", "facts", "preview"),
    *("prerequisite", "pull", "push", "checks"),
)
_LOCK_WAIT_S = 30.0
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The C loader is ten times faster; a lock of 2000 stages has 40 000 lines."""


@dataclass(frozen=True)
class StageNode:
    """One resolved stage. Paths are relative to the project's root, with forward slashes.

    ``meta`` is the stage's ``meta.dagster`` without its empty values: a template cannot leave a key out for one cell,
    so an empty string means absent.
    """

    address: str
    cmd: str
    deps: tuple[str, ...] = ()
    outs: tuple[str, ...] = ()
    params: tuple[tuple[str, tuple[str, ...]], ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    wdir: str = "."
    metrics: tuple[str, ...] = ()
    plots: tuple[str, ...] = ()
    desc: str | None = None

    @property
    def asset_key(self) -> tuple[str, ...]:
        """Parts of the asset key: ``meta.dagster.asset`` split at slashes, else made from the stage's folder and name."""
        if asset := self.text("asset"):
            return tuple(part for part in asset.split("/") if part)
        file, _, name = self.address.rpartition(":")
        return (*file.split("/")[:-1], name.partition("@")[0])

    @property
    def partition(self) -> str | None:
        """The partition this stage builds, None where the asset is not partitioned: ``meta.dagster.partition``, else, where no asset is
        named either, the item of its ``foreach`` or ``matrix``."""
        return self.text("partition") or (None if self.text("asset") else self.item)

    @property
    def item(self) -> str | None:
        """The item of ``foreach`` or ``matrix`` that the stage is made from; None for any other stage."""
        return self.address.rpartition(":")[2].partition("@")[2] or None

    @property
    def tags(self) -> dict[str, str]:
        """``tags``: a mapping, or ``name=value`` pairs separated by commas."""
        tags = self.meta.get("tags") or {}
        if isinstance(tags, Mapping):
            return {str(name): str(value) for name, value in tags.items()}
        return {name.strip(): value.strip() for name, _, value in (item.partition("=") for item in self.items("tags"))}

    @property
    def prerequisite(self) -> bool:
        """Whether it has no asset: it is brought up to date with each stage that reads it."""
        return bool(self.meta.get("prerequisite"))

    def items(self, name: str) -> list[str]:
        """A list as given, or a comma-separated text: whole lists cannot be interpolated in a DVC template."""
        value = self.meta.get(name) or []
        items = value.split(",") if isinstance(value, str) else value
        return [text for item in items if (text := str(item).strip())]

    def text(self, name: str) -> str | None:
        """A value of ``meta.dagster`` as text, None where it is absent or empty."""
        value = self.meta.get(name)
        return None if value is None else str(value)


@dataclass(frozen=True)
class LockedOut:
    """One output or dependency as dvc.lock records it: content hash, bytes, and number of files (1 for a file)."""

    path: str
    hash: str
    size: int
    files: int


class DvcProject:
    """The DVC project in a folder. Stages are read once, when first asked for; dvc.lock is read again when it changes.

    Parameters
    ----------
    root
        Folder with .dvc and dvc.yaml.
    stages
        What ``dump_stages`` returned for it, here or elsewhere: DVC is not asked.
    """

    def __init__(self, root: str | os.PathLike[str], stages: Sequence[stage_cache.PlainStage] | None = None) -> None:
        self.root = Path(root).resolve()
        self._plain_stages = stages
        self._locks: dict[Path, tuple[tuple[int, int], dict[str, Any]]] = {}
        self._wdirs: dict[str, dict[str, str]] = {}

    @cached_property
    def stages(self) -> dict[str, StageNode]:
        """Address to stage, in DVC's order. Files tracked with ``dvc add`` are data, not stages, and are left out."""
        if self._plain_stages is not None:
            return {stage.address: stage for stage in map(_from_plain, self._plain_stages)}
        try:
            return self._load_stages()
        except UsageError as error:
            # DVC rewrites dvc.lock in place, so a reader can meet half of it, or what a killed run left.
            if "dvc.lock" not in str(error):
                raise
            from dagster_dvc.lock_copies import check_locks

            check_locks(self.root)
            with dvc_idle(self.root):
                return self._load_stages()

    def dump_stages(self) -> list[stage_cache.PlainStage]:
        """The stages as JSON can hold them."""
        return [asdict(stage) for stage in self.stages.values()]

    @cached_property
    def upstream(self) -> dict[str, tuple[str, ...]]:
        """Address to the sorted addresses of the stages whose outputs it reads.

        A dependency reads an output when either path is the other or lies inside it.
        """
        owner: dict[str, str] = {}
        for stage in self.stages.values():
            for out in stage.outs:
                if out in owner:
                    raise UsageError(f"Stages '{owner[out]}' and '{stage.address}' both write {out}. Give one of them another output.")
                owner[out] = stage.address
        ordered = sorted(owner)
        edges: dict[str, tuple[str, ...]] = {}
        for stage in self.stages.values():
            found: set[str] = set()
            for dep in stage.deps:
                found.update(owner[path] for path in (dep, *map(str, PurePosixPath(dep).parents)) if path in owner)
                start = bisect.bisect_left(ordered, f"{dep}/")
                for out in ordered[start:]:
                    if not out.startswith(f"{dep}/"):
                        break
                    found.add(owner[out])
            edges[stage.address] = tuple(sorted(found - {stage.address}))
        return edges

    def prerequisites(self, address: str) -> tuple[str, ...]:
        """The stages without an asset that a stage reads."""
        return tuple(source for source in self.upstream.get(address, ()) if self.stages[source].prerequisite)

    def outs_version(self, address: str) -> dict[str, str]:
        """Output path to content hash as dvc.lock records it; empty for a stage that was never built."""
        return {out.path: out.hash for out in self.locked_outs(address)}

    def locked_outs(self, address: str) -> tuple[LockedOut, ...]:
        """What dvc.lock records of a stage's outputs, sorted by path; empty for a stage that was never built."""
        return self._locked(address, "outs")

    def locked_deps(self, address: str) -> dict[str, str]:
        """Dependency path to the content hash that the stage read, as dvc.lock records it."""
        return {dep.path: dep.hash for dep in self._locked(address, "deps")}

    @property
    def lock_files(self) -> list[Path]:
        """Every dvc.lock that the stages may have, sorted; some may not exist yet."""
        return sorted({self.root / _lock_name(address) for address in self.stages})

    def committed_outs(self, address: str, limit: int = 20) -> Iterator[tuple[str, tuple[LockedOut, ...]]]:
        """(commit, outputs of a stage) for the last commits that changed its dvc.lock, newest first; nothing without git."""
        lock = _lock_name(address)
        for commit in self._git("log", f"-n{limit}", "--format=%h", "--", lock).split():
            try:
                content = yaml.load(self._git("show", f"{commit}:./{lock}"), Loader=_LOADER) or {}
            except yaml.YAMLError:  # committed with the marks of a merge
                continue
            entry = (content.get("stages") or {}).get(address.rpartition(":")[2]) or {}
            yield commit, locked_items(entry, "outs", self._working_folder(address))

    def experiment_commit(self, name: str) -> str:
        """The commit of an experiment of DVC; empty where there is none of that name."""
        return self._git("for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{name}").strip()

    def _git(self, *words: str) -> str:
        """What a git command prints in the project's folder; nothing where it fails or git is not there."""
        try:
            done = subprocess.run(["git", *words], cwd=self.root, capture_output=True, text=True, encoding="utf-8", check=False)
        except OSError:
            return ""
        return done.stdout if done.returncode == 0 else ""

    def _locked(self, address: str, section: str) -> tuple[LockedOut, ...]:
        entry = self._lock(self.root / _lock_name(address)).get(address.rpartition(":")[2]) or {}
        return locked_items(entry, section, self._working_folder(address))

    def _working_folder(self, address: str) -> str:
        """The folder, from the root, that the paths in a stage's lock entry start from: its ``wdir``, else that of its dvc.yaml.

        Read as plain YAML, which costs a tenth of asking DVC; a ``wdir`` from a template is resolved by DVC.
        """
        file, _, name = address.rpartition(":")
        folder = os.path.dirname(file)
        if file not in self._wdirs:
            try:
                text = (self.root / (file or "dvc.yaml")).read_text(encoding="utf-8")
                stages = (yaml.load(text, Loader=_LOADER) or {}).get("stages") or {} if "wdir" in text else {}
            except (OSError, yaml.YAMLError):
                stages = {}
            self._wdirs[file] = {stage: str(wdir) for stage, entry in stages.items() if (wdir := (entry.get("do") or entry).get("wdir"))}
        wdir = self._wdirs[file].get(name.partition("@")[0], ".")
        if "${" in wdir:
            return self.stages[address].wdir if address in self.stages else folder
        return os.path.normpath(os.path.join(folder, wdir))

    def _lock(self, path: Path) -> dict[str, Any]:
        try:
            stamp = _stamp(path)
        except FileNotFoundError:
            return {}
        known = self._locks.get(path)
        if known and known[0] == stamp:
            return known[1]
        with dvc_idle(self.root):
            stamp, text = _stamp(path), path.read_bytes()
        try:
            content = yaml.load(text, Loader=_LOADER) or {}
        except yaml.YAMLError as error:
            raise UsageError(f"{path} is not valid YAML ({_one_line(error)}). Restore it from git or run `dvc repro` again.") from error
        stages = content.get("stages") or {}
        self._locks[path] = (stamp, stages)
        return stages

    def _load_stages(self) -> dict[str, StageNode]:
        if not (self.root / "dvc.yaml").is_file():
            raise UsageError(f"{self.root} has no dvc.yaml. Point at the folder that holds it.")
        if not (self.root / ".dvc").is_dir():
            raise UsageError(f"{self.root} is not a DVC project: run `dvc init` there, or `dvc init --no-scm` without git.")
        key = stage_cache.key_of(self.root)
        stored = stage_cache.restore(self.root, key) if key else None
        if stored is not None:
            return {stage.address: stage for stage in map(_from_plain, stored)}
        stages = self._resolve_stages()
        if key and key == stage_cache.key_of(self.root):  # nothing was edited meanwhile
            stage_cache.store(self.root, key, [asdict(stage) for stage in stages])
        return {stage.address: stage for stage in stages}

    def _resolve_stages(self) -> list[StageNode]:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
        from dvc.scm import SCMError

        try:
            with Repo(str(self.root)) as repo:
                plain = plain_stages.read(repo)
                if plain is None:
                    nodes = [_node(stage, self.root) for stage in repo.index.stages if stage.is_data_source is False]
                else:
                    nodes = [_from_plain({**stage, "meta": _meta(stage["address"], stage["meta"])}) for stage in plain]
                return _with_figures(nodes, self.root)
        except SCMError as error:
            raise UsageError(
                f"{self.root} is not in a git repository and DVC was not told so: run `git init`, or `dvc config core.no_scm true`."
            ) from error
        except DvcException as error:
            raise UsageError(f"DVC cannot read the stages of {self.root}: {_explain(error)}.") from error


def _lock_name(address: str) -> str:
    """The dvc.lock of a stage, from the root."""
    return os.path.join(os.path.dirname(address.rpartition(":")[0]), "dvc.lock")


def locked_items(entry: Mapping[str, Any], section: str, folder: str) -> tuple[LockedOut, ...]:
    """The outputs or dependencies in one stage's entry of a dvc.lock, sorted by path. folder: what the paths are relative to."""
    items = (
        LockedOut(
            path=os.path.normpath(os.path.join(folder, str(item["path"]))).replace(os.sep, "/"),
            hash=str(item.get(item.get("hash", "md5")) or item.get("md5") or item.get("etag") or ""),
            size=int(item.get("size") or 0),
            files=int(item.get("nfiles") or 1),
        )
        for item in entry.get(section, ())
    )
    return tuple(sorted(items, key=lambda item: item.path))


def _address(stage: Any) -> str:
    """The stage's name as dvc takes it in the project's root. (``stage.addressing`` is relative to the working folder.)"""
    file = str(stage.path_in_repo).replace(os.sep, "/")
    return str(stage.name) if file == "dvc.yaml" else f"{file}:{stage.name}"


def _node(stage: Any, root: Path) -> StageNode:
    params = tuple((_relative(dep, root), tuple(map(str, dep.params))) for dep in stage.params)
    parameter_files = {id(dep) for dep in stage.params}
    cmd = stage.cmd if isinstance(stage.cmd, str) else "\n".join(stage.cmd or ())
    return StageNode(
        address=_address(stage),
        cmd=cmd,
        deps=tuple(sorted(_relative(dep, root) for dep in stage.deps if id(dep) not in parameter_files)),
        outs=tuple(sorted(_relative(out, root) for out in stage.outs)),
        params=params,
        meta=_meta(_address(stage), stage.meta),
        wdir=os.path.relpath(stage.wdir, root).replace(os.sep, "/"),
        metrics=tuple(sorted(_relative(out, root) for out in stage.outs if out.metric)),
        plots=tuple(sorted(_relative(out, root) for out in stage.outs if out.plot)),
        desc=stage.desc,
    )


def _with_figures(nodes: list[StageNode], root: Path) -> list[StageNode]:
    """The stages of each dvc.yaml with the metrics and plots that it declares beside them and that they write."""
    declared = {}
    for file in {node.address.rpartition(":")[0] for node in nodes}:
        paths = figures.declared_at_top(root / (file or "dvc.yaml"))
        declared[file] = [[figures.from_root(os.path.dirname(file), path) for path in of_kind] for of_kind in paths]

    def with_declared(node: StageNode) -> StageNode:
        own = [[path for path in of_kind if figures.inside(path, node.outs)] for of_kind in declared[node.address.rpartition(":")[0]]]
        if not any(own):
            return node
        metrics, plots = ({*before, *more} for before, more in zip((node.metrics, node.plots), own, strict=True))
        return replace(node, metrics=tuple(sorted(metrics)), plots=tuple(sorted(plots)))

    return [with_declared(node) for node in nodes]


def _from_plain(values: stage_cache.PlainStage) -> StageNode:
    """A stage of which JSON or YAML made lists in place of tuples."""
    params = tuple((file, tuple(names)) for file, names in values["params"])
    return StageNode(**{**values, **{name: tuple(values[name]) for name in ("deps", "outs", "metrics", "plots")}, "params": params})


def _meta(address: str, of_stage: Mapping[str, object] | None) -> dict[str, Any]:
    meta = (of_stage or {}).get("dagster") or {}
    if not isinstance(meta, Mapping):
        raise UsageError(f"Stage '{address}': meta.dagster is {meta!r}, expected a mapping such as {{asset: scores/mine}}.")
    for name in meta:
        if name not in META_KEYS:
            raise UsageError(f"Stage '{address}': meta.dagster has no '{name}'.{did_you_mean(str(name), META_KEYS)}")
    return {name: value for name, value in meta.items() if value not in (None, "", [], {})}


def _relative(item: Any, root: Path) -> str:
    """A local path relative to the root; an address elsewhere (s3://…) as it is written."""
    if item.protocol != "local":
        return str(item.def_path)
    return os.path.relpath(item.fs_path, root).replace(os.sep, "/")


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


@contextmanager
def dvc_idle(root: str | os.PathLike[str], wait_s: float = _LOCK_WAIT_S) -> Iterator[bool]:
    """Hold DVC's repository lock, shared, for a moment: DVC writes dvc.lock in place, but only under that lock.

    Free while a stage's command runs. Where it cannot be had in time, or the platform has no flock, the block runs all
    the same and is told so: False.
    """
    try:
        import fcntl

        handle = open(os.path.join(root, ".dvc", "tmp", "lock"), "rb")  # noqa: SIM115
    except (ImportError, OSError):
        yield False
        return
    with handle:
        idle, deadline = False, time.monotonic() + wait_s
        while time.monotonic() < deadline:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                idle = True
                break
            except OSError:
                time.sleep(0.02)
        yield idle


def _explain(error: BaseException) -> str:
    """DVC's own sentence, with the line and column that it keeps beside it."""
    said = [_one_line(error)]
    mark = next((m for e in _causes(error) if (m := getattr(e, "problem_mark", None))), None)
    if mark is not None:
        problem = next((p for e in _causes(error) if (p := getattr(e, "problem", None))), "")
        said.append(f"line {mark.line + 1}, column {mark.column + 1}: {problem}")
    schema_problems = getattr(getattr(error, "exc", None), "errors", None) or ()
    said += [_schema_problem(problem, getattr(error, "text", "")) for problem in schema_problems]
    if mark is None and not schema_problems and (cause := error.__cause__) is not None and str(cause) not in str(error):
        said.append(_one_line(cause))
    return "; ".join(part for part in said if part)


def _schema_problem(problem: Any, text: str) -> str:
    """A schema error as ``where: what, line n``."""
    line = _line_of(yaml.compose(text, Loader=_LOADER), list(problem.path))
    where = ".".join(map(str, problem.path))
    return f"{where}: {problem.error_message}" + (f", line {line}" if line else "")


def _line_of(node: yaml.Node | None, path: Sequence[object]) -> int:
    """The line, from 1, of what lies at a path in a YAML document, or of the last part of the path that exists."""
    line = 0
    for part in path:
        if isinstance(node, yaml.MappingNode):
            key, node = next(((key, value) for key, value in node.value if key.value == str(part)), (None, None))
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            key = node = node.value[part]
        else:
            break
        if key is None:
            break
        line = key.start_mark.line + 1
    return line


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
