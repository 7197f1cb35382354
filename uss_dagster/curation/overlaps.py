"""Overlaps of masks of one image, computed by pycocotools on their COCO run-length codes without decoding them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco

from uss_dagster.regions.rle import coco_codes


def best_iou(codes: Sequence[bytes], others: Sequence[bytes], shape: tuple[int, int]) -> np.ndarray:
    """The greatest IoU of each mask with any of ``others``, float64 (K,); 0 if there are none."""
    if not codes or not others:
        return np.zeros(len(codes))
    return np.asarray(coco.iou(coco_codes(codes, shape), coco_codes(others, shape), [0] * len(others))).max(axis=1)


def parents_by_containment(codes: Sequence[bytes], shape: tuple[int, int]) -> np.ndarray:
    """For masks sorted from large to small, the last one before each that contains it whole, int64 (K,); -1 if none does."""
    if not codes:
        return np.zeros(0, np.int64)
    coded = coco_codes(codes, shape)
    inside = np.asarray(coco.iou(coded, coded, [1] * len(coded))) >= 1  # [a, b]: the share of a that lies in b
    return last_before(inside)


def last_before(inside: np.ndarray) -> np.ndarray:
    """The last mask before each in which it lies, int64 (K,); -1 if there is none. inside: bool (K, K), whether a mask (row) lies in another."""
    inside = inside & np.tri(len(inside), k=-1, dtype=bool)
    last = len(inside) - 1 - np.argmax(inside[:, ::-1], axis=1)
    return np.where(inside.any(axis=1), last, -1)
