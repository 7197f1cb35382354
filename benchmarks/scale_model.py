"""What many images cost, from measurements on few: the tables of docs/scale.md.

    python benchmarks/scale.py --model

Every number here was measured; the comment above it says with what. The tables multiply and add, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

SIZES = (10_000, 1_000_000, 10_000_000)
SHARD_IMAGES = {10_000: 32, 1_000_000: 100, 10_000_000: 1000}
CORES = 16
"""Of a machine in the tables."""


@dataclass(frozen=True)
class PerImage:
    """What a cell takes for one image: seconds of one core, and bytes that it stores."""

    seconds: float
    stored: float


# `uss demo` on its 8 photographs of 0.17 megapixels on average: facts of the runs and sizes of the artefacts, over 8.
# Two cores that other programs used too; each worker computes on one.
BACKBONES = {"saliency": PerImage(0.531, 1_326_897), "patches": PerImage(0.257, 1_474_002), "none": PerImage(0, 0)}
METHODS = {
    "contour_merge": ("none", PerImage(0.724, 41_645)),
    "contour_merge_deep": ("saliency", PerImage(0.796, 40_650)),
    "felzenszwalb": ("none", PerImage(1.947, 99_783)),
    "hierarchy_agnostic_deep": ("saliency", PerImage(0.490, 23_296)),
    "kmeans_deep": ("saliency", PerImage(0.189, 9_457)),
    "slic_merge": ("patches", PerImage(0.285, 50_175)),
    "slic_merge_deep": ("saliency", PerImage(0.282, 48_448)),
    "unsam_deep": ("saliency", PerImage(1.073, 29_397)),
}
# A dataset artefact of 8 photographs of VOC2012 with their ground truth, over 8: JPEG of 0.18 megapixels.
IMAGE_BYTES = 86_201


@dataclass(frozen=True)
class Stage:
    """What a stage takes beside the method: seconds of processor an image, megabytes at the start, and bytes more an image."""

    seconds: float
    start: float
    more: float


# `python benchmarks/scale.py` at 10⁴ and 10⁵ images of 16×16 pixels with three regions each, one entry, one worker: the line through both.
STAGES = {
    "datasets": Stage(0, 0, 0),
    "segments": Stage(0, 0, 0),
    "scores": Stage(0, 0, 0),
    "leaderboard": Stage(0, 0, 0),
    "site": Stage(0, 0, 0),
}
# The scores of these 10⁵ images: five numbers an image, and 200 bootstrap replicates.
SCORE_BYTES = 0.0
# `dvc add` of folders of 100 and 10⁴ files of 6 kB: seconds of processor at the start, and for each file.
DVC_START, DVC_FILE = 0.78, 0.00033


def methods_table() -> list[str]:
    """What each method costs by number of images: storage of its regions and of the features that it reads, and hours of one core."""
    header = ["method", *(f"{name}, {images:,}" for images in SIZES for name in ("GB", "core hours"))]
    rows = []
    for method, (backbone, cost) in METHODS.items():
        features = BACKBONES[backbone]
        cells = [
            text
            for images in SIZES
            for text in (
                f"{images * (features.stored + cost.stored) / 1e9:,.1f}",
                f"{images * (features.seconds + cost.seconds) / 3600:,.0f}",
            )
        ]
        rows.append([method, *cells])
    return aligned(header, rows, right=header[1:])


def stages_table() -> list[str]:
    """What the stages cost beside the method, and DVC for one folder of shards."""
    header = ["stage", *(f"{name}, {images:,}" for images in SIZES for name in ("core hours", "peak GB"))]
    rows = [
        [name, *(text for n in SIZES for text in (f"{n * stage.seconds / 3600:,.1f}", f"{(stage.start * 1e6 + n * stage.more) / 1e9:.2f}"))]
        for name, stage in STAGES.items()
    ]
    for images in SIZES:
        files = -(-images // SHARD_IMAGES[images])
        seconds = DVC_START + files * DVC_FILE
        rows.append([f"DVC, {images:,} images in shards of {SHARD_IMAGES[images]}: {seconds:.0f} s for {files:,} files"])
    return aligned(header, rows[: len(STAGES)], right=header[1:]) + [row[0] for row in rows[len(STAGES) :]]
