"""``dvc`` with file systems in memory that share no files: what ``DvcRunner`` starts in place of ``python -m dvc``.

To hash a folder, DVC writes the list of its files to a file system in memory. By default all of these share one store, which keeps every
list, and fsspec looks at each path in it to find one. So each stage of a long run would cost more than the one before.
"""

from __future__ import annotations

import sys


def separate_stores() -> None:
    """Let fsspec give each file system in memory a store of its own, in this process."""
    from fsspec.config import conf

    conf["memory"] = {**conf.get("memory", {}), "global_store": False}


def main() -> None:
    """Run dvc with the words of the command line; exit with its code."""
    separate_stores()
    from dvc.cli import main as dvc

    sys.argv[0] = "dvc"  # as DVC names this process to others that wait for it
    sys.exit(dvc(sys.argv[1:]))


if __name__ == "__main__":
    main()
