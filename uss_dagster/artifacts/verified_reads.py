"""Whether what a stage reads is what another stage wrote: every file is hashed and held against the manifest beside it.

DVC looks at size and time only, and so does not see bytes that changed on the disk. Shards of images are left out: each image in them is
hashed when it is read (``Images.encoded``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from uss_dagster.artifacts.shards import worker_count
from uss_dagster.artifacts.staging import MANIFEST, files_of, read_manifest
from uss_dagster.errors import BadData
from uss_dagster.hashing import sha256_of_file

REMEDY = "Run `uss verify --repair`, then this again."
_HASHED_BY_IMAGE = ".tar"


def verify_reads(paths: Iterable[Path], root: Path) -> None:
    """Refuse the first file that is not what its stage wrote.

    Parameters
    ----------
    paths
        Files and folders that a stage reads. One without a manifest, in it or in a folder above it, is taken as it is.
    root
        The project folder.
    """
    expected = dict(pair for path in paths for pair in _written(path, root))
    with ThreadPoolExecutor(worker_count(len(expected))) as threads:  # hashing releases the interpreter's lock
        for path, digest in zip(expected, threads.map(sha256_of_file, expected), strict=True):
            if digest != expected[path]:
                raise BadData(f"{path.relative_to(root)} is not what its stage wrote: other bytes of the same size. {REMEDY}")


def _written(path: Path, root: Path) -> Iterator[tuple[Path, str]]:
    """(file, SHA-256) as the manifest of the artefact says that holds ``path``."""
    folder = next((place for place in (path, *path.parents) if root in place.parents and (place / MANIFEST).is_file()), None)
    if folder is None:
        return
    part = path.relative_to(folder).as_posix() if path != folder else ""
    files = files_of(read_manifest(folder, part), part)
    for name in _present(path, folder):
        if name not in files and name != MANIFEST:
            raise BadData(f"{(folder / name).relative_to(root)} was not written by the stage of this folder. {REMEDY}")
    for name, entry in files.items():
        if not name.endswith(_HASHED_BY_IMAGE):
            yield folder / name, entry["sha256"]


def _present(path: Path, folder: Path) -> Iterator[str]:
    """Names from ``folder`` of the files in a folder; hidden ones are left out."""
    for place, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name).relative_to(folder).as_posix() for name in names if not name.startswith("."))
