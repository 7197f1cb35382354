"""The summary of a curated set, and how far it moved since the previous version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict

import numpy as np

AREA_EDGES = tuple(round(float(2.0 ** (e / 2)), 1) for e in range(4, 45))
"""Edges of the bins of mask areas, in pixels: two bins an octave from 4 to about 4 million."""
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


SCALARS: dict[Literal["masks_per_image", "coverage", "set_aside"], str] = {
    "masks_per_image": "masks an image",
    "coverage": "mean coverage",
    "set_aside": "share of images set aside",
}


class SetSummary(TypedDict):
    """The content of ``summary.json``: counts, means and histograms of a curated set."""

    images: int
    kept: int
    masks: int
    human_masks: int
    masks_per_image: float
    coverage: float
    set_aside: float
    status: dict[str, int]
    splits: dict[str, int]
    dropped: dict[str, int]
    sources: dict[str, int]
    histograms: dict[str, list[int]]


class DriftRow(TypedDict):
    """One measure of two versions: its values (None for a distribution), how far it moved, the limit, and whether it is within the limit."""

    measure: str
    before: float | None
    now: float | None
    moved: float
    limit: float
    within: bool


@dataclass
class Summary:
    """Counts and histograms, added up image by image; memory does not grow.

    Parameters
    ----------
    status, splits : Counter
        Images by status and by split.
    dropped, sources : Counter
        Masks by the reason for which a filter removed them, and by entry.
    masks, human_masks : int
        In the set.
    coverage : float
        Sum over the kept images.
    histograms : dict of str to list of int
        By the names in ``HISTOGRAMS``.
    """

    status: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    masks: int = 0
    human_masks: int = 0
    coverage: float = 0.0
    histograms: dict[str, list[int]] = field(default_factory=lambda: {name: [0] * (len(e) - 1) for name, e in HISTOGRAMS.items()})

    def add(self, name: str, values: Sequence[float] | np.ndarray) -> None:
        """Add values to a histogram; those beyond its ends count in the first or last bin, NaN in none."""
        edges, numbers = HISTOGRAMS[name], np.asarray(values, np.float64)
        counts, _ = np.histogram(np.clip(numbers[np.isfinite(numbers)], edges[0], edges[-1]), np.asarray(edges, np.float64))
        self.histograms[name] = (counts + self.histograms[name]).tolist()

    def to_dict(self) -> SetSummary:
        """Plain values, which a later version is compared with."""
        images, kept = sum(self.status.values()), self.status["kept"]
        return {
            "images": images,
            "kept": kept,
            "masks": self.masks,
            "human_masks": self.human_masks,
            "masks_per_image": round(self.masks / kept, 4) if kept else 0.0,
            "coverage": round(self.coverage / kept, 4) if kept else 0.0,
            "set_aside": round(1 - kept / images, 4) if images else 0.0,
            "status": dict(sorted(self.status.items())),
            "splits": dict(sorted(self.splits.items())),
            "dropped": dict(sorted(self.dropped.items())),
            "sources": dict(sorted(self.sources.items())),
            "histograms": self.histograms,
        }


def compare(before: SetSummary, now: SetSummary) -> list[DriftRow]:
    """Compare two versions, one row a measure. ``before`` may lack keys or bins, if an older program wrote it."""
    rows = []
    histograms: dict[str, list[int]] = before.get("histograms", {})
    for name in HISTOGRAMS:
        old, new = histograms.get(name, []), now["histograms"][name]
        if len(old) == len(new) and any(old) and any(new):
            rows.append(_row(f"distribution of {name}", None, None, jensen_shannon(old, new), LIMITS["distribution"]))
    for key, measure in SCALARS.items():
        first, second = float(before.get(key, 0)), float(now[key])
        moved = abs(second - first)
        if key == "masks_per_image":
            moved = moved / max(first, 1e-9)
        rows.append(_row(measure, first, second, moved, LIMITS[key]))
    return rows


def _row(measure: str, before: float | None, now: float | None, moved: float, limit: float) -> DriftRow:
    return {"measure": measure, "before": before, "now": now, "moved": round(moved, 4), "limit": limit, "within": moved <= limit}


def jensen_shannon(first: Sequence[float], second: Sequence[float]) -> float:
    """Jensen–Shannon distance of two histograms, 0 (the same shares) to 1 (nothing in common)."""
    from scipy.spatial.distance import jensenshannon

    return float(jensenshannon(first, second, base=2))
