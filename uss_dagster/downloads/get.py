"""Getting a dataset: fetch its archives or take them from a disk, verify, extract, try its adapter on it, and rename into place.

A dataset is put together in a hidden folder beside its own, which takes its place by one rename. So it is there whole or not at all.
"""

from __future__ import annotations

import fcntl
import os
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from uss_dagster import registry
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.staging import replace_folder
from uss_dagster.datasets.base import Adapter, Archive, DatasetSpec, source_folder
from uss_dagster.downloads.archives import extract, is_archive, plain
from uss_dagster.downloads.fetch import Fetched, fetch, verify
from uss_dagster.downloads.records import RECORD, ArchiveRecord, SourceRecord, read_record, write_record
from uss_dagster.downloads.trees import link_file, link_tree, merge_tree
from uss_dagster.errors import BadData, TryAgain, Unavailable, UsageError, UssError, did_you_mean
from uss_dagster.files import remove

NOTHING_TO_GET = "nothing to get"
_MEGA = 1_000_000
Say = Callable[[str], None]
"""Called with a line for the person who waits."""


@dataclass(frozen=True)
class Request:
    """One dataset to get.

    Parameters
    ----------
    name : str
        The dataset, as ``uss data list`` names it.
    source : Path, optional
        An archive, a folder of archives, or an extracted tree to take; nothing is fetched then. Without it, archives are fetched.
    only : sequence of str
        Names of the archives to get. Default: all.
    accept : callable
        Called once the licence was shown; returns how it was accepted, or an empty text for no. Default: no.
    """

    name: str
    source: Path | None = None
    only: Sequence[str] = ()
    accept: Callable[[], str] = lambda: ""


@dataclass(frozen=True)
class _Assembly:
    """What this run adds to the folder of a dataset. files: archive name → local file. absent: archives that stay missing."""

    adapter: Adapter
    folder: Path
    record: SourceRecord | None
    archives: list[Archive]
    files: dict[str, Path]
    tree: Path | None
    absent: list[str]
    accepted: str


def access(spec: DatasetSpec) -> str:
    """How a dataset can be had, in a few words."""
    if not spec.archives:
        return "by hand" if spec.homepage else NOTHING_TO_GET
    free = [bool(archive.urls) for archive in spec.archives]
    if all(free):
        return "free to fetch"
    return "partly behind a login" if any(free) else "behind a login or on request"


def get_dataset(request: Request, say: Say) -> Path:
    """Fetch (or take) what is missing of a dataset, and put it into its folder.

    Returns
    -------
    Path
        The folder of the dataset.

    Raises
    ------
    UsageError
        The licence was not accepted, or the request contradicts what is there.
    BadData
        An archive is damaged or hostile, or the data is not that of the dataset.
    Unavailable
        A source does not answer, or only a person can get the data.
    TryAgain
        The disk is full, or another process gets the same dataset.
    """
    adapter: Adapter = registry.load("dataset", request.name)
    spec, folder = adapter.SPEC, source_folder(request.name)
    if access(spec) == NOTHING_TO_GET:
        say(f"{spec.name}: nothing to get. {spec.instructions}".strip())
        return folder
    archives = _requested(spec, request.only)
    record = read_record(folder) if folder.is_dir() else None
    if folder.exists() and record is None:
        if request.source:
            raise UsageError(f"{folder} is there already and was not made by `uss data get`. Move it away first.")
        say(f"{spec.name}: is in {folder}, where it came by other means. Nothing to do.")
        return folder
    present = {archive["name"] for archive in record["archives"]} if record else set()
    for archive, other in _in_other_datasets(archives, folder):
        if archive.name not in present:
            say(f"{archive.name}: is in {other} already.")
            present.add(archive.name)
    missing = [archive for archive in archives if archive.name not in present]
    if record and not request.source and (not missing or record.get("tree")):
        say(f"{spec.name}: is in {folder}. Nothing to do.")
        return folder
    files, tree = _local_files(spec, request.source, say)
    if tree and record:
        raise UsageError(f"{folder} is there already; an extracted tree is taken as a whole. Move it away first, or give archives.")
    if request.source:
        missing = [archive for archive in missing if archive.name in files]
        if not missing and not tree:
            say(f"{spec.name}: these archives are in {folder} already. Nothing to do.")
            return folder
    locked = [archive.name for archive in missing if not archive.urls and archive.name not in files]
    if not tree and (locked or not missing):
        raise Unavailable(_instructions(spec, locked))
    absent = [] if tree else [a.name for a in spec.archives if a.name not in present and a not in missing]
    _assemble(_Assembly(adapter, folder, record, missing, files, tree, absent, _accepted(spec, record, request, say)), say)
    say(f"{spec.name}: is in {folder}.")
    if absent:
        say(f"not got: {', '.join(absent)}. Splits that need them will say so.")
    return folder


# -- what to get --------------------------------------------------------------------------------------------------


def _requested(spec: DatasetSpec, only: Sequence[str]) -> list[Archive]:
    names = [archive.name for archive in spec.archives]
    for name in only:
        if name not in names:
            raise UsageError(f"'{spec.name}' has no archive '{plain(name)}'.{did_you_mean(name, names)}")
    return [archive for archive in spec.archives if not only or archive.name in only]


def _in_other_datasets(archives: Sequence[Archive], folder: Path) -> Iterator[tuple[Archive, Path]]:
    """Archives that another dataset has, by checksum: datasets that are built on COCO's images read them from there."""
    for path in sorted(folder.parent.glob(f"*/{RECORD}")):
        record = read_record(path.parent) if path.parent != folder else None
        if record:
            checksums = {entry["md5"] for entry in record["archives"]}
            yield from ((archive, path.parent) for archive in archives if archive.md5 in checksums)


def _local_files(spec: DatasetSpec, path: Path | None, say: Say) -> tuple[dict[str, Path], Path | None]:
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
    files = {name: path / name for name in names if (path / name).is_file()}
    others = sorted(p.name for p in path.iterdir() if p.name not in files and not p.name.startswith("."))
    # A file that is no archive, such as a single annotation file, lies in an extracted tree under the same name.
    if files and (any(map(is_archive, files)) or not others):
        if others:
            say(f"note: {len(others)} other files in {path} are left out, such as {plain(others[0])}.")
        return files, None
    if not any(path.iterdir()):
        raise UsageError(f"{path} is empty; {expected}.")
    return {}, path


def _instructions(spec: DatasetSpec, locked: Sequence[str]) -> str:
    how = spec.instructions or spec.get_it or f"See {spec.homepage}."
    files = f" It consists of {', '.join(locked)}." if locked else ""
    return f"'{spec.name}' cannot be fetched without a person. {how}{files} Then run `uss data get {spec.name} --from PATH`."


def _accepted(spec: DatasetSpec, record: SourceRecord | None, request: Request, say: Say) -> str:
    """How the licence was accepted: as recorded, where it reads as it did then; else a person is asked."""
    if record and record["licence"] == spec.licence:
        return record["accepted"]
    say(f"{spec.title}\n  licence: {spec.licence}\n  source:  {spec.homepage}\n  cite:    {spec.citation}")
    accepted = request.accept()
    if not accepted:
        raise UsageError(f"The licence of '{spec.name}' was not accepted. Read it above and at its source, then add --accept-licence.")
    return accepted


# -- putting it together ------------------------------------------------------------------------------------------


def _assemble(job: _Assembly, say: Say) -> None:
    """Fetch, extract, try and record in the work folder; then one rename puts the new folder in place."""
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    with work_folder(job.folder) as work:
        sources = [_source(archive, job.files, work / "downloads", say) for archive in job.archives]
        new = work / "new"
        remove(new)
        new.mkdir()
        if job.folder.exists():
            link_tree(job.folder, new)
        if job.tree:
            say(f"linking {job.tree}")
            link_tree(job.tree, new)
        for archive, source in zip(job.archives, sources, strict=True):
            try:
                _unpack(archive, source, new, work / "unpacked", say)
            except BadData:
                if archive.name not in job.files:  # else the next run would find the same download, and refuse it for ever
                    source.path.unlink()
                raise
        if not job.absent:
            _try_adapter(job.adapter, new, work / "trial", job.folder)
        write_record(new, _new_record(job, sources))
        replace_folder(new, job.folder)
        remove(work / "downloads")


def _new_record(job: _Assembly, sources: Sequence[Fetched]) -> SourceRecord:
    entries: list[ArchiveRecord] = [*job.record["archives"]] if job.record else []
    entries += [
        {"name": a.name, "size": s.size, "md5": s.md5, "sha256": s.sha256, "from": s.url or "a local file"}
        for a, s in zip(job.archives, sources, strict=True)
    ]
    spec = job.adapter.SPEC
    return {
        "dataset": spec.name,
        "licence": spec.licence,
        "accepted": job.accepted,
        "tree": job.tree is not None,
        "archives": sorted(entries, key=lambda entry: entry["name"]),
    }


@contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """The hidden folder in which a dataset is put together, locked for one process. Only downloads in it outlive a failure."""
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


def _source(archive: Archive, files: dict[str, Path], downloads: Path, say: Say) -> Fetched:
    if archive.name in files:
        say(f"verifying {files[archive.name]}")
        return verify(archive, files[archive.name])
    say(f"fetching {archive.name}" + (f" ({archive.size / _MEGA:,.0f} MB)" if archive.size else ""))
    with _megabytes(f"fetching {archive.name}", archive.size) as advance:
        return fetch(archive, downloads, advance)


@contextmanager
def _megabytes(title: str, size: int) -> Iterator[Callable[[int], None]]:
    """A progress bar in whole megabytes, advanced by numbers of bytes."""
    reported = total = 0
    with Progress(title, size // _MEGA, "MB") as progress:

        def advance(new: int) -> None:
            nonlocal reported, total
            total += new
            if total // _MEGA != reported:
                progress.advance(total // _MEGA - reported)
                reported = total // _MEGA

        yield advance


def _unpack(archive: Archive, source: Fetched, new: Path, unpacked: Path, say: Say) -> None:
    """Extract one archive into a folder of its own, then merge; a file that an earlier archive has too (a README) stays that one's."""
    target = new / archive.under
    if not is_archive(archive.name):
        target.mkdir(parents=True, exist_ok=True)
        link_file(source.path, target / archive.name)
        return
    remove(unpacked)
    say(f"extracting {archive.name}")
    with _megabytes(f"extracting {archive.name}", 0) as advance:
        extract(source.path, unpacked, advance=advance)
    target.mkdir(parents=True, exist_ok=True)
    merge_tree(unpacked, target, say)
    remove(unpacked)


# -- trying the adapter -------------------------------------------------------------------------------------------


def _try_adapter(adapter: Adapter, new: Path, trial: Path, folder: Path) -> None:
    """Read the first image of any split through the adapter, from a mirror that holds the new folder and the datasets beside it."""
    trial.mkdir()
    for other in folder.parent.iterdir():  # datasets that share images read each other's folders
        if other.name != folder.name and not other.name.startswith("."):
            (trial / other.name).symlink_to(other.resolve())
    (trial / folder.name).symlink_to(new.resolve())
    reason: UssError | None = None
    with _mirror(trial.resolve()):
        for params in _every_split(adapter.SPEC.params):
            try:
                next(iter(adapter.examples(params)))
                return
            except StopIteration:
                reason = reason or BadData("It holds no images.")
            except UssError as error:
                reason = reason or error
    message = str(reason).replace(str(trial.resolve() / folder.name), "it").replace(str(trial), str(folder.parent))
    raise BadData(f"What was given is not '{adapter.SPEC.name}' as released: {message}")


@contextmanager
def _mirror(folder: Path) -> Iterator[None]:
    """USS_MIRROR set to a folder for a while."""
    before = os.environ.get("USS_MIRROR")
    os.environ["USS_MIRROR"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("USS_MIRROR")
        if before is not None:
            os.environ["USS_MIRROR"] = before


def _every_split(params: type) -> Iterator[object]:
    """The default parameters, then those of every other split."""
    default = params()
    yield default
    for split in typing.get_args(typing.get_type_hints(params).get("split")):
        if split != default.split:
            yield params(split=split)
