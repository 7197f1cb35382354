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


# `python benchmarks/scale.py --images 10000,100000`, tiny images, one entry, five scores an image: seconds of processor that a further image
# takes from one size to the other. Real images take longer to decode, and more regions longer to check.
STAGES = {"datasets": 0.00105, "segments beside the method": 0.00119, "scores": 0.00201, "leaderboard": 0.000014, "site": 0.000019}
# `dvc add` of folders of 100 and of 10⁴ files of 6 kB: seconds of processor of any folder, and of each file.
DVC_START, DVC_FILE = 0.78, 0.00033


def tables() -> list[str]:
    """The lines of the three tables, as Markdown."""
    return [*methods_table(), "", *stages_table(), "", *dvc_table()]


def methods_table() -> list[str]:
    """What each method costs: its regions, the features that it reads, and hours of one core for both."""
    rows = []
    for method, (backbone, cost) in METHODS.items():
        features = BACKBONES[backbone]
        core_hours = (features.seconds + cost.seconds) / 3600
        days = SIZES[-1] * core_hours / CORES / 24
        sizes = [(f"{n * features.stored / 1e9:,.1f}", f"{n * cost.stored / 1e9:,.1f}", f"{n * core_hours:,.0f}") for n in SIZES]
        rows.append([method, backbone, *(cell for of_size in sizes for cell in of_size), f"{days:.0f}"])
    columns = [f"{what}, {n:,}" for n in SIZES for what in ("features GB", "regions GB", "core hours")]
    return markdown(["method", "features", *columns, f"days on {CORES} cores, {SIZES[-1]:,}"], rows)


def stages_table() -> list[str]:
    """What stages cost beside the method, in hours of one core."""
    rows = [[name, *(f"{n * seconds / 3600:,.2f}" for n in SIZES)] for name, seconds in STAGES.items()]
    return markdown(["stage", *(f"core hours, {n:,}" for n in SIZES)], rows)


def dvc_table() -> list[str]:
    """What DVC takes to hash and store one folder of shards."""
    rows = []
    for images in SIZES:
        files = -(-images // SHARD_IMAGES[images])
        rows.append([f"{images:,}", str(SHARD_IMAGES[images]), f"{files:,}", f"{DVC_START + files * DVC_FILE:.1f}"])
    return markdown(["images", "images a shard", "files", "seconds of processor"], rows)


def markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table."""
    rule = ["---" if column in ("method", "features", "stage") else "---:" for column in header]
    return [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]
