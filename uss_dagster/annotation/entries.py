"""Regions of several entries on the same images: a folder with ``entries/NAME/regions.parquet`` and ``ranking.parquet``, the best entry first.

``uss recommend`` writes such a folder, and ``segment_entries`` makes one for ``uss annotate``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from uss_dagster.artifacts.image_files import decode, read_file
from uss_dagster.artifacts.mask_base import empty
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.shards import map_shards
from uss_dagster.artifacts.tables import image_ids, read_images, read_table, readable, regions_from_table, regions_to_table, write_table
from uss_dagster.errors import BadData, UsageError
from uss_dagster.files import make_folder, whole_file
from uss_dagster.hashing import sha256_of, sha256_of_json
from uss_dagster.own_images.files import ReadableSamples, process_count
from uss_dagster.own_images.region_files import ENTRIES, RANKING, TABLE
from uss_dagster.planning.fingerprints import fingerprint
from uss_dagster.regions import Regions
from uss_dagster.segmenter import Segmenter

LINE_EVERY = 10
"""A line is reported after so many images."""
RANKED = pa.schema([("rank", pa.int64()), ("entry", pa.string())])


@dataclass(frozen=True)
class Entries:
    """Regions of some entries.

    Parameters
    ----------
    folder : Path
        Holds ``entries`` and ``ranking.parquet``.
    names : tuple of str
        The entries, the best first.
    ids : frozenset of str
        The images for which one of them has regions.
    """

    folder: Path
    names: tuple[str, ...]
    ids: frozenset[str]

    @classmethod
    def open(cls, folder: Path) -> Entries:
        """The entries of a folder; those that its ranking does not name come last.

        Raises
        ------
        UsageError
            The folder has no entries.
        """
        present = sorted(path.parent.name for path in (folder / ENTRIES).glob(f"*/{TABLE}"))
        if not present:
            raise UsageError(f"{folder} has no {ENTRIES}/NAME/{TABLE}. Name a folder that `uss recommend` wrote.")
        ranked: list[str] = []
        if (folder / RANKING).exists():
            with readable(folder / RANKING, "Run `uss recommend` again."):
                table = pq.read_table(folder / RANKING, columns=["rank", "entry"])
            ranked = [str(entry) for entry in table.sort_by("rank")["entry"].to_pylist()]
        names = [*(name for name in dict.fromkeys(ranked) if name in present), *(name for name in present if name not in ranked)]
        ids = image_ids(*(folder / ENTRIES / name / TABLE for name in names))
        return cls(folder, tuple(names), frozenset(ids))

    def regions(self, entry: str, image_id: str, shape: tuple[int, int]) -> Regions:
        """The regions of an entry on an image of a shape (height, width); none where it has none.

        Raises
        ------
        BadData
            They are of another size.
        """
        rows = read_images(self.folder / ENTRIES / entry / TABLE, REGIONS, [image_id])
        if not rows.num_rows:
            return empty(shape, image_id)
        regions = regions_from_table(rows)
        if regions.shape != shape:
            raise BadData(
                f"Image '{image_id}' is {shape[0]}×{shape[1]}, the regions of '{entry}' are {regions.shape[0]}×{regions.shape[1]} "
                f"(height×width): {self.folder} is of other pictures."
            )
        return regions


def segment_entries(
    named: Sequence[tuple[str, Path]],
    segmenters: Mapping[str, Segmenter],
    folder: Path,
    report: Callable[[str], None],
    report_failure: Callable[[str], None],
) -> Entries:
    """Segment images with several methods. What an earlier call finished for the same image, method and parameters is used again.

    Parameters
    ----------
    named : sequence
        (id, file) of each image, ascending by id.
    segmenters : mapping
        Name of an entry → its method; the first is taken for the best.
    folder : Path
        Where the regions are written.
    report, report_failure : callable
        Called with lines for people.

    Raises
    ------
    BadData
        No image could be segmented.
    """
    make_folder(folder)
    for entry, segmenter in segmenters.items():
        fitted = segmenter.fit(ReadableSamples(list(named), segmenter))
        key = sha256_of_json([fitted.identity, fingerprint(fitted.modules())], 16)
        work = functools.partial(_rows_of, segmenter=fitted, folder=folder / "images" / key)
        report(f"{entry}: segmenting {len(named)} images")
        with whole_file(folder / ENTRIES / entry / TABLE) as partial, pq.ParquetWriter(partial, REGIONS, store_schema=False) as table:
            failures = []
            for number, rows in enumerate(map_shards(work, named, workers=process_count(fitted, len(named))), start=1):
                if isinstance(rows, str):
                    failures.append(rows)
                else:
                    table.write_table(rows.cast(REGIONS))
                if number % LINE_EVERY == 0:
                    report(f"{entry}: {number}/{len(named)}")
        for line in failures:
            report_failure(f"left out: {line}")
        if len(failures) == len(named):
            raise BadData(f"Method '{entry}' could segment none of the {len(named)} images.")
    ranking = pa.table({"rank": range(1, len(segmenters) + 1), "entry": list(segmenters)}, schema=RANKED)
    with whole_file(folder / RANKING) as partial:
        write_table(partial, ranking, RANKED)
    opened = Entries.open(folder)
    return Entries(folder, tuple(segmenters), opened.ids)


def _rows_of(named: tuple[str, Path], segmenter: Segmenter, folder: Path) -> pa.Table | str:
    """The rows of one image's regions, from an earlier call where it has them; or why there are none. Runs in a worker."""
    image_id, path = named
    try:
        data = read_file(path)
        file = folder / f"{sha256_of_json([image_id, sha256_of(data)], 32)}.parquet"
        if file.exists():
            return read_table(file, REGIONS)
        image = decode(data, str(path))
    except BadData as error:
        return str(error)
    regions = segmenter.segment_image(image_id, image)
    if not len(regions):
        return f"{path}: method '{segmenter.method}' found no region in it."
    rows = regions_to_table(image_id, regions)
    with whole_file(file) as partial:
        write_table(partial, rows, REGIONS)
    return rows
