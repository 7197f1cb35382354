"""DVC's command line, with a setting of fsspec.

    python dvc_program.py WORDS …

Imports DVC, its file systems and nothing else.
"""

import sys


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
    from dvc.cli import main as run

    sys.argv[0] = "dvc"  # what DVC's locks say of this process
    return int(run(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
