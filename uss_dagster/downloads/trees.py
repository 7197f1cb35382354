"""Linking and merging folders of files without copying their content."""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from uss_dagster.downloads.archives import plain
from uss_dagster.errors import BadData


def link_tree(source: Path, target: Path) -> None:
    """Link every file of a folder into another one, copying where they lie on different disks.

    Symbolic links and special files inside are refused: they may lead anywhere.
    """
    for folder, folders, files in os.walk(source):
        inside = Path(folder).relative_to(source)
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise BadData(
                    f"{plain(str(path))} is a link or a special file, which is not taken over. Put the file itself there, "
                    "or set USS_MIRROR to the folder above the tree and use it as it is."
                )
        (target / inside).mkdir(parents=True, exist_ok=True)
        for name in files:
            link_file(Path(folder, name), target / inside / name)


def link_file(source: Path, target: Path) -> None:
    """Make a hard link, or a copy where the file system allows none."""
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copyfile(source, target)


def merge_tree(source: Path, target: Path, say: Callable[[str], None]) -> None:
    """Move the files of a folder into another one. A file that is there already stays; ``say`` is told where the two differ."""
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            merge_tree(entry, place, say)
        elif not place.exists():
            os.replace(entry, place)
        elif entry.is_dir() or place.is_dir() or not filecmp.cmp(entry, place, shallow=False):
            say(f"note: '{plain(entry.name)}' differs between two archives; the first one's is kept.")
