"""Segmentation from one click: where a ground truth is clicked, and how good the answers are.

A ground truth is clicked at its centre. ``click_max`` is the IoU of the answer of highest score, ``click_oracle`` the best IoU of any
answer, both averaged over ground truths.

Reference: Wang et al., "Segment anything without supervision", NeurIPS 2024 (1-IoU).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uss_dagster.errors import BadData
from uss_dagster.metrics.base import Contribution

LARGE = 2**20
"""Pixels of a mask from which ``click_point`` looks for the pixel in blocks rather than computing all distances."""
BLOCK = 32


def click_point(mask: np.ndarray) -> tuple[int, int]:
    """(x, y) of the pixel farthest from the outside of a mask, bool (H, W) and not empty; the first such in raster order.

    The outside begins at the image's edge.
    """
    from scipy.ndimage import distance_transform_edt

    padded = np.pad(np.asarray(mask, bool), 1)
    found = _in_blocks(padded) if mask.size >= LARGE else None
    if found is None:
        y, x = np.unravel_index(int(np.argmax(distance_transform_edt(padded))), padded.shape)
        found = int(x), int(y)
    return found[0] - 1, found[1] - 1


def _in_blocks(mask: np.ndarray) -> tuple[int, int] | None:
    """The same pixel of a mask with a border of outside, from few distances; None where most pixels would have to be looked at.

    The nearest outside pixel touches the mask, and no pixel of a block is farther away than the block's centre and half its diagonal.
    """
    from scipy.spatial import cKDTree

    touched = np.zeros_like(mask)
    for ours, theirs in ((np.s_[1:], np.s_[:-1]), (np.s_[:-1], np.s_[1:])):
        touched[ours] |= mask[theirs]
        touched[:, ours] |= mask[:, theirs]
    tree = cKDTree(np.argwhere(touched & ~mask))
    rows, columns = (np.arange(0, side, BLOCK) for side in mask.shape)
    held = np.logical_or.reduceat(np.logical_or.reduceat(mask, rows, axis=0), columns, axis=1)
    corners = np.argwhere(held) * BLOCK
    half = (BLOCK - 1) / 2
    distance = tree.query(corners + half)[0]
    near = distance + half * np.sqrt(2) >= distance.max() - 1  # a pixel lies within less than 1 of a centre
    if np.count_nonzero(near) * BLOCK**2 > mask.size / 4:
        return None
    pixels = np.concatenate([corner + np.argwhere(mask[tuple(np.s_[c : c + BLOCK] for c in corner)]) for corner in corners[near]])
    pixels = pixels[np.lexsort(pixels.T[::-1])]
    y, x = pixels[np.argmax(tree.query(pixels)[0])].tolist()
    return x, y


def one_click(truths: np.ndarray, answers: Sequence[np.ndarray], quality: Sequence[np.ndarray]) -> Contribution:
    """What a promptable model's answers to one click a ground truth add.

    Parameters
    ----------
    truths : ndarray
        Bool (G, H, W).
    answers : sequence of ndarray
        G arrays, bool (M, H, W): the masks that the click on each ground truth gave, any number of them.
    quality : sequence of ndarray
        G arrays (M,): the model's own estimate for each mask; the first of equals is its best.

    Returns
    -------
    dict
        'clicks', float64 (3,), as in ``Matches``, for ``reduce_clicks``.
    """
    clicks = np.zeros(3)
    for number, (mask, masks, scores) in enumerate(zip(truths, answers, quality, strict=True)):
        if len(masks) != len(scores) or np.isnan(scores).any():
            raise BadData(
                f"Click {number} has {len(masks)} masks and qualities {np.asarray(scores).tolist()}; give a number for each mask."
            )
        clicks[2] += 1
        if len(masks):
            pixels = np.asarray(masks, bool).reshape(len(masks), -1)
            inside = pixels[:, mask.ravel()].sum(axis=1)
            iou = inside / np.maximum(pixels.sum(axis=1) + mask.sum() - inside, 1)
            clicks[:2] += iou[np.argmax(scores)], iou.max()
    return {"clicks": clicks}


def reduce_clicks(total: Contribution) -> dict[str, float]:
    """click_max and click_oracle, means over clicks; nothing where there was none."""
    best, oracle, n = total["clicks"].tolist()
    return {"click_max": best / n, "click_oracle": oracle / n} if n else {}
