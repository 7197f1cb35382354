"""LightCluster on photographs: object mask and classes, each level alone and all together, beside COMUS without its training.

    USS_MIRROR=/datasets python benchmarks/lightcluster_photographs.py [--weights dinov2_vits14_saliency] [--images 150]

Images of PASCAL VOC 2012 val. Foreground and background: IoU of all objects together against all background. mIoU over 21 classes, background
one of them: clusters matched to classes once over the dataset by IoU (COMUS) or by pixels (Hungarian, where unlabelled pixels count as missed).
95 % bootstrap intervals over images; the clustering is not repeated in them. One seed, no constant was chosen on these images.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import Any

from deep_photographs import REPLICATES, WEIGHTS, cells, photographs, scored

from uss_dagster.metrics import semantic
from uss_dagster.segmenter import Segmenter

COLUMNS = ("foreground_iou", "background_iou", "comus_miou", "comus_fixed_miou", "hungarian_miou")
PLAIN: dict[str, Any] = {"mask": {"refine": "none"}, "objects": {"crop": 112}}


def rows() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(name, method, parameters)."""
    for level in ("image", "dataset", "category", "consistency"):
        yield f"LightCluster, {level}", "lightcluster", PLAIN | {"agreement": {"mask_from": level}}
    yield "LightCluster, voted once more", "lightcluster", PLAIN | {"agreement": {"iterate": 1}}
    yield "LightCluster, tokens", "lightcluster", PLAIN | {"patches": {"facet": "tokens"}}
    yield "LightCluster, consistency, CRF", "lightcluster", {"objects": {"crop": 112}}
    yield "COMUS, untrained", "comus_lite", {"crop": 112}
    yield "TokenCut (one object, no classes)", "tokencut", {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default=WEIGHTS)
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    arguments = parser.parse_args()
    images = photographs("voc2012", "all", ("keys", "tokens", "cls", "cls_attention"), arguments.weights, arguments.images)
    samples: Any = [sample for sample, _ in images]
    print(f"{len(images)} photographs of VOC 2012 val, weights {arguments.weights}, in percent\n")
    print("| | foreground IoU | background IoU | mIoU, COMUS | mIoU, background fixed | mIoU, Hungarian | masks come from |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |", flush=True)
    for name, method, parameters in rows():
        if arguments.only not in name:
            continue
        segmenter = Segmenter.of(method, parameters).fit(samples)
        accumulator = semantic.accumulator(REPLICATES)
        sources: Counter[str] = Counter()

        def segment(sample: Any, segmenter: Segmenter = segmenter, sources: Counter[str] = sources) -> Any:
            regions = segmenter.segment(sample)
            sources[regions.source[0].removesuffix(", weak image")] += 1
            return as_objects(regions) if segmenter.method == "tokencut" else regions

        scored(images, segment, [accumulator])
        shares = ", ".join(f"{source} {100 * times / len(images):.0f} %" for source, times in sources.most_common(3))
        print(f"| {name} | {cells(accumulator, COLUMNS)} | {shares} |", flush=True)


def as_objects(regions: Any) -> Any:
    """TokenCut's object with label 0, so that its foreground can be compared; background without a label."""
    objects = [region for region in range(len(regions)) if regions.score[region] == 1 and regions.parent[region] >= 0]
    return regions.labelled(objects, [0] * len(objects))


if __name__ == "__main__":
    main()
