"""Finding what an adapter reads: the folder of an official layout among the places where people put it, lists of ids, limits."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from uss_dagster.datasets.base import mirror_folder, need_mirror
from uss_dagster.errors import BadData


def check_limit(limit: int | None) -> None:
    """For a parameter class: a limit is a number of images, or null for all."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}, expected at least 1, or null for all images.")


def find(names: Sequence[str], places: Iterable[str], get_it: str) -> Path:
    """The first of ``places`` (paths in a dataset's folder) that exists in a folder of the mirror called one of ``names``, best first."""
    places = list(places)
    folders = [folder for folder in map(mirror_folder, names) if folder is not None] or [need_mirror(names[0], get_it)]
    for folder in folders:
        for place in places:
            if (folder / place).exists():
                return folder / place
    where = " nor ".join(map(str, folders))
    raise BadData(f"{where} {'hold' if len(folders) > 1 else 'holds'} none of {', '.join(places)}. {get_it}")


def read_picture(path: Path, get_it: str) -> bytes:
    """The bytes of an image file that a list or an annotation names."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BadData(f"{path} is missing, though the dataset lists it. {get_it}") from None


def read_ids(path: Path) -> list[str]:
    """Image ids of a list, ascending: the file stem of the first word of each line. No id may stand twice."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise BadData(f"{path} is not a list of ids, but something else than text ({error.reason} at byte {error.start}).") from None
    ids = sorted(Path(line.split()[0]).stem for line in lines if line.strip())
    twice = [a for a, b in itertools.pairwise(ids) if a == b]
    if twice:
        raise BadData(f"{path} lists image {twice[0]} twice; each image is listed once.")
    return ids
