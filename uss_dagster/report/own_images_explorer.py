"""A person's own pictures in the hierarchy explorer.

Belongs here: which of them it shows, and reading their regions at the size it draws. Does not belong here: the explorer
(``explorer``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from uss_dagster.artifacts.images import evenly_spaced
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import regions_from_table
from uss_dagster.drawing import shrunk
from uss_dagster.errors import UsageError
from uss_dagster.files import remove
from uss_dagster.regions import Regions
from uss_dagster.report.explorer import FOLDER, PAGE, SegmentedImage, is_page, shrunk_size, write

MOST = 48
"""Pictures shown; of more, these many evenly spaced in their ids."""


def explore(folder: Path, table: Path, ids: Collection[str], pixels: Callable[[str], np.ndarray], name: str, title: str) -> str:
    """Write ``explorer.html`` and ``explorer/`` into a folder, in place only when whole.

    Parameters
    ----------
    folder : Path
        Where the table lies.
    table : Path
        Parquet file with the regions of all pictures.
    ids : collection of str
        The pictures.
    pixels : callable
        Picture to its pixels, uint8 (H, W, 3).
    name, title : str
        Of what made the regions.

    Returns
    -------
    str
        Of how many pictures, in words, if not of all; else empty.
    """
    sample = evenly_spaced(sorted(ids), MOST)
    put_in_place(folder, _segmented_images(table, sample, pixels, name), {name: title})
    return f" of {len(sample)} of the {len(ids)} pictures" if len(sample) < len(ids) else ""


def put_in_place(folder: Path, images: Iterable[SegmentedImage], titles: Mapping[str, str]) -> None:
    """Write ``explorer.html`` and ``explorer/`` into a folder, in place only when whole; parameters as in ``explorer.write``."""
    partial = folder / f".{os.getpid()}.explorer.partial"
    try:
        write(partial, images, titles)
        os.replace(partial / PAGE, folder / PAGE)  # the page first: by it the folder is recognised as an explorer's
        remove(folder / FOLDER)
        os.replace(partial / FOLDER, folder / FOLDER)
    finally:
        remove(partial)


def check_place(out: Path) -> None:
    """Refuse a folder where a person's own files have the names that the explorer's would get."""
    for name in (PAGE, FOLDER):
        if (out / name).exists() and not is_page(out / PAGE):
            raise UsageError(
                f"{out / name} is there already, and no earlier run wrote it. Choose another folder with --out; nothing was changed."
            )


def segmented_image(image_id: str, pixels: np.ndarray, regions: Regions, name: str) -> SegmentedImage:
    """A picture, uint8 (H, W, 3), with its regions, both at the size that the page draws. name: of what made the regions."""
    shape = shrunk_size(pixels.shape)
    height, width = pixels.shape[:2]
    return SegmentedImage("Pictures", image_id, shrunk(pixels, max(shape)), [], {name: regions.resized(*shape)}, size=(height, width))


def _segmented_images(table: Path, ids: list[str], pixels: Callable[[str], np.ndarray], name: str) -> Iterator[SegmentedImage]:
    for image_id in ids:
        rows = pq.read_table(table, columns=REGIONS.names, filters=[("image_id", "==", image_id)])
        yield segmented_image(image_id, pixels(image_id), regions_from_table(rows), name)
