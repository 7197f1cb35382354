"""Suppression of masks that nearly repeat another: exact, for any number of masks, on their runs.

Exact duplicates are removed first, by hash. The rest is greedy: in order of priority a mask is kept unless a kept one overlaps it with
IoU above the limit. Two masks can only do so if the smaller has more than that share of the larger's pixels, so most pairs are never
compared. The others are intersected run by run.

With ``window`` the result is that of UnSAM's release (Wang et al., NeurIPS 2024), where a mask is compared only with the next
``window`` - 1 in order, and six copies of one mask leave two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uss_dagster.errors import BadData, UsageError
from uss_dagster.regions import Regions, rle


def mask_nms(masks: Regions | Sequence[bytes], priority: np.ndarray, iou: float = 0.9, window: int | None = None) -> np.ndarray:
    """Indices of the masks that are kept, int64, by falling priority; of equal ones the first comes first.

    Parameters
    ----------
    masks : Regions, or sequence of bytes
        Codes are COCO run-length codes of one image.
    priority : ndarray of float, shape (K,)
    iou : float, default 0.9
        Masks that overlap a kept one by more are dropped; at 1 only exact duplicates are.
    window : int, optional
        See the module; duplicates further apart than the window are kept.
    """
    priority = np.asarray(priority, np.float64)
    if len(priority) != len(masks):
        raise BadData(f"{len(masks)} masks were given {len(priority)} priorities, expected one each.")
    if np.isnan(priority).any():
        raise BadData(f"The priority of mask {int(np.argmax(np.isnan(priority)))} is NaN; masks are kept in order of priority.")
    if not 0 <= iou <= 1 or (window is not None and window < 1):
        raise UsageError(f"mask_nms: iou {iou} and window {window}, expected 0 to 1, and 1 or more (or none).")
    if not len(priority):
        return np.zeros(0, np.int64)
    from uss_dagster.graphs import _nms_kernel as kernel

    runs, start = mask_runs(masks)
    total = np.concatenate([[0], np.cumsum(runs[:, 1] - runs[:, 0])])
    area = total[start[1:]] - total[start[:-1]]
    order = np.argsort(-priority, kind="stable")
    if window is not None:
        return order[kernel.suppress_window(runs, start, area, order, float(iou), int(window))[order]]
    order = _each_once(runs, start, order)
    some = start[1:] > start[:-1]
    span = np.zeros((len(area), 2), np.int64)
    span[some, 0], span[some, 1] = runs[start[:-1][some], 0], runs[start[1:][some] - 1, 1]
    return order[kernel.suppress(runs, start, area, span, order, float(iou))[order]]


def mask_runs(masks: Regions | Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """(runs int64 (R, 2), [begin, end) of each run of pixels; start int64 (K + 1,), the slice of the runs of each mask).

    Pixels count along columns for codes, along rows for regions; within a mask, runs ascend and do not touch.
    """
    if isinstance(masks, Regions):
        begin, atom = masks.runs("C")
        begin = np.append(begin, masks.atoms.size)
        return _gathered([_bounds(held[atom], begin) for held in masks.members])
    ends = [np.cumsum(rle.runs(code)) for code in masks]
    if len({int(end[-1]) for end in ends}) > 1:
        raise BadData("Codes of one image must cover equally many pixels; these do not.")
    pairs = [np.stack([end[0 : len(end) // 2 * 2 : 2], end[1::2]], axis=1) for end in ends]
    return _gathered([pair[pair[:, 1] > pair[:, 0]] for pair in pairs])


def _bounds(held: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """Runs (R, 2) where pieces that begin at ``begin`` (n + 1,) are held, bool (n,)."""
    change = np.flatnonzero(np.diff(held, prepend=False, append=False))
    return begin[change].reshape(-1, 2)


def _gathered(runs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    start = np.concatenate([[0], np.cumsum([len(some) for some in runs])])
    return np.ascontiguousarray(np.concatenate(runs), np.int64), start.astype(np.int64)


def _each_once(runs: np.ndarray, start: np.ndarray, order: np.ndarray) -> np.ndarray:
    """``order`` without masks whose runs are those of an earlier one."""
    seen: dict[bytes, int] = {}
    for mask in order.tolist():
        seen.setdefault(runs[start[mask] : start[mask + 1]].tobytes(), mask)
    return np.array(list(seen.values()), np.int64)
