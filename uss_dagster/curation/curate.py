"""A pool of masks → a training set: which images and masks stay, why the others do not, and everything written in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco

from uss_dagster.artifacts.tables import RowsWriter, write_table
from uss_dagster.curation import drift
from uss_dagster.curation.duplicates import CELLS, groups_of, near_duplicates
from uss_dagster.curation.export import Exporter
from uss_dagster.curation.human import CROWD, HumanMasks, Labels, best_human_iou, holders
from uss_dagster.curation.measures import boundary_connectivity
from uss_dagster.curation.params import CurateParams
from uss_dagster.curation.pooling import PLAIN_PROBLEM
from uss_dagster.curation.splits import split_of
from uss_dagster.curation.tables import HUMAN, IMAGES, MEASURES, POOL, Pool
from uss_dagster.errors import BadData
from uss_dagster.regions import rle

GROUP_ROWS = 8192
"""Of the table of masks: rows a row group, which is what is held in memory at a time."""

STATUSES = {
    "kept": "in the set",
    "broken": "could not be read or segmented",
    "plain": "shows nothing",
    "duplicate": "shows the same as another one",
    "empty": "no mask was good enough",
    "thin": "its masks hold too little of it",
    "failed": "its human masks could not be used",
}


@dataclass
class Curated:
    """What was written. ids: of kept images, ascending. failures: image id → why its human masks could not be used."""

    summary: dict[str, Any]
    ids: list[str]
    failures: dict[str, str]


def curate(
    pool: Pool, labels: Labels, params: CurateParams, folder: Path, info: Mapping[str, Any], advance: Callable[[int], None] = lambda n: None
) -> Curated:
    """Write ``masks.parquet``, ``images.parquet``, ``summary.json`` and the formats asked for into a folder that exists."""
    looks = pool.looks.to_pylist()
    status, reason, group = _sort_out(looks, params)
    split = _splits(looks, status, group, params)
    summary, failures = drift.Summary(), {}
    counts = np.zeros((len(looks), 3), np.int64)  # masks, human masks, dropped
    coverage = np.zeros(len(looks), np.float32)
    place = {look["image_id"]: i for i, look in enumerate(looks)}
    table, exporter = RowsWriter(folder / "masks.parquet", POOL, GROUP_ROWS), Exporter(folder, params.formats, info)
    try:
        for i, rows in _every_image(pool, looks, place):
            advance(1)
            if status[i] != "kept":
                continue
            look = looks[i]
            shape = (int(look["height"]), int(look["width"]))
            try:
                human = labels(look["image_id"], shape)
            except BadData as error:
                status[i], reason[i], split[i] = "failed", str(error), ""
                failures[look["image_id"]] = str(error)
                continue
            rows, dropped = filtered(rows, human, shape, params)
            merged = with_human(look["image_id"], rows, human, shape)
            counts[i] = merged.num_rows, len(human.codes), sum(dropped.values())
            for why, number in dropped.items():
                summary.count("dropped", why, number)
            coverage[i] = _coverage(merged, shape)
            if not merged.num_rows:
                status[i], reason[i], split[i] = "empty", STATUSES["empty"], ""
            elif coverage[i] < params.limit("min_coverage"):
                status[i], reason[i], split[i] = "thin", f"its masks hold {coverage[i]:.1%} of it", ""
            if status[i] != "kept":
                counts[i, :2] = 0
                continue
            table.add(merged)
            exporter.add(look, split[i], merged)
            _describe(summary, merged, float(coverage[i]), split[i])
    finally:
        table.close()
        exporter.close()
    for word in status:
        summary.count("status", word)
    _write_images(folder, looks, (status, reason, [looks[g]["image_id"] for g in group], split), counts, coverage)
    plain = summary.to_dict()
    (folder / "summary.json").write_text(drift.summary_text(plain), encoding="utf-8")
    return Curated(plain, [look["image_id"] for look, word in zip(looks, status, strict=True) if word == "kept"], failures)


def filtered(rows: pa.Table, human: HumanMasks, shape: tuple[int, int], params: CurateParams) -> tuple[pa.Table, dict[str, int]]:
    """The masks of one image that are good enough, the best of them, and of those the ones far enough from human masks; and how many were dropped for
    what. Human masks take the place of found ones: the best are chosen before it is looked at what people drew."""
    area = rows["area"].to_numpy()
    low = {
        "too small": area < params.limit("min_area"),
        "too large": area > params.limit("max_area") * shape[0] * shape[1],
    }
    for name, words in (
        ("quality", "of low quality"),
        ("refined_iou", "changed by refinement"),
        ("stability", "not found in other views"),
    ):
        low[words] = rows[name].to_numpy() < params.limit(f"min_{name}")  # false for NaN: what was not measured passes
    gone, counts = np.zeros(rows.num_rows, bool), {}

    def drop(marked: np.ndarray, why: str) -> None:
        if number := int(np.count_nonzero(marked & ~gone)):
            counts[why] = number
        gone[marked] = True

    for why, marked in low.items():
        drop(marked, why)
    stay = np.flatnonzero(~gone)
    if len(stay) > params.most:
        beyond = np.zeros(rows.num_rows, bool)
        beyond[stay[np.lexsort((stay, -worth(rows, shape)[stay]))[params.most :]]] = True
        drop(beyond, "beyond the number wanted")
    if human.codes:
        drop(best_human_iou(rows["rle"].to_pylist(), human.codes, shape) > params.tau, "overlaps a human mask")
    return _selected(rows, np.flatnonzero(~gone)), counts


def worth(rows: pa.Table, shape: tuple[int, int]) -> np.ndarray:
    """How much is lost with each mask of an image of ``shape``, float64 (K,): quality · score · exp(-c² / 2).

    Quality says how well a border lies, score (as a share of the entry's highest in the image, 1 without one) whether a region stands by itself, and
    the boundary connectivity c whether it is background. Stability is a limit and no part of this: it would cost small masks most.
    """
    quality, score = (rows[name].to_numpy().astype(np.float64) for name in ("quality", "score"))
    score = np.nan_to_num(score, nan=1.0)
    entries, place = np.unique(rows["entry"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    highest = np.zeros(len(entries))
    np.maximum.at(highest, place, score)
    alone = score / np.where(highest > 0, highest, 1.0)[place]
    return np.nan_to_num(quality, nan=0.0) * alone * np.exp(-(boundary_connectivity(rows["rle"].to_pylist(), shape) ** 2) / 2)


def _selected(rows: pa.Table, stay: np.ndarray) -> pa.Table:
    """Some rows of an image, renumbered; children move up to what is left above them."""
    new = np.full(rows.num_rows + 1, -1, np.int64)  # the last entry serves parent -1
    new[stay] = np.arange(len(stay))
    nearest = np.full(rows.num_rows + 1, -1, np.int64)
    for region, above in enumerate(rows["parent"].to_pylist()):
        nearest[region] = new[above] if above < 0 or new[above] >= 0 else nearest[above]
    return _renumbered(rows.take(stay), nearest[stay])


def _renumbered(rows: pa.Table, parent: np.ndarray) -> pa.Table:
    depth = np.zeros(len(parent), np.int32)
    for region, above in enumerate(parent.tolist()):
        depth[region] = depth[above] + 1 if above >= 0 else 0
    for name, values in (("region", np.arange(len(parent))), ("parent", parent), ("depth", depth)):
        rows = rows.set_column(rows.column_names.index(name), POOL.field(name), pa.array(values.astype(np.int32)))
    return rows


def with_human(image_id: str, rows: pa.Table, human: HumanMasks, shape: tuple[int, int]) -> pa.Table:
    """Found and human masks of one image in one hierarchy: larger ones first, each below the smallest that holds it whole."""
    if not human.codes:
        return rows
    coded = [{"size": list(shape), "counts": code} for code in human.codes]
    k = len(human.codes)
    boxes = coco.toBbox(coded).astype(np.int32)
    columns = {
        "image_id": pa.array([image_id] * k, pa.string()),
        **{name: pa.array(np.zeros(k, np.int32)) for name in ("region", "parent", "depth")},
        "area": pa.array(rle.areas(human.codes, *shape)),
        "bbox": pa.FixedSizeListArray.from_arrays(pa.array(boxes.ravel()), 4),
        "rle": pa.array(list(human.codes), pa.binary()),
        "height": pa.array(np.full(k, shape[0], np.int32)),
        "width": pa.array(np.full(k, shape[1], np.int32)),
        "level": pa.array(np.full(k, np.nan, np.float32), from_pandas=False),
        "score": pa.array(np.ones(k, np.float32)),
        "label": pa.array(np.array(human.labels, np.int32)),
        "source": pa.array([CROWD if crowd else "gt" for crowd in human.crowd], pa.string()),
        "entry": pa.array([HUMAN] * k, pa.string()),
        **{name: pa.array(np.full(k, np.nan, np.float32), from_pandas=False) for name in MEASURES},
    }
    together = pa.concat_tables([pa.table(columns, schema=POOL), rows.cast(POOL)])
    order = np.lexsort((np.arange(together.num_rows), -together["area"].to_numpy()))
    together = together.take(order)
    return _renumbered(together, holders(together["rle"].to_pylist(), shape))


def _sort_out(looks: list[dict[str, Any]], params: CurateParams) -> tuple[list[str], list[str], np.ndarray]:
    """Status and reason of each image before its masks are looked at, and the place of the image that stands for it."""
    status = ["kept" if not look["problem"] else "plain" if look["problem"] == PLAIN_PROBLEM else "broken" for look in looks]
    reason = [look["problem"] for look in looks]
    group = np.arange(len(looks))
    fine = np.flatnonzero([word == "kept" for word in status])
    first = groups_of(pairs_of([looks[i] for i in fine], params), len(fine))
    together: dict[int, list[int]] = {}
    for i, head in zip(fine.tolist(), first.tolist(), strict=True):
        together.setdefault(head, []).append(i)
    for members in together.values():
        # the largest picture stands for its group, of equal ones the first by id
        stands = min(members, key=lambda i: (-looks[i]["height"] * looks[i]["width"], i))
        group[members] = stands
        if params.duplicates == "aside":
            for i in members:
                if i != stands:
                    status[i], reason[i] = "duplicate", f"it shows the same as '{looks[stands]['image_id']}'"
    return status, reason, group


def pairs_of(looks: list[dict[str, Any]], params: CurateParams) -> np.ndarray:
    """Pairs of places of near-duplicates among images that can be used."""
    colours = np.frombuffer(b"".join(look["colours"] for look in looks), np.uint8).reshape(-1, CELLS, CELLS, 3)
    hashes, mirrored = (np.array([look[name] for look in looks], np.uint64) for name in ("hash", "mirrored"))
    return near_duplicates(hashes, mirrored, colours, params.radius, params.colours)


def _splits(looks: list[dict[str, Any]], status: list[str], group: np.ndarray, params: CurateParams) -> list[str]:
    identity: dict[int, str] = {}
    for i, look in enumerate(looks):
        head = int(group[i])
        identity[head] = min(identity.get(head, look["sha256"]), look["sha256"])
    return [split_of(identity[int(group[i])], params.seed, params.splits) if word == "kept" else "" for i, word in enumerate(status)]


def _every_image(pool: Pool, looks: list[dict[str, Any]], place: Mapping[str, int]) -> Any:
    """(place, rows) of every image in order, those without a found mask with no rows."""
    none = POOL.empty_table()
    due = 0
    for image_id, rows in pool.masks():
        i = place[image_id]
        yield from ((j, none) for j in range(due, i))
        yield i, rows
        due = i + 1
    yield from ((j, none) for j in range(due, len(looks)))


def _coverage(rows: pa.Table, shape: tuple[int, int]) -> float:
    if not rows.num_rows:
        return 0.0
    tops = [code for code, parent in zip(rows["rle"].to_pylist(), rows["parent"].to_pylist(), strict=True) if parent < 0]
    return float(coco.area(coco.merge([{"size": list(shape), "counts": code} for code in tops]))) / (shape[0] * shape[1])


def _describe(summary: drift.Summary, rows: pa.Table, coverage: float, split: str) -> None:
    found = rows["entry"].to_numpy(zero_copy_only=False) != HUMAN
    summary.masks += rows.num_rows
    summary.human_masks += int(np.count_nonzero(~found))
    summary.coverage += coverage
    summary.count("splits", split)
    for name in rows["entry"].to_pylist():
        summary.count("sources", name)
    summary.add("area", rows["area"].to_numpy())
    for name in ("quality", "score"):
        summary.add(name, rows[name].to_numpy()[found])
    summary.add("masks", [rows.num_rows])
    summary.add("coverage", [coverage])


def _write_images(
    folder: Path,
    looks: list[dict[str, Any]],
    said: tuple[list[str], list[str], list[str], list[str]],
    counts: np.ndarray,
    coverage: np.ndarray,
) -> None:
    columns: dict[str, Any] = {name: [look[name] for look in looks] for name in ("image_id", "file_name", "sha256", "height", "width")}
    columns |= dict(zip(("status", "reason", "group", "split"), said, strict=True))
    columns |= {name: counts[:, c].tolist() for c, name in enumerate(("masks", "human_masks", "dropped"))}
    columns["coverage"] = coverage.tolist()
    write_table(folder / "images.parquet", pa.Table.from_pydict(columns, schema=IMAGES), IMAGES)
