"""COCO run-length codes: column-major runs, compressed to printable bytes (the ``counts`` of pycocotools)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from pycocotools import mask as coco

from uss_dagster.errors import BadData

MOST_GROUPS = 6
"""Groups of 5 bits that pycocotools, in C, reads of a run: more would overflow there."""


class CocoCode(TypedDict):
    """A mask as pycocotools takes it. size: [height, width]. counts: compressed run lengths."""

    size: list[int]
    counts: bytes


def coco_codes(codes: Sequence[bytes], shape: tuple[int, int]) -> list[CocoCode]:
    """Run-length codes over an image of ``shape`` (height, width), in the form that pycocotools takes."""
    return [{"size": list(shape), "counts": code} for code in codes]


def encode(masks: np.ndarray) -> list[bytes]:
    """Codes of boolean masks, shape (K, H, W)."""
    if masks.ndim != 3:
        raise BadData(f"rle.encode takes masks of shape (K, H, W), got {masks.shape}.")
    if not len(masks):
        return []
    stacked = np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))
    return [r["counts"] for r in coco.encode(stacked)]


def encode_runs(lengths: np.ndarray) -> bytes:
    """The code of run lengths (off, on, off, …): the inverse of ``runs``."""
    value = lengths.astype(np.int64)
    value[3:] -= lengths[1:-2]
    size = np.where(value < 0, ~value, value)  # 5 bits a group, the highest one of them the sign
    most = 1
    while size.max(initial=0) >> (5 * most - 1):
        most += 1
    place = np.arange(most)
    last = (size[:, None] >> (5 * place[1:] - 1) > 0).sum(axis=1) if most > 1 else np.zeros(len(value), np.int64)
    groups = (value[:, None] >> (5 * place)) & 31
    groups |= (place < last[:, None]) << 5
    return (groups + 48).astype(np.uint8)[place <= last[:, None]].tobytes()


def decode(counts: bytes, height: int, width: int) -> np.ndarray:
    """The boolean (height, width) mask of one code; a code of another size is refused."""
    if code_length(counts) != height * width:
        raise BadData(f"A run-length code covers {code_length(counts)} pixels, its image has {height}×{width} = {height * width}.")
    return np.asarray(coco.decode({"counts": counts, "size": [height, width]})).view(bool)


def areas(codes: Sequence[bytes], height: int, width: int) -> np.ndarray:
    """Pixels that each code holds, int64 (K,). One at a time: pycocotools 2.0 fails on lists of more than 255 with numpy 2."""
    return np.array([coco.area(code) for code in coco_codes(codes, (height, width))], np.int64)


def code_length(counts: bytes) -> int:
    """Number of pixels a code spans, from the runs themselves (pycocotools would read past a short one)."""
    return int(runs(counts).sum())


def runs(counts: bytes) -> np.ndarray:
    """Run lengths (off, on, off, …) of a compressed code, int64.

    Each run is a little-endian string of 5-bit groups, offset by 48, bit 5 saying that more follow; from the
    third run on the difference to the run two before is stored.
    """
    if not counts:
        raise BadData("A run-length code is empty.")
    raw = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if raw.min() < 0 or raw.max() > 63 or raw[-1] & 32:
        raise BadData("A run-length code holds bytes that no COCO writer produces, or ends in the middle of a run.")
    last = np.flatnonzero((raw & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(raw)) - np.repeat(first, last - first + 1)
    if place.max() >= MOST_GROUPS:
        raise BadData(f"A run-length code holds a run of more than {2 ** (5 * MOST_GROUPS - 1):,} pixels.")
    value = np.add.reduceat((raw & 31) << (5 * place), first)
    negative = (raw[last] & 16) != 0
    value -= np.where(negative, np.int64(1) << (5 * (last - first + 1)), 0)
    # value[i] += result[i - 2] for i > 2: two interleaved running sums (the first entry stands alone).
    result = value.copy()
    result[1::2] = np.cumsum(value[1::2])
    result[2::2] = np.cumsum(value[2::2])
    if result.min() < 0:
        raise BadData("A run-length code holds a negative run.")
    return result
