"""Where the pictures of a curated set lie: a note beside the set, from the set, which no hash includes."""

from __future__ import annotations

import json
import os
from pathlib import Path

from uss_dagster.files import read_json, write_whole

NOTE = Path(".curate") / "pictures.json"
"""In the set's private folder: the same pictures give the same set, wherever they lie."""


def note_picture_folder(curated: Path, pictures: Path) -> None:
    """Write down the folder that the file names of a set start from. curated: the folder of the set."""
    folder = os.path.relpath(pictures.resolve(), curated.resolve())
    write_whole(curated / NOTE, json.dumps({"folder": Path(folder).as_posix()}) + "\n")


def noted_picture_folder(curated: Path) -> Path | None:
    """The folder that was written down; None where there is no note. It need not exist any more."""
    folder = read_json(curated / NOTE).get("folder")
    return Path(os.path.normpath(curated.resolve() / folder)) if isinstance(folder, str) else None
