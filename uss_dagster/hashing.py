"""Content hashes: of bytes, files, JSON values and folders."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def sha256_of(data: bytes) -> str:
    """SHA-256 of bytes, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file as it is on the disk now, 64 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_json(value: object, digits: int = 64) -> str:
    """SHA-256 of a JSON value; keys of mappings are sorted first."""
    return sha256_of(json.dumps(value, sort_keys=True).encode())[:digits]


def dvc_hash(folder: Path) -> str:
    """The hash by which ``dvc.lock`` names a folder: MD5 of the list of its files, each with its own MD5."""
    files = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        files.append({"md5": digest, "relpath": path.relative_to(folder).as_posix()})
    files.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(files, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
