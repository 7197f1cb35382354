"""What a backbone's tokens add to ``contour_merge`` on BSDS500: the same method with and without them, on the same photographs.

    USS_MIRROR=/datasets python benchmarks/contour_tokens.py [--weights dinov2_vits14_saliency] [--half held-out|tuning|all]

The weight of the tokens was chosen on every second photograph, from the first (``--half tuning``); the others (``--half held-out``) were not
looked at. Differences are paired over photographs, with 95 % bootstrap intervals.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from uss_dagster import registry
from uss_dagster.artifacts.image_files import decode
from uss_dagster.backbones.base import Encoder, Features
from uss_dagster.datasets.base import Sample
from uss_dagster.datasets.bsds500 import SPEC
from uss_dagster.metrics import bsds
from uss_dagster.metrics.base import Accumulator, Truth
from uss_dagster.regions import Regions
from uss_dagster.segmenter import Segmenter

REPLICATES = 500
HALVES = {"tuning": slice(0, None, 2), "held-out": slice(1, None, 2), "all": slice(None)}


def scores(ids: list[str], truths: list[Regions], predictions: list[Regions]) -> Accumulator:
    """The BSDS numbers of one method."""
    scales = bsds.prepare(iter(predictions))
    accumulator = Accumulator(lambda truth, prediction: bsds.measure(truth, prediction, scales), bsds.reduce, REPLICATES)
    for image_id, truth, prediction in zip(ids, truths, predictions, strict=True):
        accumulator.update(image_id, Truth("annotators", truth), prediction)
    return accumulator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="dinov2_vits14_saliency")
    parser.add_argument("--half", choices=HALVES, default="held-out")
    arguments = parser.parse_args()
    adapter = registry.load("dataset", "bsds500")
    examples = sorted(adapter.examples(SPEC.params(split="test")), key=lambda example: example.image_id)[HALVES[arguments.half]]
    encoder = Encoder.of("vit", {"model": arguments.weights, "facets": ["tokens"]})
    segmenter = Segmenter.of("contour_merge", {})
    ids, truths = [example.image_id for example in examples], [example.truth for example in examples]
    with_tokens: list[Regions] = []
    without: list[Regions] = []
    for example in examples:
        image = decode(example.image, example.image_id)
        features: Features = encoder([image])[0]
        without.append(segmenter.segment(Sample(example.image_id, image)))
        with_tokens.append(replace(segmenter, encoder=encoder).segment(Sample(example.image_id, image, features)))
    plain, deep = scores(ids, truths, without), scores(ids, truths, with_tokens)
    draws = list(zip(plain.replicate_results(), deep.replicate_results(), strict=True))
    print(f"{len(ids)} photographs of BSDS500 test ({arguments.half}), weights {arguments.weights}")
    for name, value in plain.result().items():
        low, high = np.percentile([after[name] - before[name] for before, after in draws], [2.5, 97.5])
        better = deep.result()[name]
        print(f"{name:<24} {value:.4f} -> {better:.4f}   difference {better - value:+.4f}  [{low:+.4f}, {high:+.4f}]")


if __name__ == "__main__":
    main()
