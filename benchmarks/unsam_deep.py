"""UnSAM's pool with a network's features on photographs: average recall beside other pools, with paired intervals.

    USS_MIRROR=/datasets python benchmarks/unsam_deep.py [--weights dinov2_vits14_saliency] [--half held-out|tuning] [--only coco|bsds] [--keep FOLDER]

The constants were chosen on every second image from the first, in the order of their names (``--half tuning``); the others were not looked at. AR over
at most 1000 masks an image, class-agnostic, as COCO computes it; the best by each pool's own score. BSDS500: the regions of all annotators are the
truth, each to be matched by a mask of its own, so that there a pool gains by near duplicates. ``--keep`` stores each pool, so that a run that was
stopped goes on; ``--images`` takes the first so many.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from uss_dagster.runtime import quiet_environment, single_thread

quiet_environment()
single_thread()

import numpy as np  # noqa: E402
from deep_photographs import HALVES, REPLICATES, WEIGHTS, percentiles  # noqa: E402
from unsam import Photo, bsds, coco, kept  # noqa: E402

from uss_dagster.artifacts.image_files import decode  # noqa: E402
from uss_dagster.backbones.base import Encoder  # noqa: E402
from uss_dagster.datasets.base import Sample  # noqa: E402
from uss_dagster.metrics.base import poisson_weights  # noqa: E402
from uss_dagster.metrics.coco.matches import match_codes, summaries  # noqa: E402
from uss_dagster.segmenter import Segmenter  # noqa: E402

POOLS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "unsam, deep": ("unsam", "deep", {}),
    "unsam, patches": ("unsam", "patches", {}),
    "contour_merge, deep tokens": ("contour_merge", "deep", {}),
    "contour_merge": ("contour_merge", "", {}),
    "felzenszwalb": ("felzenszwalb", "", {}),
    "unsam, deep, suppression at 0.95": ("unsam", "deep", {"pool": {"iou": 0.95}}),
    "unsam, patches, suppression at 0.95": ("unsam", "patches", {"pool": {"iou": 0.95}}),
    "unsam, deep, on patches": ("unsam", "deep", {"graph": "dense"}),
}
"""Method, backbone and parameters."""
COLUMNS = ("ar1000", "ar_small", "ar_medium", "ar_large", "ar100")


def pool_of(name: str, image: np.ndarray, encoders: dict[str, Encoder]) -> tuple[list[bytes], np.ndarray]:
    """Codes and scores of the masks of a pool, best first, each once, without the whole image."""
    method, backbone, parameters = POOLS[name]
    encoder = encoders.get(backbone)
    segmenter = Segmenter.of(method, parameters, encoder)
    sample = Sample("photo", image, encoder([image])[0] if encoder else None, encoder)
    regions = segmenter.fit([sample]).segment(sample)
    score = regions.level if method == "contour_merge" else regions.score
    codes, best = regions.rles(), dict[bytes, float]()
    for region in np.argsort(-score, kind="stable").tolist():
        if not regions.is_root[region]:
            best.setdefault(codes[region], float(score[region]))
    return list(best), np.array(list(best.values()))


def compare(photos: list[Photo], title: str, names: list[str], folder: Path | None, weights: str) -> None:
    encoders = {
        "deep": Encoder.of("vit", {"model": weights, "facets": ["keys", "tokens"]}),
        "patches": Encoder.of("patches", {"facets": ["keys", "tokens"]}),
    }
    draws = np.stack([np.ones(len(photos), np.int64), *np.stack([poisson_weights(photo.name, REPLICATES) for photo in photos]).T])
    print(f"\n{title}, {len(photos)} images\n")
    print("| pool | masks | AR@1000 | small | medium | large | AR@100 | first pool's AR@1000 less this |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    first: np.ndarray | None = None
    for name in names:
        images = []
        for photo in photos:
            image = decode(photo.path.read_bytes(), photo.path.name)
            key = f"{name.replace(', ', '-').replace(' ', '_')}-{photo.name}"
            codes, score = kept(folder, key, lambda n=name, i=image: pool_of(n, i, encoders))  # type: ignore[misc]
            images.append(match_codes(photo.size, photo.truths, codes[:1000], score[:1000], truth_area=photo.area, crowd=photo.crowd))
        values, *others = summaries(images, draws)
        resampled = 100 * np.array([values["ar1000"], *(other["ar1000"] for other in others)])
        first = resampled if first is None else first
        low, high = percentiles(resampled[1:])
        less = f"{(first - resampled)[0]:+.1f} ({' to '.join(f'{bound:+.1f}' for bound in percentiles((first - resampled)[1:]))})"
        cells = [f"{resampled[0]:.1f} ({low:.1f} to {high:.1f})", *(f"{100 * values[column]:.1f}" for column in COLUMNS[1:])]
        count = np.mean([len(image.score) for image in images])
        print(f"| {name} | {count:.0f} | " + " | ".join(cells) + f" | {less if name != names[0] else '–'} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default=WEIGHTS)
    parser.add_argument("--half", choices=HALVES, default="held-out")
    parser.add_argument("--only", choices=("coco", "bsds"))
    parser.add_argument("--pools", default=",".join(map(str, range(len(POOLS)))), help="numbers of pools, the first is compared with all")
    parser.add_argument("--images", type=int)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    names = [list(POOLS)[int(number)] for number in arguments.pools.split(",")]
    mirror = Path(os.environ["USS_MIRROR"])
    sets = {"coco": ("COCO val2017", coco, "coco_val2017"), "bsds": ("BSDS500 test, regions of all annotators", bsds, "bsds500")}
    for name, (title, read, folder) in sets.items():
        if arguments.only in (None, name):
            photos = sorted(read(mirror / folder), key=lambda photo: photo.name)[HALVES[arguments.half]][: arguments.images]
            compare(photos, f"{title} ({arguments.half})", names, arguments.keep, arguments.weights)


if __name__ == "__main__":
    main()
