"""What a curated set is in a few numbers, and how far they moved since the version before."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

AREA_EDGES = tuple(round(float(2.0 ** (e / 2)), 1) for e in range(4, 45))
"""Bins of mask areas, pixels: two an octave from 4 to about 4 million."""
UNIT_EDGES = tuple(round(i / 20, 2) for i in range(21))
COUNT_EDGES = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9)
HISTOGRAMS: dict[str, Sequence[float]] = {
    "area": AREA_EDGES,
    "quality": UNIT_EDGES,
    "score": UNIT_EDGES,
    "masks": COUNT_EDGES,
    "coverage": UNIT_EDGES,
}
LIMITS = {"distribution": 0.2, "masks_per_image": 0.25, "coverage": 0.1, "set_aside": 0.1}
"""Jensen–Shannon distance (0..1) of a histogram; relative change of masks an image; absolute change of mean coverage and of the share
of images set aside."""


@dataclass
class Summary:
    """Counts and histograms, added up image by image; memory does not grow."""

    status: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    masks: int = 0
    human_masks: int = 0
    coverage: float = 0.0
    histograms: dict[str, list[int]] = field(default_factory=lambda: {name: [0] * (len(e) - 1) for name, e in HISTOGRAMS.items()})

    def count(self, table: str, key: str, number: int = 1) -> None:
        """Add to one of the tables of counts."""
        counts: dict[str, int] = getattr(self, table)
        counts[key] = counts.get(key, 0) + number

    def add(self, name: str, values: Sequence[float] | np.ndarray) -> None:
        """Add values to a histogram; those beyond its ends count in the last bins, NaN nowhere."""
        edges = np.asarray(HISTOGRAMS[name], np.float64)
        known = np.asarray(values, np.float64)
        known = known[np.isfinite(known)]
        place = np.clip(np.searchsorted(edges, known, "right") - 1, 0, len(edges) - 2)
        self.histograms[name] = (np.bincount(place, minlength=len(edges) - 1) + np.array(self.histograms[name])).tolist()

    def to_dict(self) -> dict[str, Any]:
        """Plain values with keys in order; what a later version is compared with."""
        images = sum(self.status.values())
        kept = self.status.get("kept", 0)
        return {
            "images": images,
            "kept": kept,
            "masks": self.masks,
            "human_masks": self.human_masks,
            "masks_per_image": round(self.masks / kept, 4) if kept else 0.0,
            "coverage": round(self.coverage / kept, 4) if kept else 0.0,
            "set_aside": round(1 - kept / images, 4) if images else 0.0,
            **{name: dict(sorted(getattr(self, name).items())) for name in ("status", "splits", "dropped", "sources")},
            "histograms": self.histograms,
        }


def summary_text(summary: Mapping[str, Any]) -> str:
    """A summary as JSON, the same text for the same numbers."""
    return json.dumps(summary, indent=1) + "\n"


def compare(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a measure: what it was, what it is, how far it moved, the limit, and whether that is within it."""
    rows = []
    for name in HISTOGRAMS:
        old, new = before.get("histograms", {}).get(name), now["histograms"][name]
        if old is not None and len(old) == len(new) and sum(old) and sum(new):
            rows.append(_row(f"distribution of {name}", None, None, jensen_shannon(old, new), LIMITS["distribution"]))
    old, new = float(before.get("masks_per_image", 0)), float(now["masks_per_image"])
    rows.append(_row("masks an image", old, new, abs(new - old) / max(old, 1e-9) if old or new else 0.0, LIMITS["masks_per_image"]))
    for name in ("coverage", "set_aside"):
        old, new = float(before.get(name, 0)), float(now[name])
        rows.append(
            _row({"coverage": "mean coverage", "set_aside": "share of images set aside"}[name], old, new, abs(new - old), LIMITS[name])
        )
    return rows


def _row(measure: str, before: float | None, now: float | None, moved: float, limit: float) -> dict[str, Any]:
    return {"measure": measure, "before": before, "now": now, "moved": round(moved, 4), "limit": limit, "within": moved <= limit}


def jensen_shannon(first: Sequence[float], second: Sequence[float]) -> float:
    """Jensen–Shannon distance of two histograms, 0 (the same shares) to 1 (nothing in common)."""
    p, q = np.asarray(first, np.float64), np.asarray(second, np.float64)
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(d > 0, d * np.log2(d / middle), 0.0).sum() / 2 for d in (p, q)]
    return math.sqrt(max(0.0, min(1.0, float(sum(parts)))))
