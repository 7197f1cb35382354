"""What makes a mask and an image good enough, in two presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from uss_dagster.curation.pooling import PoolParams
from uss_dagster.errors import did_you_mean

FORMATS = ("coco", "splits", "images", "metadata")
"""coco: one labels.json. splits: annotations/<split>.json, one COCO file a split. images: one SA-1B-like json an image, in json/.
metadata: metadata.jsonl, a line an image, as image folders of `datasets` have it. A table masks.parquet is always written."""

PRESETS: dict[str, dict[str, Any]] = {
    # Recall: UnSAM's authors found that fuller pools train better models (a detector threshold of 0.1 rather than 0.3).
    "train": {"min_area": 16, "max_area": 0.9, "min_quality": 0.0, "min_refined_iou": 0.5, "min_stability": 0.0, "min_coverage": 0.0},
    "clean": {"min_area": 64, "max_area": 0.9, "min_quality": 0.6, "min_refined_iou": 0.6, "min_stability": 0.5, "min_coverage": 0.1},
}


@dataclass(frozen=True)
class CurateParams:
    """min_area: pixels; max_area: share of the image. min_quality, min_refined_iou, min_stability: see ``measures`` and ``stability``; a
    mask without the measure passes. min_coverage: share of the image that its masks must hold together, or it is set aside. most: masks
    an image, the best by quality and score (see ``curate.worth``). These are the preset's unless given, but for ``most``.

    tau: greatest IoU of a found mask with a human one. duplicates: 'aside' keeps one image of each group of near-duplicates; 'keep' keeps
    all, in one split. radius: bits by which the hashes of near-duplicates differ at most; colours: grey levels by which their colours do.
    splits: shares of train, val and test. seed: of the splits. formats: see ``FORMATS``. refuse_drift: refuse a result that differs from
    the previous version by more than the limits of ``drift``, in place of only saying so.
    """

    preset: Literal["clean", "train"] = "train"
    min_area: int | None = None
    max_area: float | None = None
    min_quality: float | None = None
    min_refined_iou: float | None = None
    min_stability: float | None = None
    min_coverage: float | None = None
    most: int = 1000
    tau: float = 0.02
    duplicates: Literal["aside", "keep"] = "aside"
    radius: int = 6
    colours: float = 24.0
    splits: tuple[float, ...] = (0.8, 0.1, 0.1)
    seed: int = 0
    formats: tuple[str, ...] = ("coco",)
    refuse_drift: bool = False

    def __post_init__(self) -> None:
        if len(self.splits) != 3 or min(self.splits) < 0 or sum(self.splits) <= 0:
            raise ValueError(f"splits is {list(self.splits)}, expected the shares of train, val and test, such as [0.8, 0.1, 0.1].")
        if not 0 <= self.radius <= 16 or self.colours < 0 or self.most < 1 or not 0 <= self.tau <= 1:
            raise ValueError("radius is 0 to 16, colours at least 0, most at least 1, and tau 0 to 1.")
        for name in self.formats:
            if name not in FORMATS:
                raise ValueError(f"unknown format '{name}'.{did_you_mean(name, FORMATS)}")

    def limit(self, name: str) -> float:
        """The value given, or the preset's."""
        given = getattr(self, name)
        return float(PRESETS[self.preset][name] if given is None else given)


def pool_defaults(preset: str) -> dict[str, Any]:
    """What is measured for a preset: refinement is looked at only where 'clean' asks for it, since it takes the most time."""
    return {"refine": preset == "clean"}


__all__ = ["FORMATS", "PRESETS", "CurateParams", "PoolParams", "pool_defaults"]
