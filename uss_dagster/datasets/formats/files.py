"""Finding the files that an adapter reads, in any of the layouts in which people keep them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from uss_dagster.datasets.base import DatasetSpec, mirror_folder, need_mirror
from uss_dagster.errors import BadData


def find(spec: DatasetSpec, places: Iterable[str], names: Sequence[str] = ()) -> Path:
    """The first of several places of a dataset that exists.

    Parameters
    ----------
    spec : DatasetSpec
        The dataset; its ``get_it`` is part of the error.
    places : iterable of str
        Paths below the dataset's folder, best first.
    names : sequence of str
        Folders of the mirror to look in, best first. Default: those of the spec.

    Raises
    ------
    Unavailable
        The mirror has none of the folders.
    BadData
        None of the folders has any of the places.
    """
    places = list(places)
    names = names or spec.mirrors or (spec.name,)
    folders = [folder for folder in map(mirror_folder, names) if folder is not None] or [need_mirror(names[0], spec.get_it)]
    for folder in folders:
        for place in places:
            if (folder / place).exists():
                return folder / place
    verb = "hold" if len(folders) > 1 else "holds"
    raise BadData(f"{' nor '.join(map(str, folders))} {verb} none of {', '.join(places)}. {spec.get_it}")


def read_picture(path: Path, spec: DatasetSpec) -> bytes:
    """The bytes of an image file that a list or an annotation names."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BadData(f"{path} is missing, though the dataset lists it. {spec.get_it}") from None


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
