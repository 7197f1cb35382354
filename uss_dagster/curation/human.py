"""Human masks: where they come from, and the UnSAM+ merge with the masks that methods found (Wang, Yang & Darrell, NeurIPS 2024).

All human masks stay. A found mask stays if its greatest IoU with any human mask is at most τ = 0.02. Found masks are compared with human
masks only. So the merge adds objects that people left out, and parts below 2 % of what they drew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from uss_dagster.artifacts.coco_masks import CocoMasks
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import region_tables, regions_from_table, rows_by_image
from uss_dagster.curation.overlaps import best_iou, parents_by_containment
from uss_dagster.curation.tables import HUMAN, MASKS, mask_rows
from uss_dagster.errors import BadData, UsageError
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.regions.classes import BACKGROUND, IGNORE
from uss_dagster.regions.coded import CodedRegions
from uss_dagster.regions.regions import depth_of

CROWD = "crowd"
"""The value of the column ``source`` that marks a mask over a crowd of objects."""


@dataclass(frozen=True)
class HumanMasks:
    """Human masks of one image.

    Parameters
    ----------
    codes : tuple of K bytes
        COCO run-length codes.
    labels : tuple of K int
        Class ids, -1 for none.
    crowd : tuple of K bool
        Which of them mark a crowd.
    """

    codes: tuple[bytes, ...] = ()
    labels: tuple[int, ...] = ()
    crowd: tuple[bool, ...] = ()


Labels = Callable[[str, tuple[int, int]], HumanMasks]
"""Image id and (height, width) → its human masks. Called by ascending image id."""


def no_labels(image_id: str, shape: tuple[int, int]) -> HumanMasks:
    """There are no human masks."""
    return HumanMasks()


def stays_beside_human(codes: Sequence[bytes], human: Sequence[bytes], shape: tuple[int, int], tau: float = 0.02) -> np.ndarray:
    """Which found masks the merge keeps, bool (K,)."""
    return best_iou(codes, human, shape) <= tau


def with_human(image_id: str, rows: pa.Table, human: HumanMasks, shape: tuple[int, int]) -> pa.Table:
    """Found and human masks of one image in one hierarchy.

    Parameters
    ----------
    image_id : str
    rows : pyarrow.Table
        Found masks, schema ``MASKS``.
    human : HumanMasks
    shape : tuple of int
        (height, width) of the image.

    Returns
    -------
    pyarrow.Table
        Schema ``MASKS``, from large to small; a mask's parent is the smallest mask that contains it whole.
    """
    if not human.codes:
        return rows
    source = [CROWD if crowd else "gt" for crowd in human.crowd]
    regions = CodedRegions(human.codes, shape, label=np.array(human.labels, np.int32), source=source)
    merged = pa.concat_tables([mask_rows(image_id, regions, [HUMAN] * len(human.codes), {}), rows.cast(MASKS)])
    merged = merged.take(np.lexsort((np.arange(merged.num_rows), -merged["area"].to_numpy())))
    return renumbered(merged, parents_by_containment(merged["rle"].to_pylist(), shape))


def renumbered(rows: pa.Table, parent: np.ndarray) -> pa.Table:
    """Rows of one image with other parents, int (K,); parents come before their children."""
    for name, values in (("region", np.arange(len(parent))), ("parent", parent), ("depth", depth_of(parent))):
        rows = rows.set_column(rows.column_names.index(name), MASKS.field(name), pa.array(values.astype(np.int32)))
    return rows


class CocoLabels:
    """Human masks from COCO json, by file name without its suffix.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    ids : set of str
        The images that the file names.

    Raises
    ------
    BadData
        If the file names no image files.
    """

    def __init__(self, path: Path) -> None:
        self._masks = named_coco_masks(path)
        self.ids = set(self._masks.ids)

    def __call__(self, image_id: str, shape: tuple[int, int]) -> HumanMasks:
        if image_id not in self.ids:
            return HumanMasks()
        return _human_masks(self._masks.regions(image_id, shape), shape, image_id)


def named_coco_masks(path: Path) -> CocoMasks:
    """The masks of a COCO file that names its images; any other is refused."""
    masks = CocoMasks(path)
    if not masks.named:
        raise BadData(f"{path} names no image files, so its masks cannot be matched with pictures. Add 'images' with 'file_name'.")
    return masks


class TruthLabels:
    """Human masks from a dataset's ground truth: its instances, or the regions of its foreground classes, whole and in parts.

    Parameters
    ----------
    folder : Path
        Of the ground truth: ``regions.parquet``, and ``classes.json`` if there are classes.
    kind : str
        Of the ground truth: 'instances' or 'classes'.

    Raises
    ------
    UsageError
        If ground truth of this kind has no masks of objects.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        if kind not in ("instances", "classes"):
            raise UsageError(f"Ground truth of kind '{kind}' holds no masks of objects to merge with; 'instances' or 'classes' does.")
        classes = folder / "classes.json"
        self._no_object: set[int] = set()
        if classes.exists():
            kinds = ClassTree.from_json(classes.read_text(encoding="utf-8")).kind
            self._no_object = {0, *(node for node, kind in enumerate(kinds) if kind in (BACKGROUND, IGNORE))}  # 0 is the root
        self._images = (image for table in region_tables([folder / "regions.parquet"]) for image in rows_by_image(table))
        self._next: tuple[str, pa.Table] | None = ("", REGIONS.empty_table())

    def __call__(self, image_id: str, shape: tuple[int, int]) -> HumanMasks:
        while self._next is not None and self._next[0] < image_id:
            self._next = next(self._images, None)
        if self._next is None or self._next[0] != image_id:
            return HumanMasks()
        regions = regions_from_table(self._next[1])
        keep = ~regions.is_root & ~np.isin(regions.label, sorted(self._no_object))
        return _human_masks(regions.select(keep), shape, image_id)


def _human_masks(regions: Regions, shape: tuple[int, int], image_id: str) -> HumanMasks:
    if regions.shape != shape:
        raise BadData(
            f"Image '{image_id}' is {shape[0]}×{shape[1]}, its human masks are over {regions.shape[0]}×{regions.shape[1]} (height×width)."
        )
    keep, codes = np.flatnonzero(regions.area > 0).tolist(), regions.rles()
    return HumanMasks(
        tuple(codes[i] for i in keep), tuple(int(regions.label[i]) for i in keep), tuple(regions.source[i] == CROWD for i in keep)
    )
