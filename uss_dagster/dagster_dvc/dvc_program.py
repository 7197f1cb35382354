"""DVC's command line, which writes dvc.lock so that it exists only when whole, with its stages by name.

    python dvc_program.py WORDS …

DVC itself empties the file and then writes it, so a full disk or a kill in between leaves half of it; and it appends stages in an order that
depends on PYTHONHASHSEED. Imports DVC, its file systems and nothing else.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def modify_yaml(path: str, fs: object = None) -> Iterator[dict[str, dict[str, object]]]:
    """The content of a YAML file, which is written when the block ends; in place of DVC's function of this name."""
    from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

    content: dict[str, dict[str, object]] = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            content = parse_yaml_for_update(file.read(), path)
    yield content
    stages = content.get("stages")
    if os.path.basename(path) == "dvc.lock" and stages and list(stages) != sorted(stages):
        content["stages"] = {name: stages[name] for name in sorted(stages)}
    partial = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(dumps_yaml(content))
        os.replace(partial, path)
    finally:
        if os.path.lexists(partial):
            os.unlink(partial)


def separate_stores() -> None:
    """Let fsspec give each file system in memory a store of its own, by its own setting.

    To hash a folder, DVC writes the list of its files to such a file system. By default all of these share one store, which keeps every list,
    and fsspec looks at each path in it to find one: each stage of a long run would cost more than the one before.
    """
    from fsspec.config import conf

    conf["memory"] = {**conf.get("memory", {}), "global_store": False}


def main() -> int:
    """Run DVC with the words of the command line; its exit code."""
    separate_stores()
    import dvc.dvcfile
    from dvc.cli import main as run

    dvc.dvcfile.modify_yaml = modify_yaml
    sys.argv[0] = "dvc"  # what DVC's locks say of this process
    return int(run(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
