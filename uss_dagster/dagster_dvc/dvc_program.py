"""A program: DVC's command line, and ``states A B …``, the status of many stages at once, both reading each parameter file once.

DVC parses the whole parameter file again for every stage that it looks at, and searches all of it for each name. With a grid of 200 cells that
is half a second a stage, four minutes in all, to find that there is nothing to do.

``dvc status A B C`` also reads dvc.yaml and dvc.lock anew for every address and refuses to answer at all while one of the stages is being
built; ``states`` says so of that one. It prints one JSON object on its last line: address to what DVC's own status of the stage
holds, or to the text ``busy``; stages in step are left out. Run it in the project's root. It imports nothing but DVC.
"""

import json
import os
import sys
from typing import Any

from dvc.dependency import param
from dvc.exceptions import DvcException
from dvc.fs import LocalFileSystem
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo


def read_once() -> None:
    """From here on, a local parameter file that has not been written to since is not parsed again by this process, and a value with a
    plain name is looked up, not searched for."""
    read, load = param.read_param_file, param.load_path
    kept: dict[str, tuple[tuple[int, int, int], Any]] = {}

    def content(path: str, fs: Any, **options: Any) -> Any:
        if options or not isinstance(fs, LocalFileSystem):
            return load(path, fs, **options)
        found = os.stat(path)
        version = (found.st_mtime_ns, found.st_size, found.st_ino)
        if path not in kept or kept[path][0] != version:
            kept[path] = version, load(path, fs)
        return kept[path][1]

    def values(fs: Any, path: str, key_paths: list[str] | None = None, flatten: bool = False, **options: Any) -> Any:
        if flatten and key_paths and not options:
            config = content(path, fs)
            found = {name: _at(config, name.split(".")) for name in key_paths}
            if not any(value is _ABSENT for value in found.values()):
                return found
        return read(fs, path, key_paths, flatten, **options)

    param.load_path, param.read_param_file = content, values


_ABSENT = object()


def _at(config: Any, parts: list[str]) -> Any:
    """The value below nested mappings; ``_ABSENT`` where DVC has to say what the name means (lists, patterns, names with dots)."""
    for part in parts:
        if not isinstance(config, dict) or part not in config:
            return _ABSENT
        config = config[part]
    return config


def states(addresses: list[str]) -> dict[str, Any]:
    """Address to DVC's list of changes; stages in step are left out."""
    found: dict[str, Any] = {}
    with Repo(".", _wait_for_lock=True) as repo, lock_repo(repo):
        stages = {stage.addressing: stage for stage in repo.index.stages}
        for address in addresses:
            if address not in stages:
                found[address] = ["no longer in dvc.yaml"]
                continue
            try:
                found |= stages[address].status()
            except LockError:
                found[address] = "busy"
    return found


def main(words: list[str]) -> int:
    """``states`` is answered here, everything else by DVC."""
    read_once()
    if words[:1] != ["states"]:
        from dvc.cli import main as dvc

        return int(dvc(words))
    try:
        print(json.dumps(states(words[1:])))
    except DvcException as error:
        sys.exit(f"ERROR: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
