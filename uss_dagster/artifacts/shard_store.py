"""Finished shards kept under a hash of all that their bytes depend on, so that a changed dataset computes only the shards it changed.

DVC removes what a stage published before it runs it again, so the shards are kept beside, in ``.uss/shards/<stage>-<cell>/<key>``: as
hard links where the disk allows it, which take no space until one side goes. A kept file counts only while it has the hash it had.
Nothing depends on this store: without it, or with ``USS_REUSE=0``, the same bytes are computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from uss_dagster.artifacts.staging import PRIVATE, Staging, remove
from uss_dagster.files import write_whole

LISTING = "listing.json"


def shard_key(*depends_on: Any) -> str:
    """The key of a shard: a hash over anything JSON that its bytes depend on (its cell with the code's fingerprint, its images)."""
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:32]


def digest_of(path: Path) -> str:
    """The hash of a file as it is on the disk now, whatever a manifest says of it; empty where it is not there."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return ""


def bring_back(staging: Staging, key: str, names: Sequence[str]) -> bool:
    """Put the kept files of a shard into the work folder; False where they are not there or are not what they were.

    An empty key is that of a shard which is never kept. Files come in the order of ``names``, so that the last one tells that the shard
    is whole, as when it is computed.
    """
    folder = _home(staging) / key
    if not key or os.environ.get("USS_REUSE") == "0":
        return False
    try:
        listing = json.loads((folder / LISTING).read_text(encoding="utf-8"))
        if any(digest_of(folder / _flat(name)) != listing[name] for name in names):
            return False
    except (OSError, ValueError, KeyError):
        return False
    for name in names:
        staging.write(name, lambda partial, name=name: shutil.copyfile(folder / _flat(name), partial) and None)  # type: ignore[misc]
    return True


def keep(staging: Staging, key: str, names: Sequence[str]) -> None:
    """Keep the finished files of a shard for the next run."""
    folder = _home(staging) / key
    if not key or (folder / LISTING).exists():
        return
    remove(folder)
    folder.mkdir(parents=True)
    listing = {}
    for name in names:
        source, kept = staging.folder / name, folder / _flat(name)
        try:
            os.link(source, kept)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, kept)
        listing[name] = digest_of(kept)
    write_whole(folder / LISTING, json.dumps(listing))


def forget_others(staging: Staging, keys: Collection[str]) -> None:
    """Remove the shards of earlier versions: those of the one just published stay."""
    home = _home(staging)
    for folder in home.iterdir() if home.exists() else ():
        if folder.name not in keys:
            remove(folder)


def _home(staging: Staging) -> Path:
    return staging.root / PRIVATE / "shards" / staging.slug


def _flat(name: str) -> str:
    return name.replace("/", "-")
