"""Human masks beside found ones: the UnSAM+ merge (Wang, Yang & Darrell, NeurIPS 2024), and where human masks come from.

All human masks stay, and every found mask whose greatest IoU with any of them is at most τ = 0.02, the bound included. Found masks are
compared with human ones only; without human masks all stay. So what people left out is added, and so are parts below 2 % of what they drew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco

from uss_dagster.artifacts.mask_readers import CocoMasks
from uss_dagster.artifacts.tables import region_tables, regions_from_table, rows_by_image
from uss_dagster.errors import BadData, UsageError
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.regions.classes import BACKGROUND, IGNORE

CROWD = "crowd"


@dataclass(frozen=True)
class HumanMasks:
    """Human masks of one image: COCO codes, class labels (-1 for none), and which mark a crowd."""

    codes: tuple[bytes, ...] = ()
    labels: tuple[int, ...] = ()
    crowd: tuple[bool, ...] = ()


Labels = Callable[[str, tuple[int, int]], HumanMasks]
"""Image id and (height, width) → its human masks."""


def no_labels(image_id: str, shape: tuple[int, int]) -> HumanMasks:
    """Nobody drew anything."""
    return HumanMasks()


def best_human_iou(codes: Sequence[bytes], human: Sequence[bytes], shape: tuple[int, int]) -> np.ndarray:
    """Float64 (K,): the greatest IoU of each mask with any human one, 0 where there is none."""
    if not codes or not human:
        return np.zeros(len(codes))
    return np.asarray(coco.iou(_coded(codes, shape), _coded(human, shape), [0] * len(human))).max(axis=1)


def stays_beside_human(codes: Sequence[bytes], human: Sequence[bytes], shape: tuple[int, int], tau: float = 0.02) -> np.ndarray:
    """Bool (K,): the found masks that the merge keeps."""
    return best_human_iou(codes, human, shape) <= tau


def holders(codes: Sequence[bytes], shape: tuple[int, int]) -> np.ndarray:
    """Int (K,): for masks from large to small, the smallest one before it that holds it whole, or -1."""
    if not codes:
        return np.zeros(0, np.int64)
    coded = _coded(codes, shape)
    inside = np.asarray(coco.iou(coded, coded, [1] * len(coded))) >= 1  # [a, b]: the share of a that lies in b
    inside &= np.tri(len(codes), k=-1, dtype=bool)
    last = len(codes) - 1 - np.argmax(inside[:, ::-1], axis=1)
    return np.where(inside.any(axis=1), last, -1)


def labels_of_coco(path: Path) -> Labels:
    """Human masks from COCO json, by file name without its ending."""
    masks = CocoMasks(path)
    if not masks.named:
        raise BadData(f"{path} names no image files, so its masks cannot be matched with pictures. Add 'images' with 'file_name'.")
    known = set(masks.ids)

    def of(image_id: str, shape: tuple[int, int]) -> HumanMasks:
        if image_id not in known:
            return HumanMasks()
        return _human(masks.regions(image_id, shape), shape, image_id)

    of.ids = known  # type: ignore[attr-defined]
    return of


def labels_of_truth(folder: Path, kind: str) -> Labels:
    """Human masks from a dataset's own ground truth: its objects, or the regions of its foreground classes, whole and in parts."""
    if kind not in ("instances", "classes"):
        raise UsageError(f"Ground truth of kind '{kind}' holds no masks of objects to merge with; 'instances' or 'classes' does.")
    classes = folder / "classes.json"
    background = _background(ClassTree.from_json(classes.read_text(encoding="utf-8"))) if classes.exists() else set()
    source = (
        (image_id, rows) for table in region_tables([folder / "regions.parquet"]) for image_id, rows in rows_by_image(table)
    )  # ascending, as the images that are asked for
    ahead: list[tuple[str, pa.Table]] = []

    def of(image_id: str, shape: tuple[int, int]) -> HumanMasks:
        while not ahead or ahead[0][0] < image_id:
            step = next(source, None)
            if step is None:
                return HumanMasks()
            ahead[:] = [step]
        if ahead[0][0] != image_id:
            return HumanMasks()
        regions = regions_from_table(ahead[0][1])
        keep = ~regions.is_root & ~np.isin(regions.label, sorted(background))
        return _human(regions.select(keep), shape, image_id)

    return of


def _background(classes: ClassTree) -> set[int]:
    """Classes that are no object: the root, and what is background or not counted."""
    return {0, *(node for node, kind in enumerate(classes.kind) if kind in (BACKGROUND, IGNORE))}


def _human(regions: Regions, shape: tuple[int, int], image_id: str) -> HumanMasks:
    if regions.shape != shape:
        raise BadData(
            f"Image '{image_id}' is {shape[0]}×{shape[1]}, its human masks are over {regions.shape[0]}×{regions.shape[1]} (height×width)."
        )
    some = np.flatnonzero(regions.area > 0).tolist()
    codes = regions.rles()
    return HumanMasks(
        tuple(codes[i] for i in some), tuple(int(regions.label[i]) for i in some), tuple(regions.source[i] == CROWD for i in some)
    )


def _coded(codes: Sequence[bytes], shape: tuple[int, int]) -> list[dict[str, object]]:
    return [{"size": list(shape), "counts": code} for code in codes]
