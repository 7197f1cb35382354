"""Files: writing one so that it exists only when whole, removing them, reading YAML; where the project is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uss_dagster.errors import UsageError, from_os_error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to beside ``path``, which is renamed into its place at the end of the block; the folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes | str) -> None:
    """Write text (UTF-8) or bytes so that the file exists only when whole."""
    with whole_file(path) as partial:
        partial.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


def make_folder(path: Path) -> None:
    """Make a folder that a person named, and those above it, where they are missing."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_os_error(error) or UsageError(f"The folder {path} cannot be made ({error.strerror}). Choose another place.") from None


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there; links are cut, not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def find_project(start: Path | None = None) -> Path | None:
    """The project that a folder, by default the present one, lies in: the nearest folder with params.yaml and dvc.yaml, or None."""
    folder = (start or Path.cwd()).resolve()
    return next((f for f in (folder, *folder.parents) if (f / "params.yaml").exists() and (f / "dvc.yaml").exists()), None)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def parse_yaml(text: str | bytes) -> Any:
    """What a YAML text says, read with libyaml where it is installed: ten times faster."""
    import yaml

    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
