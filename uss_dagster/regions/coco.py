"""One region as a COCO annotation: the keys that every COCO reader knows, and ``score`` and ``parent`` beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def annotation(
    number: int, image: int, label: int, area: int, bbox: Sequence[int], size: tuple[int, int], rle: bytes, score: float, parent: int | None
) -> dict[str, Any]:
    """number, parent: annotation ids. label: below 1 means none, which is category 1. size: (height, width). rle: compressed counts."""
    return {
        "id": number,
        "image_id": image,
        "category_id": max(1, label),
        "iscrowd": 0,
        "area": area,
        "bbox": [int(v) for v in bbox],
        "segmentation": {"size": list(size), "counts": rle.decode("ascii")},
        "score": score,
        "parent": parent,
    }
