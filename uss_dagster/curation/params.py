"""The parameters of curation in two presets, and what a curated set says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from uss_dagster.bounds import SHARE, at_least, check_bounds, within
from uss_dagster.errors import did_you_mean

FORMATS = ("coco", "splits", "images", "metadata")
"""coco: one labels.json. splits: annotations/<split>.json, one COCO file a split. images: one SA-1B-like json an image, in json/.
metadata: metadata.jsonl, a line an image, as image folders of `datasets` have it. A table masks.parquet is always written."""

PRESETS: dict[str, dict[str, float]] = {
    # 'train' prefers recall: UnSAM's authors found that fuller pools train better models (a detector threshold of 0.1 rather than 0.3).
    "train": {"min_area": 16, "max_area": 0.9, "min_quality": 0.0, "min_refined_iou": 0.5, "min_stability": 0.0, "min_coverage": 0.0},
    "clean": {"min_area": 64, "max_area": 0.9, "min_quality": 0.6, "min_refined_iou": 0.6, "min_stability": 0.5, "min_coverage": 0.1},
}


@dataclass(frozen=True)
class CurateParams:
    """Which masks and images a curated set keeps, and how it is split and written.

    A limit that is None takes the value of the preset. A mask without a measure passes the limit on it.

    Parameters
    ----------
    preset : {'train', 'clean'}, default 'train'
        See ``PRESETS``.
    min_area : int, optional
        Least area of a mask, in pixels.
    max_area : float, optional
        Greatest area of a mask, as a share of the image.
    min_quality : float, optional
        Least ``quality``, 0..1; see ``measures``.
    min_refined_iou : float, optional
        Least ``refined_iou``, 0..1; see ``measures``.
    min_stability : float, optional
        Least ``stability``, 0..1; see ``stability``.
    min_coverage : float, optional
        Least share of the image that its masks cover together, 0..1; an image with less is set aside.
    most : int, default 1000
        Greatest number of masks an image, the best by ``filters.mask_value``.
    tau : float, default 0.02
        Greatest IoU of a found mask with a human one (UnSAM+).
    duplicates : {'aside', 'keep'}, default 'aside'
        'aside' keeps one image of each group of near-duplicates; 'keep' keeps all, in one split.
    radius : int, default 6
        Greatest number of bits, 0..16, in which the hashes of near-duplicates differ.
    colours : float, default 24.0
        Greatest mean difference of the colours of near-duplicates, in grey levels (0..255).
    splits : tuple of 3 float, default (0.8, 0.1, 0.1)
        Shares of train, val and test.
    seed : int, default 0
        Of the splits.
    formats : tuple of str, default ('coco',)
        See ``FORMATS``.
    refuse_drift : bool, default False
        Refuse a result that differs from the previous version by more than ``drift.LIMITS``, instead of only reporting it.
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
        check_bounds(self, radius=within(0, 16), colours=at_least(0), most=at_least(1), tau=SHARE, min_area=at_least(0))
        check_bounds(self, **dict.fromkeys(("max_area", "min_quality", "min_refined_iou", "min_stability", "min_coverage"), SHARE))
        for name in self.formats:
            if name not in FORMATS:
                raise ValueError(f"unknown format '{name}'.{did_you_mean(name, FORMATS)}")

    def limit(self, name: str) -> float:
        """The value of a limit: the parameter, or the preset's if it is None."""
        value = getattr(self, name)
        return float(PRESETS[self.preset][name] if value is None else value)


@dataclass(frozen=True)
class Description:
    """What a curated set says of itself in its datasheet and its json files.

    Parameters
    ----------
    title : str
    source : str
        Where the images come from, such as "dataset 'scenes'".
    methods : str
        Titles of the methods that found the masks.
    licence : str
        Of the images and the human masks.
    citation, homepage : str, default ""
        Of the dataset.
    """

    title: str
    source: str
    methods: str
    licence: str
    citation: str = ""
    homepage: str = ""
