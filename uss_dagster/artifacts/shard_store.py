"""Finished shards, stored under a hash of all that their bytes depend on: a changed dataset computes only the shards it changed.

DVC removes what a stage published before it runs the stage again, so finished shards are stored apart: as hard links where the disk
allows it, which take no space until DVC puts a copy in the other's place. A stored file counts only while it has the hash it had. Nothing
depends on the store: without it, or with ``USS_REUSE=0``, the same bytes are computed again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from uss_dagster.artifacts.staging import Staging
from uss_dagster.files import remove, write_whole
from uss_dagster.hashing import sha256_of_file, sha256_of_json

LISTING = "listing.json"


def shard_key(*depends_on: object) -> str:
    """The key of a shard: a hash over any JSON value that its bytes depend on (its cell with the code's fingerprint, its images)."""
    return sha256_of_json(depends_on, 32)


class ShardStore:
    """The stored shards of one artefact, one folder a key. An empty key means: never stored.

    Parameters
    ----------
    folder
        Where the shards are stored; made when first needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, key: str, names: Sequence[str]) -> bool:
        """Whether the files of a shard are stored, and are what they were."""
        stored = self.folder / key
        if not key or os.environ.get("USS_REUSE") == "0":
            return False
        try:
            hashes = json.loads((stored / LISTING).read_text(encoding="utf-8"))
            return all(sha256_of_file(stored / _flat(name)) == hashes[name] for name in names)
        except (OSError, ValueError, KeyError, TypeError):  # absent, damaged, or somebody else's
            return False

    def restore(self, key: str, names: Sequence[str], staging: Staging) -> bool:
        """Copy the stored files of a shard into a work folder; False where they are absent or not what they were.

        The last of ``names`` comes last: like after computing, its presence tells that the shard is complete.
        """
        if not self.has(key, names):
            return False
        stored = self.folder / key
        for name in names:
            staging.write(name, lambda partial, name=name: shutil.copyfile(stored / _flat(name), partial) and None)  # type: ignore[misc]
        return True

    def store(self, key: str, names: Sequence[str], staging: Staging) -> None:
        """Store the files of a shard for the next run, unless one is missing: that shard is computed again."""
        stored = self.folder / key
        if not key or not all(staging.has(name) for name in names):
            return
        if self.folder.exists() and not self.folder.is_dir():
            remove(self.folder)
        remove(stored)
        stored.mkdir(parents=True)
        hashes = {}
        for name in names:
            source, copy = staging.folder / name, stored / _flat(name)
            try:
                os.link(source, copy)
            except OSError:  # another file system, or one without hard links
                shutil.copyfile(source, copy)
            hashes[name] = sha256_of_file(copy)
        write_whole(stored / LISTING, json.dumps(hashes))

    def evict_except(self, keys: Collection[str]) -> None:
        """Remove the shards of earlier versions."""
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            if folder.name not in keys:
                remove(folder)


def _flat(name: str) -> str:
    return name.replace("/", "-")
