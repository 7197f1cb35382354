"""A person's own pictures in the hierarchy explorer.

Belongs here: which of them it shows, and reading their regions at the size it draws. Does not belong here: the explorer
(``explorer``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uss_dagster.artifacts.images import evenly_spaced
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import regions_from_table
from uss_dagster.drawing import shrunk
from uss_dagster.errors import UsageError
from uss_dagster.files import remove
from uss_dagster.pixels import nearest_cells
from uss_dagster.regions import Regions, rle
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
    partial = folder / f".{os.getpid()}.explorer.partial"
    try:
        write(partial, _segmented_images(table, sample, pixels, name), {name: title})
        os.replace(partial / PAGE, folder / PAGE)  # the page first: by it the folder is recognised as an explorer's
        remove(folder / FOLDER)
        os.replace(partial / FOLDER, folder / FOLDER)
    finally:
        remove(partial)
    return f" of {len(sample)} of the {len(ids)} pictures" if len(sample) < len(ids) else ""


def check_place(out: Path) -> None:
    """Refuse a folder where a person's own files have the names that the explorer's would get."""
    for name in (PAGE, FOLDER):
        if (out / name).exists() and not is_page(out / PAGE):
            raise UsageError(
                f"{out / name} is there already, and no earlier run wrote it. Choose another folder with --out; nothing was changed."
            )


def _segmented_images(table: Path, ids: list[str], pixels: Callable[[str], np.ndarray], name: str) -> Iterator[SegmentedImage]:
    for image_id in ids:  # one by one: the masks of a large picture may take as much memory as all the rest
        rows = pq.read_table(table, columns=REGIONS.names, filters=[("image_id", "==", image_id)])
        image = pixels(image_id)
        shape = shrunk_size(image.shape)
        small = shrunk(image, max(shape))
        yield SegmentedImage("Pictures", image_id, small, [], {name: reduced(rows, shape)}, size=(image.shape[0], image.shape[1]))


def reduced(rows: pa.Table, shape: tuple[int, int]) -> Regions:
    """The regions of one picture on a smaller grid, as ``Regions.resized`` would have them, from their runs: no mask of the full size."""
    height, width = rows["height"][0].as_py(), rows["width"][0].as_py()
    if (height, width) == shape:
        return regions_from_table(rows)
    # Codes run down the columns, and so do the pixels that the smaller grid takes.
    taken = (nearest_cells(shape[1], width)[:, None] * height + nearest_cells(shape[0], height)).ravel()
    masks = _SampledMasks(rows["rle"].to_pylist(), taken, shape)
    return Regions.from_masks(
        masks,
        rows["parent"].to_numpy(),
        shape=shape,
        level=rows["level"].to_numpy(),
        score=rows["score"].to_numpy(),
        label=rows["label"].to_numpy(),
        source=rows["source"].to_pylist(),
    )


class _SampledMasks(Sequence[np.ndarray]):
    """The masks of codes at ascending places, each computed when asked for: thousands of them need not fit into memory."""

    def __init__(self, codes: list[bytes], taken: np.ndarray, shape: tuple[int, int]) -> None:
        self.codes, self.taken, self.shape = codes, taken, shape

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: Any) -> Any:
        lengths = rle.runs(self.codes[index])
        ends = np.searchsorted(self.taken, np.cumsum(lengths))
        return np.repeat(np.arange(len(ends)) % 2 == 1, np.diff(ends, prepend=0)).reshape(self.shape[::-1]).T
