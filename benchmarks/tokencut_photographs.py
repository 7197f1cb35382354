"""TokenCut on a vision transformer's features, by threshold: foreground IoU on PASCAL VOC 2012 val.

    USS_MIRROR=/datasets python benchmarks/tokencut_photographs.py [--weights dinov2_vits14_saliency] [--half tuning|held-out|all]

Foreground: all objects together, over the dataset and the mean over images. The share of joined pairs was chosen on the half ``tuning``.
95 % bootstrap intervals over images; the last column is the paired difference from the first row, over the dataset.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from deep_photographs import HALVES, REPLICATES, WEIGHTS, cells, difference, photographs

from uss_dagster.metrics.base import Accumulator, Contribution, Truth
from uss_dagster.regions import Regions
from uss_dagster.regions.classes import FOREGROUND
from uss_dagster.segmenter import Segmenter

ROWS: dict[str, dict[str, Any]] = {
    "keys, cosine above 0.2": {"tau_mode": "absolute"},
    "keys, 60 % of the pairs (default here)": {},
    "keys, 50 % of the pairs": {"joined": 0.5},
    "keys, 70 % of the pairs": {"joined": 0.7},
    "tokens, cosine above 0.2": {"facet": "tokens", "tau_mode": "absolute"},
}
NAMES = ("dataset", "image", "one region")


def measure(truth: Truth, prediction: Regions) -> Contribution:
    """Pixels of the object's region that are foreground, and of either; what the image alone has."""
    assert truth.classes is not None
    leaf = truth.leaf_classes()
    valid, foreground = leaf >= 0, (leaf >= 0) & (np.asarray(truth.classes.kind)[np.maximum(leaf, 0)] == FOREGROUND)
    objects = [region for region in range(len(prediction)) if prediction.parent[region] >= 0 and prediction.score[region] == 1]
    mask = prediction.mask(objects[0]) & valid if objects else np.zeros(valid.shape, bool)
    both, either = np.count_nonzero(mask & foreground), np.count_nonzero(mask | foreground)
    return {
        name: np.array(v)
        for name, v in (("both", both), ("either", either), ("iou", both / max(either, 1)), ("none", not objects), ("n", 1))
    }


def reduce(total: Contribution) -> dict[str, float]:
    count = max(float(total["n"]), 1.0)
    values = total["both"] / max(float(total["either"]), 1.0), total["iou"] / count, total["none"] / count
    return dict(zip(NAMES, map(float, values), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default=WEIGHTS)
    parser.add_argument("--half", choices=HALVES, default="held-out")
    arguments = parser.parse_args()
    images = photographs("voc2012", arguments.half, ("keys", "tokens"), arguments.weights)
    print(f"{len(images)} photographs of VOC 2012 val ({arguments.half}), weights {arguments.weights}, in percent\n")
    print("| joined are | foreground IoU, dataset | mean over images | images with one region | difference |")
    print("| --- | ---: | ---: | ---: | ---: |")
    first: Accumulator | None = None
    for name, parameters in ROWS.items():
        segmenter, accumulator = Segmenter.of("tokencut", parameters), Accumulator(measure, reduce, REPLICATES)
        for sample, truth in images:
            accumulator.update(sample.image_id, truth, segmenter.segment(sample))
        first = first or accumulator
        print(f"| {name} | {cells(accumulator, NAMES)} | {difference(first, accumulator, 'dataset')} |", flush=True)


if __name__ == "__main__":
    main()
