"""The resolved stages of a project, stored between processes: DVC needs some 8 ms a stage to resolve them, and every process that loads
the definitions (web server, daemon, each run) asks for the same ones.

They are stored under a hash of everything that DVC resolves them from: its version, its configuration, every dvc.yaml, .dvc and .dvcignore
file that git knows or would add (DVC leaves out those that git ignores), and the files that templates take their variables from. Without
git, where a file cannot be read, and where a template computes the name of such a file, nothing is stored and DVC is asked each time.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from dagster_dvc.whole_files import read_json, write_json

CACHE = Path(".dvc") / "tmp" / "dagster_dvc" / "stages.json"
FORMAT = "3"
PlainStage = dict[str, Any]
"""A ``StageNode`` as JSON holds it."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def key_of(root: Path) -> str | None:
    """A hash over all that the stages are resolved from; None where it cannot be said."""
    from importlib.metadata import version

    try:
        words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*dvc.yaml", "*.dvc", "*.dvcignore"]
        listed = subprocess.run(words, cwd=root, capture_output=True, check=True).stdout
        names = {os.fsdecode(name) for name in listed.split(b"\0") if name}
        names |= {name for name in (".dvc/config", ".dvc/config.local") if (root / name).is_file()}
        content = {name: (root / name).read_bytes() for name in names if (root / name).is_file()}
        for name in [name for name, text in content.items() if name.endswith("dvc.yaml") and b"${" in text]:
            for path in sorted(set(_variables(yaml.load(content[name], Loader=_LOADER), os.path.dirname(name)))):
                if (root / path).is_file():
                    content[path] = (root / path).read_bytes()
    except (OSError, subprocess.CalledProcessError, yaml.YAMLError, ValueError):
        return None
    digests = [(name, hashlib.sha256(data).hexdigest()) for name, data in sorted(content.items())]
    return hashlib.sha256(json.dumps([FORMAT, version("dvc"), digests]).encode()).hexdigest()


def restore(root: Path, key: str) -> list[PlainStage] | None:
    """The stages stored under a key, as plain data; None where there are none."""
    stored: PlainStage = {**read_json(root / CACHE)}
    return stored["stages"] if stored.get("key") == key else None


def store(root: Path, key: str, stages: list[PlainStage]) -> None:
    """Replace what was stored; in a folder that cannot be written to nothing is stored."""
    with suppress(OSError, TypeError, ValueError):  # values of meta that JSON does not know are resolved each time
        write_json(root / CACHE, {"key": key, "stages": stages})


def _variables(content: Any, folder: str) -> Iterator[str]:
    """The files, relative to the root, that a dvc.yaml in a folder takes variables from, at any depth of it."""
    yield os.path.join(folder, "params.yaml")
    todo = [content]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            todo.extend(item.values())
            wdir = item.get("wdir")
            for name in item.get("vars") or ():
                if isinstance(name, str):
                    if "${" in f"{name}{wdir}":
                        raise ValueError(f"{name}: where the variables are is a variable itself")
                    file = name.partition(":")[0]
                    yield os.path.normpath(os.path.join(folder, file))
                    if isinstance(wdir, str):
                        yield os.path.normpath(os.path.join(folder, wdir, file))
            if isinstance(wdir, str):
                yield os.path.normpath(os.path.join(folder, wdir, "params.yaml"))
        elif isinstance(item, list):
            todo.extend(item)
