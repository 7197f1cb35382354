"""``uss data``: which datasets there are, getting them safely, and checking what was got.

A dataset is put together in a hidden folder beside its place, and takes its place by one rename: it is there whole, or not at all.
"""

from __future__ import annotations

import errno
import fcntl
import filecmp
import json
import os
import shutil
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uss_dagster import registry
from uss_dagster.artifacts.gate import Report
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.staging import remove, replace_folder
from uss_dagster.datasets.base import Archive, DatasetSpec, mirror_folder, source_folder
from uss_dagster.downloads.archives import extract, is_archive, plain
from uss_dagster.downloads.fetch import Fetched, fetch, verify
from uss_dagster.errors import BadData, TryAgain, Unavailable, UsageError, UssError, did_you_mean

RECORD = "uss-source.json"
"""Beside the data: the licence that was accepted, and every archive with its checksums."""
NOTHING_TO_GET = "nothing to get"
_MEGA = 1_000_000
Say = Callable[[str], None]


# -- what there is ------------------------------------------------------------------------------------------------


def access(spec: DatasetSpec) -> str:
    """How a dataset is got, in a few words."""
    if not spec.archives and not spec.homepage:
        return NOTHING_TO_GET
    if not spec.archives:
        return "by hand"
    free = [bool(archive.urls) for archive in spec.archives]
    if free and all(free):
        return "free to fetch"
    return "partly behind a login" if any(free) else "behind a login or on request"


def shown_counts(spec: DatasetSpec) -> str:
    """'train 200, val 100' of the official splits."""
    return ", ".join(f"{split} {count:,}" for split, count in spec.counts.items())


def listing() -> Iterator[str]:
    """Three lines a dataset."""
    for name in registry.names("dataset"):
        spec = registry.load("dataset", name).SPEC
        state = access(spec)
        if state != NOTHING_TO_GET:
            here = mirror_folder(name)
            state += f" · here ({here})" if here else " · not here"
        images = f"{shown_counts(spec)} images" if spec.counts else "any number of images"
        yield f"{name:<18} {spec.title}"
        yield f"{'':<18} {images} · truth: {spec.truth} · {state}"
        yield f"{'':<18} licence: {spec.licence}"


def markdown() -> Iterator[str]:
    """The tables of docs/datasets.md: every dataset, and what to do for those that cannot simply be fetched."""
    yield "| name | dataset | images | ground truth | how to get it | archives | licence |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    specs = [registry.load("dataset", name).SPEC for name in registry.names("dataset")]
    for spec in specs:
        title = f"[{spec.title}]({spec.homepage})" if spec.homepage.startswith("http") else spec.title
        archives = ", ".join(f"`{archive.name}`" for archive in spec.archives)
        yield f"| `{spec.name}` | {title} | {shown_counts(spec)} | {spec.truth} | {access(spec)} | {archives} | {spec.licence} |"
    for spec in specs:
        if spec.instructions:
            yield f"\n**{spec.title}** (`{spec.name}`): {spec.instructions}"


def licences() -> Iterator[str]:
    """Licence, source and citation of every dataset, and whether the licence was accepted here."""
    for name in registry.names("dataset"):
        spec = registry.load("dataset", name).SPEC
        folder = mirror_folder(name)
        record = read_record(folder) if folder else None
        yield f"{name}: {spec.licence}"
        if spec.homepage:
            yield f"  source: {spec.homepage}"
        if record:
            yield f"  accepted: {record['accepted']}" + (
                "" if record["licence"] == spec.licence else f", when it read: {record['licence']}"
            )
        if spec.citation:
            yield f"  cite: {spec.citation}"


def read_record(folder: Path) -> dict[str, Any] | None:
    """What ``get`` wrote beside a dataset; None where it came here by other means."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        record["licence"], record["accepted"], record["archives"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise BadData(f"{folder / RECORD} is damaged ({error!r}). Remove {folder} and get the dataset again.") from error
    return record


# -- getting ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """One dataset to get. given: archives, or a folder of them, or an extracted tree. only: names of archives, or all. accepted: how the
    licence was accepted, or a question to ask."""

    name: str
    given: Path | None = None
    only: Sequence[str] = ()
    accepted: Callable[[], str] = lambda: ""


def get(request: Request, say: Say) -> Path:
    """Fetch (or take) what is missing of a dataset, and register it; returns its folder."""
    module = registry.load("dataset", request.name)
    spec: DatasetSpec = module.SPEC
    if access(spec) == NOTHING_TO_GET:
        say(f"{spec.name}: nothing to get. {spec.instructions}".strip())
        return source_folder(spec.name)
    wanted = _wanted(spec, request.only)
    folder = source_folder(spec.name)
    record = read_record(folder) if folder.is_dir() else None
    if folder.exists() and record is None:
        if request.given:
            raise UsageError(f"{folder} is there already and was not made by `uss data get`. Move it away first.")
        say(f"{spec.name}: is in {folder}, where it came by other means. Nothing to do.")
        return folder
    there = {archive["name"] for archive in record["archives"]} if record else set()
    for archive, beside in _beside(wanted, folder):
        if archive.name not in there:
            say(f"{archive.name}: is in {beside} already.")
            there.add(archive.name)
    missing = [archive for archive in wanted if archive.name not in there]
    if record and not request.given and (not missing or record.get("tree")):
        say(f"{spec.name}: is in {folder}. Nothing to do.")
        return folder
    given, tree = _given(spec, request.given, say)
    if tree and record:
        raise UsageError(f"{folder} is there already; an extracted tree is taken as a whole. Move it away first, or give archives.")
    if request.given:
        missing = [archive for archive in missing if archive.name in given]
        if not missing and not tree:
            say(f"{spec.name}: these archives are in {folder} already. Nothing to do.")
            return folder
    locked = [archive.name for archive in missing if not archive.urls and archive.name not in given]
    if not tree and (locked or not missing):
        raise Unavailable(_instructions(module, locked))
    accepted = _accepted(spec, record, request, say)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _workshop(folder) as work:
        sources = [_source(archive, given, work / "downloads", say) for archive in missing]
        new = work / "new"
        remove(new)
        new.mkdir()
        if folder.exists():
            link_tree(folder, new)
        if tree:
            say(f"linking {tree}")
            link_tree(tree, new)
        for archive, source in zip(missing, sources, strict=True):
            try:
                _unpack(archive, source, new, work / "unpacked", say)
            except BadData:
                if archive.name not in given:  # or it would be found there, and refused, for ever
                    source.path.unlink()
                raise
        entries = [] if record is None else list(record["archives"])
        entries += [
            {"name": a.name, "size": s.size, "md5": s.md5, "sha256": s.sha256, "from": s.url or "a local file"}
            for a, s in zip(missing, sources, strict=True)
        ]
        absent = [a.name for a in spec.archives if a.name not in there and a not in missing]
        if tree or not absent:
            _try_out(module, new, work / "trial", folder)
        text = {
            "dataset": spec.name,
            "licence": spec.licence,
            "accepted": accepted,
            "tree": tree is not None,
            "archives": sorted(entries, key=lambda e: e["name"]),
        }
        (new / RECORD).unlink(missing_ok=True)  # it may be a link to the old one
        (new / RECORD).write_text(json.dumps(text, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        replace_folder(new, folder)
        remove(work / "downloads")
    say(f"{spec.name}: is in {folder}.")
    if absent and not tree:
        say(f"not got: {', '.join(absent)}. Splits that need them will say so.")
    return folder


def _beside(archives: Sequence[Archive], folder: Path) -> Iterator[tuple[Archive, Path]]:
    """Archives that another dataset beside this one has, by checksum: those that are built on COCO's images look there for them."""
    for other in sorted(folder.parent.glob(f"*/{RECORD}")):
        if other.parent != folder:
            known = {entry["md5"] for entry in (read_record(other.parent) or {"archives": []})["archives"]}
            yield from ((archive, other.parent) for archive in archives if archive.md5 in known)


def _wanted(spec: DatasetSpec, only: Sequence[str]) -> list[Archive]:
    known = [archive.name for archive in spec.archives]
    for name in only:
        if name not in known:
            raise UsageError(f"'{spec.name}' has no archive '{plain(name)}'.{did_you_mean(name, known)}")
    return [archive for archive in spec.archives if not only or archive.name in only]


def _given(spec: DatasetSpec, path: Path | None, say: Say) -> tuple[dict[str, Path], Path | None]:
    """(archive name → file, extracted tree) of what --from points to."""
    if path is None:
        return {}, None
    names = [archive.name for archive in spec.archives]
    expected = (
        f"expected {', '.join(names)}, or a folder with some of them, or the extracted tree" if names else "expected the extracted tree"
    )
    if path.is_file():
        if path.name not in names:
            raise UsageError(f"{path} is no archive of '{spec.name}': {expected}. Rename it if it is one.")
        return {path.name: path}, None
    if not path.is_dir():
        raise UsageError(f"{path} does not exist; {expected}.")
    found = {name: path / name for name in names if (path / name).is_file()}
    others = sorted(p.name for p in path.iterdir() if p.name not in found and not p.name.startswith("."))
    if found and (any(is_archive(name) for name in found) or not others):  # single files lie in an extracted tree too
        if others:
            say(f"note: {len(others)} other files in {path} are left out, such as {plain(others[0])}.")
        return found, None
    if not any(path.iterdir()):
        raise UsageError(f"{path} is empty; {expected}.")
    return {}, path


def _instructions(module: Any, locked: Sequence[str]) -> str:
    spec: DatasetSpec = module.SPEC
    how = spec.instructions or getattr(module, "GET_IT", "") or f"See {spec.homepage}."
    files = f" It consists of {', '.join(locked)}." if locked else ""
    return f"'{spec.name}' cannot be fetched without a person. {how}{files} Then run `uss data get {spec.name} --from PATH`."


def _accepted(spec: DatasetSpec, record: dict[str, Any] | None, request: Request, say: Say) -> str:
    if record and record["licence"] == spec.licence:
        return str(record["accepted"])
    say(f"{spec.title}\n  licence: {spec.licence}\n  source:  {spec.homepage}\n  cite:    {spec.citation}")
    accepted = request.accepted()
    if not accepted:
        raise UsageError(f"The licence of '{spec.name}' was not accepted. Read it above and at its source, then add --accept-licence.")
    return accepted


@contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """The hidden folder in which a dataset is put together; one process at a time. Downloads in it outlive a failure, the rest does not."""
    work = folder.with_name(f".{folder.name}.get")
    work.mkdir(exist_ok=True)
    with open(work / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TryAgain(f"Another process is getting '{folder.name}'. Wait for it, then run the same command again.") from None
        try:
            yield work
        finally:
            for part in ("new", "unpacked", "trial"):
                remove(work / part)
            downloads = work / "downloads"
            if not downloads.exists() or not any(downloads.iterdir()):
                remove(work)


def _source(archive: Archive, given: dict[str, Path], downloads: Path, say: Say) -> Fetched:
    if archive.name in given:
        say(f"verifying {given[archive.name]}")
        return verify(archive, given[archive.name])
    say(f"fetching {archive.name}" + (f" ({archive.size / _MEGA:,.0f} MB)" if archive.size else ""))
    with _megabytes(f"fetching {archive.name}", archive.size) as advance:
        return fetch(archive, downloads, advance)


@contextmanager
def _megabytes(what: str, size: int) -> Iterator[Callable[[int], None]]:
    """Progress in whole megabytes, told by numbers of bytes."""
    told = bytes_done = 0
    with Progress(what, size // _MEGA, "MB") as progress:

        def advance(size: int) -> None:
            nonlocal told, bytes_done
            bytes_done += size
            if bytes_done // _MEGA != told:
                progress.advance(bytes_done // _MEGA - told)
                told = bytes_done // _MEGA

        yield advance


def _unpack(archive: Archive, source: Fetched, new: Path, unpacked: Path, say: Say) -> None:
    """Extract one archive apart from the others, then move it in; a file that an earlier archive has too (a README) stays that one's."""
    target = new / archive.under
    if not is_archive(archive.name):
        target.mkdir(parents=True, exist_ok=True)
        _link(source.path, target / archive.name)
        return
    remove(unpacked)
    say(f"extracting {archive.name}")
    with _megabytes(f"extracting {archive.name}", 0) as advance:
        extract(source.path, unpacked, advance=advance)
    target.mkdir(parents=True, exist_ok=True)
    _move_in(unpacked, target, say)
    remove(unpacked)


def _move_in(source: Path, target: Path, say: Say) -> None:
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            _move_in(entry, place, say)
        elif place.exists():
            if entry.is_dir() or place.is_dir() or not filecmp.cmp(entry, place, shallow=False):
                say(f"note: '{plain(entry.name)}' differs between two archives; the first one's is kept.")
        else:
            os.replace(entry, place)


def link_tree(source: Path, target: Path) -> None:
    """The same files under another folder: hard links where both lie on one disk, else copies. Links inside are refused: they may lead anywhere."""
    for folder, folders, files in os.walk(source):
        inside = Path(folder).relative_to(source)
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise BadData(
                    f"{plain(str(path))} is a link or a special file, which is not taken over. Put the file itself there, "
                    "or set USS_MIRROR to the folder above the tree and use it as it is."
                )
        (target / inside).mkdir(parents=True, exist_ok=True)
        for name in files:
            _link(Path(folder, name), target / inside / name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copyfile(source, target)


def _try_out(module: Any, new: Path, trial: Path, folder: Path) -> None:
    """Read the first image of any split through the adapter, before anything is registered."""
    trial.mkdir()
    for beside in folder.parent.iterdir():  # datasets that share images look beside
        if beside.name != folder.name and not beside.name.startswith("."):
            (trial / beside.name).symlink_to(beside.resolve())
    (trial / folder.name).symlink_to(new.resolve())
    before = os.environ.get("USS_MIRROR")
    os.environ["USS_MIRROR"] = str(trial.resolve())
    reason: UssError | None = None
    try:
        for params in _every_split(module.SPEC.params):
            try:
                next(iter(module.examples(params)))
                return
            except StopIteration:
                reason = reason or BadData("It holds no images.")
            except UssError as error:
                reason = reason or error
    finally:
        if before is None:
            del os.environ["USS_MIRROR"]
        else:
            os.environ["USS_MIRROR"] = before
    said = str(reason).replace(str(trial.resolve() / folder.name), "it").replace(str(trial), str(folder.parent))
    raise BadData(f"What was given is not '{module.SPEC.name}' as released: {said}")


def _every_split(params: type) -> Iterator[Any]:
    """The default parameters, then those of every other split."""
    yield params()
    hint = typing.get_type_hints(params).get("split")
    for split in typing.get_args(hint):
        if split != params().split:
            yield params(split=split)


# -- checking -----------------------------------------------------------------------------------------------------


def check(name: str, given: Sequence[str], say: Say) -> Report:
    """The verdict on a dataset, rule by rule."""
    from uss_dagster.commands.parameters import parse_parameters
    from uss_dagster.datasets.preparation import checks as stage
    from uss_dagster.planning.profiles import find_root

    try:
        root: Path | None = find_root()
    except UsageError:
        root = None
    report = stage.check(name, root, lambda params, owner: parse_parameters(list(given), params, owner))
    for row in report.checks:
        said = f": {row['message']}" if row["message"] else ""
        say(f"{'ok  ' if row['success'] else 'FAIL'}  {row['check']}{said}")
    return report
