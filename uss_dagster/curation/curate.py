"""A mask pool → the tables and json files of a training set: which images and masks stay, and why the others do not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco

from uss_dagster.artifacts.tables import RowsWriter, write_table
from uss_dagster.curation import drift
from uss_dagster.curation.duplicates import CELLS, groups_of, near_duplicates
from uss_dagster.curation.export import exporter
from uss_dagster.curation.filters import filter_masks
from uss_dagster.curation.human import HumanMasks, Labels, with_human
from uss_dagster.curation.mask_pool import ONE_COLOUR
from uss_dagster.curation.params import CurateParams, Description
from uss_dagster.curation.splits import split_of
from uss_dagster.curation.tables import HUMAN, IMAGES, MASKS, MaskPool, SourceImage
from uss_dagster.errors import BadData
from uss_dagster.regions.rle import coco_codes

GROUP_ROWS = 8192
"""Rows a row group of ``masks.parquet``; one row group is in memory at a time."""

STATUSES = {
    "kept": "in the set",
    "broken": "could not be read or segmented",
    "plain": "shows nothing",
    "duplicate": "shows the same as another one",
    "empty": "no mask was good enough",
    "thin": "its masks hold too little of it",
    "failed": "its human masks could not be used",
}


@dataclass(frozen=True)
class CurateResult:
    """What ``curate`` wrote.

    Parameters
    ----------
    summary : SetSummary
    ids : list of str
        The kept images, ascending.
    failures : dict of str to str
        Image id → why its human masks could not be used.
    """

    summary: drift.SetSummary
    ids: list[str]
    failures: dict[str, str]


@dataclass(slots=True)
class ImageResult:
    """What became of one image; a row of ``IMAGES``, see there. representative: index of the image that stands for its near-duplicates."""

    source: SourceImage
    status: str
    reason: str
    representative: int
    split: str = ""
    masks: int = 0
    human_masks: int = 0
    dropped: int = 0
    coverage: np.float32 = np.float32(0)  # noqa: RUF009 - immutable

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.source["height"], self.source["width"]

    def set_aside(self, status: str, reason: str) -> None:
        """Take the image out of the set."""
        self.status, self.reason, self.split = status, reason, ""


def curate(
    pool: MaskPool,
    labels: Labels,
    params: CurateParams,
    folder: Path,
    description: Description,
    advance: Callable[[int], None] = lambda n: None,
) -> CurateResult:
    """Write ``masks.parquet``, ``images.parquet``, ``summary.json`` and the formats of ``params`` into a folder.

    Parameters
    ----------
    pool : MaskPool
    labels : callable
        Human masks, see ``human.Labels``.
    params : CurateParams
    folder : Path
        Exists and is empty.
    description : Description
    advance : callable, optional
        Called with the number of images that were finished.
    """
    results = classify_images(pool.images.to_pylist(), params)
    summary, failures = drift.Summary(), {}
    with (
        closing(RowsWriter(folder / "masks.parquet", MASKS, GROUP_ROWS)) as table,
        exporter(folder, params.formats, description) as export,
    ):
        for result, rows in _with_masks(results, pool):
            advance(1)
            if result.status != "kept":
                continue
            try:
                human = labels(result.source["image_id"], result.shape)
            except BadData as error:
                result.set_aside("failed", str(error))
                failures[result.source["image_id"]] = str(error)
                continue
            merged = _curate_image(result, rows, human, params, summary)
            if result.status == "kept":
                table.add(merged)
                export(result.source, result.split, merged)
                _summarise(summary, merged, float(result.coverage), result.split)
    summary.status.update(result.status for result in results)
    _write_images(folder / "images.parquet", results)
    plain = summary.to_dict()
    (folder / "summary.json").write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    return CurateResult(plain, [result.source["image_id"] for result in results if result.status == "kept"], failures)


def classify_images(images: Sequence[SourceImage], params: CurateParams) -> list[ImageResult]:
    """Status, group of near-duplicates and split of each image, before its masks are read."""
    results = [
        ImageResult(image, "kept" if not image["problem"] else "plain" if image["problem"] == ONE_COLOUR else "broken", image["problem"], i)
        for i, image in enumerate(images)
    ]
    usable = [i for i, result in enumerate(results) if result.status == "kept"]
    groups: dict[int, list[int]] = {}
    for i, first in zip(usable, groups_of(duplicate_pairs([images[i] for i in usable], params), len(usable)).tolist(), strict=True):
        groups.setdefault(first, []).append(i)
    for members in groups.values():
        # the largest image represents its group, of equal ones the first by id
        representative = min(members, key=lambda i: (-images[i]["height"] * images[i]["width"], i))
        split = split_of(min(images[i]["sha256"] for i in members), params.seed, params.splits)
        for i in members:
            results[i].representative, results[i].split = representative, split
            if params.duplicates == "aside" and i != representative:
                results[i].set_aside("duplicate", f"it shows the same as '{images[representative]['image_id']}'")
    return results


def duplicate_pairs(images: Sequence[SourceImage], params: CurateParams) -> np.ndarray:
    """Pairs of indices of near-duplicates, int64 (P, 2), among images that can be used."""
    colours = np.frombuffer(b"".join(image["colours"] for image in images), np.uint8).reshape(-1, CELLS, CELLS, 3)
    hashes = np.array([image["hash"] for image in images], np.uint64)
    mirrored = np.array([image["mirrored"] for image in images], np.uint64)
    return near_duplicates(hashes, mirrored, colours, params.radius, params.colours)


def _curate_image(result: ImageResult, rows: pa.Table, human: HumanMasks, params: CurateParams, summary: drift.Summary) -> pa.Table:
    """The masks that an image keeps; sets it aside if there are too few."""
    rows, dropped = filter_masks(rows, human, result.shape, params)
    merged = with_human(result.source["image_id"], rows, human, result.shape)
    result.dropped = sum(dropped.values())
    summary.dropped.update(dropped)
    result.coverage = np.float32(_coverage(merged, result.shape))
    if not merged.num_rows:
        result.set_aside("empty", STATUSES["empty"])
    elif result.coverage < params.limit("min_coverage"):
        result.set_aside("thin", f"its masks hold {result.coverage:.1%} of it")
    else:
        result.masks, result.human_masks = merged.num_rows, len(human.codes)
    return merged


def _with_masks(results: list[ImageResult], pool: MaskPool) -> Iterator[tuple[ImageResult, pa.Table]]:
    """Every image with its masks, in order; an image without masks has no rows."""
    masks = pool.masks()
    following = next(masks, None)
    for result in results:
        if following is not None and following[0] == result.source["image_id"]:
            yield result, following[1]
            following = next(masks, None)
        else:
            yield result, MASKS.empty_table()
    if following is not None:
        raise BadData(f"The mask pool has masks of image '{following[0]}', which is not among its images, or out of order.")


def _coverage(rows: pa.Table, shape: tuple[int, int]) -> float:
    if not rows.num_rows:
        return 0.0
    outermost = [code for code, parent in zip(rows["rle"].to_pylist(), rows["parent"].to_pylist(), strict=True) if parent < 0]
    return float(coco.area(coco.merge(coco_codes(outermost, shape)))) / (shape[0] * shape[1])


def _summarise(summary: drift.Summary, rows: pa.Table, coverage: float, split: str) -> None:
    by_method = rows["entry"].to_numpy(zero_copy_only=False) != HUMAN
    summary.masks += rows.num_rows
    summary.human_masks += int(np.count_nonzero(~by_method))
    summary.coverage += coverage
    summary.splits[split] += 1
    summary.sources.update(rows["entry"].to_pylist())
    summary.add("area", rows["area"].to_numpy())
    for name in ("quality", "score"):
        summary.add(name, rows[name].to_numpy()[by_method])
    summary.add("masks", [rows.num_rows])
    summary.add("coverage", [coverage])


def _write_images(path: Path, results: list[ImageResult]) -> None:
    own = ("status", "reason", "split", "masks", "human_masks", "dropped", "coverage")
    rows = [
        {**result.source, "group": results[result.representative].source["image_id"], **{name: getattr(result, name) for name in own}}
        for result in results
    ]
    write_table(path, pa.Table.from_pylist(rows, schema=IMAGES), IMAGES)
