"""Masks of one image, from one method or several, as one pool: no duplicates, one hierarchy, each mask measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from uss_dagster.artifacts.tables import regions_to_table
from uss_dagster.curation.duplicates import look_at
from uss_dagster.curation.measures import measure
from uss_dagster.curation.stability import check_views
from uss_dagster.curation.tables import LOOKS, MEASURES, POOL
from uss_dagster.errors import BadData
from uss_dagster.graphs.mask_nms import mask_nms
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class PoolParams:
    """iou: of masks that overlap more, the larger stays (UnSAM: 0.9). most: masks an image, the largest ones of the best score.
    refine: measure how far a guided filter would change each mask. views: 'flip' and scales such as '0.75' in which the method is
    run again to see whether it finds a mask again; each costs as much as the method itself."""

    iou: float = 0.9
    most: int = 1000
    refine: bool = True
    views: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.iou <= 1 or self.most < 1:
            raise ValueError(f"iou is {self.iou} and most {self.most}; expected above 0 to 1, and 1 or more.")
        check_views(self.views)


@dataclass(frozen=True)
class Family:
    """The masks that one entry found. stability: float32 (K,), NaN where it was not looked at."""

    entry: str
    regions: Regions
    stability: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))


def pool_image(image_id: str, image: np.ndarray, families: Sequence[Family], params: PoolParams) -> pa.Table:
    """The pool of one image, schema ``POOL``: larger masks first, each below the smallest one that holds it whole.

    image: uint8 (H, W, 3). Without a mask the table has no rows.
    """
    together = joined([family.regions for family in families])
    if together.shape != image.shape[:2]:
        raise BadData(f"Image '{image_id}' is {image.shape[:2]} (height, width), its masks are over {together.shape}.")
    stable = np.concatenate([f.stability if len(f.stability) else np.full(len(f.regions), np.nan) for f in families])
    entries = np.repeat([family.entry for family in families], [len(family.regions) for family in families])
    some = np.flatnonzero(together.area > 0)
    stay = some[mask_nms(_chosen(together, some), together.area[some].astype(np.float64), params.iou)] if len(some) else some
    if len(stay) > params.most:
        stay = stay[np.lexsort((np.arange(len(stay)), -together.score[stay]))[: params.most]]
    stay = stay[np.lexsort((stay, -together.area[stay]))]
    regions = nested(_chosen(together, stay))
    found = measure(image, regions, params.refine)
    found["stability"] = stable[stay]
    columns = [pa.array(entries[stay].astype(str).tolist(), pa.string()), *(pa.array(found[m].astype(np.float32)) for m in MEASURES)]
    rows = regions_to_table(image_id, regions)
    return pa.table([*rows.columns, *columns], schema=POOL)


def joined(families: Sequence[Regions]) -> Regions:
    """Several families over one image as one, in order, without parents."""
    first = families[0]
    atoms, members = first.atoms, first.members
    for other in families[1:]:
        if other.shape != first.shape:
            raise BadData(f"Masks of one image must have one size, got {first.shape} and {other.shape} (height, width).")
        width = other.members.shape[1]
        pairs, place = np.unique(atoms.astype(np.int64) * width + other.atoms, return_inverse=True)
        members = np.concatenate([members[:, pairs // width], other.members[:, pairs % width]])
        atoms = place.reshape(first.shape).astype(np.int32)
    source = tuple(s for family in families for s in family.source)
    columns = {name: np.concatenate([getattr(family, name) for family in families]) for name in ("level", "score", "label")}
    return Regions(atoms, members, source=source, **columns)


def nested(regions: Regions) -> Regions:
    """The same regions, given from large to small, each with the smallest one before it that holds it whole as its parent."""
    held = regions.members.astype(np.float64)  # exact: areas are below 2⁵³
    inside = (held * regions.atom_area) @ held.T >= regions.area[None, :]
    inside &= np.tri(len(regions), k=-1, dtype=bool).T
    last = len(regions) - 1 - np.argmax(inside[::-1], axis=0) if len(regions) else np.zeros(0, np.int64)
    parent = np.where(inside.any(axis=0), last, -1) if len(regions) else last
    return Regions(
        regions.atoms, regions.members, parent, level=regions.level, score=regions.score, label=regions.label, source=regions.source
    )


def look_row(image_id: str, file_name: str, sha256: str, image: np.ndarray | None, problem: str = "") -> pa.Table:
    """The one row of an image in the table of looks; without pixels only the problem is known."""
    seen = look_at(image) if image is not None else None
    row = {
        "image_id": image_id,
        "file_name": file_name,
        "sha256": sha256,
        "height": image.shape[0] if image is not None else 0,
        "width": image.shape[1] if image is not None else 0,
        "hash": seen.hash if seen else 0,
        "mirrored": seen.mirrored if seen else 0,
        "colours": seen.colours.tobytes() if seen else b"",
        "problem": problem or (PLAIN_PROBLEM if seen and seen.plain else ""),
    }
    return pa.Table.from_pylist([row], schema=LOOKS)


PLAIN_PROBLEM = "it is of one colour"


def _chosen(regions: Regions, indices: np.ndarray) -> Regions:
    return Regions(
        regions.atoms,
        regions.members[indices],
        level=regions.level[indices],
        score=regions.score[indices],
        label=regions.label[indices],
        source=[regions.source[i] for i in indices],
    )
