"""Which masks of an image are good enough to stay, and which of those are the best."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from uss_dagster.curation.human import HumanMasks, renumbered
from uss_dagster.curation.measures import boundary_connectivity
from uss_dagster.curation.overlaps import best_iou
from uss_dagster.curation.params import CurateParams
from uss_dagster.regions.regions import parents_among


def filter_masks(rows: pa.Table, human: HumanMasks, shape: tuple[int, int], params: CurateParams) -> tuple[pa.Table, dict[str, int]]:
    """Remove masks below the limits, all but the best of those, and of the best the ones that overlap human masks.

    Human masks come last on purpose: they replace found masks, and do not make room for worse ones.

    Parameters
    ----------
    rows : pyarrow.Table
        The masks of one image, schema ``MASKS``.
    human : HumanMasks
    shape : tuple of int
        (height, width) of the image.
    params : CurateParams

    Returns
    -------
    rows : pyarrow.Table
        What is left. A mask whose parent is gone moves up to the next ancestor.
    dropped : dict of str to int
        Number of removed masks by reason.
    """
    area = rows["area"].to_numpy()
    below_limit = {
        "too small": area < params.limit("min_area"),
        "too large": area > params.limit("max_area") * shape[0] * shape[1],
        # a comparison with NaN is false: a mask that was not measured stays
        "of low quality": rows["quality"].to_numpy() < params.limit("min_quality"),
        "changed by refinement": rows["refined_iou"].to_numpy() < params.limit("min_refined_iou"),
        "not found in other views": rows["stability"].to_numpy() < params.limit("min_stability"),
    }
    removed, dropped = np.zeros(rows.num_rows, bool), {}

    def drop(masks: np.ndarray, reason: str) -> None:
        if number := int(np.count_nonzero(masks & ~removed)):
            dropped[reason] = number
        removed[masks] = True

    for reason, masks in below_limit.items():
        drop(masks, reason)
    left = np.flatnonzero(~removed)
    if len(left) > params.most:
        worst = np.zeros(rows.num_rows, bool)
        worst[left[np.lexsort((left, -mask_value(rows, shape)[left]))[params.most :]]] = True
        drop(worst, "beyond the number wanted")
    if human.codes:
        drop(best_iou(rows["rle"].to_pylist(), human.codes, shape) > params.tau, "overlaps a human mask")
    keep = np.flatnonzero(~removed)  # children move up to the nearest ancestor that is kept
    return renumbered(rows.take(keep), parents_among(rows["parent"].to_numpy(), keep)), dropped


def mask_value(rows: pa.Table, shape: tuple[int, int]) -> np.ndarray:
    """How valuable each mask of an image is: quality · score · exp(-c² / 2).

    Quality says how well the border lies. Score, relative to the entry's highest in the image, says whether the region stands by itself; it is 1 if
    there is none. The boundary connectivity c says whether it is background. Stability is not part of the product: it would remove small masks
    first.

    Parameters
    ----------
    rows : pyarrow.Table
        The masks of one image, schema ``MASKS``.
    shape : tuple of int
        (height, width) of the image.

    Returns
    -------
    float64 array of shape (K,)
    """
    quality, score = (rows[name].to_numpy().astype(np.float64) for name in ("quality", "score"))
    score = np.nan_to_num(score, nan=1.0)
    entries, place = np.unique(rows["entry"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    highest = np.zeros(len(entries))
    np.maximum.at(highest, place, score)
    relative_score = score / np.where(highest > 0, highest, 1.0)[place]
    return np.nan_to_num(quality, nan=0.0) * relative_score * np.exp(-(boundary_connectivity(rows["rle"].to_pylist(), shape) ** 2) / 2)
