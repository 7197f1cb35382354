"""Small images with nested regions that two entries find, in the layout of ``uss recommend``."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from uss_dagster.annotation.entries import Entries
from uss_dagster.annotation.start import make_workbench
from uss_dagster.artifacts.tables import regions_to_table
from uss_dagster.regions import Regions, rle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uss_dagster.annotation.workbench import Workbench

HEIGHT, WIDTH = 120, 160


def fields() -> np.ndarray:
    """Int (H, W): sky 0, field 1, a house 2 with a door 3, a tree 4."""
    labels = np.zeros((HEIGHT, WIDTH), np.int64)
    labels[70:] = 1
    labels[30:100, 20:80] = 2
    labels[60:100, 40:55] = 3
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    labels[np.hypot(rows - 50, columns - 120) < 25] = 4
    return labels


def good_tree(labels: np.ndarray) -> Regions:
    """The image, above sky, field, house with its walls and its door, tree."""
    leaf = np.array([1, 2, 4, 5, 6])[labels]
    return Regions.from_tree(leaf, [0, 0, 0, 0, 3, 3, 0], level=[3.0, 0, 0, 2, 0, 0, 0])


def poor_tree(labels: np.ndarray) -> Regions:
    """The image above sky with tree, and field with house; shifted by some pixels."""
    shifted = np.roll(np.isin(labels, (1, 2, 3)), 6, axis=1)
    return Regions.from_tree(np.where(shifted, 2, 1), [0, 0, 0], level=[1.0, 0, 0])


def make_run(folder: Path, ids: list[str], poor: str = "poor", good: str = "good") -> Path:
    """A folder of two entries on some images."""
    labels = fields()
    for entry, tree in ((good, good_tree), (poor, poor_tree)):
        place = folder / "entries" / entry
        place.mkdir(parents=True)
        tables = [regions_to_table(image_id, tree(np.roll(labels, 3 * number, axis=1))) for number, image_id in enumerate(ids)]
        pq.write_table(pa.concat_tables(tables), place / "regions.parquet")
    pq.write_table(pa.table({"rank": [2, 1], "entry": [poor, good]}), folder / "ranking.parquet")
    return folder


def make_photos(folder: Path, ids: list[str]) -> Path:
    folder.mkdir()
    colours = np.array([(90, 150, 230), (110, 180, 90), (190, 120, 90), (90, 50, 40), (30, 110, 50)], np.uint8)
    for number, image_id in enumerate(ids):
        Image.fromarray(colours[np.roll(fields(), 3 * number, axis=1)]).save(folder / f"{image_id}.png")
    return folder


def make_bench(folder: Path, ids: list[str], out: str = "annotations.json", classes: tuple[str, ...] = ()) -> Workbench:
    photos = folder / "photos" if (folder / "photos").exists() else make_photos(folder / "photos", ids)
    run = folder / "run" if (folder / "run").exists() else make_run(folder / "run", ids)
    return make_workbench([photos], Entries.open(run), folder / out, classes, 0.01, print)


def code_of(mask: np.ndarray) -> bytes:
    return rle.encode(mask[None])[0]


def runs_of(mask: np.ndarray) -> list[int]:
    return rle.runs(code_of(mask)).tolist()


@contextmanager
def served(bench: Workbench) -> Iterator[int]:
    """The port on which the page is served."""
    from uss_dagster.annotation.page import listen, make_server

    listener = listen(0)
    server = make_server(bench, listener)
    thread = Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
