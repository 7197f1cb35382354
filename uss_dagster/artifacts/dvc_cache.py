"""Reading files from DVC's cache by the hashes that lock files record."""

from __future__ import annotations

import configparser
import json
from contextlib import suppress
from pathlib import Path


def dvc_settings(root: Path) -> configparser.ConfigParser:
    """What DVC's shared and local configuration say; a file that cannot be read says nothing. root: of the project."""
    settings = configparser.ConfigParser(interpolation=None, strict=False)
    for name in ("config", "config.local"):
        with suppress(configparser.Error):
            settings.read(root / ".dvc" / name, encoding="utf-8")
    return settings


def cache_folder(root: Path) -> Path:
    """The cache of a project: where DVC's configuration says, or its own folder. root: of the project."""
    return root / ".dvc" / dvc_settings(root).get("cache", "dir", fallback="cache")


def cached_file(cache: Path, digest: str) -> bytes | None:
    """A file, None if the cache does not have it. digest: DVC's hash of the file."""
    for folder in (cache / "files" / "md5", cache) if digest else ():
        path = folder / digest[:2] / digest[2:]
        if path.is_file():
            return path.read_bytes()
    return None


def cached_member(cache: Path, version: str, name: str) -> bytes | None:
    """A file of a folder, None if the cache does not have it. version: DVC's hash of the folder."""
    listing = cached_file(cache, version)
    members = {item["relpath"]: item["md5"] for item in json.loads(listing)} if listing is not None else {}
    return cached_file(cache, members.get(name, ""))
