"""What benchmarks of deep features on photographs share: images with features and truth, halves of a sample, rows with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from uss_dagster import registry
from uss_dagster.artifacts.image_files import decode
from uss_dagster.backbones.base import Encoder, Features
from uss_dagster.datasets.base import Sample
from uss_dagster.metrics.base import Accumulator, Truth

WEIGHTS = "dinov2_vits14_saliency"
REPLICATES = 500
HALVES = {"tuning": slice(0, None, 2), "held-out": slice(1, None, 2), "all": slice(None)}
"""Of a sample in the order of its names: constants are chosen on the first, third, … image, and results told of the others."""


def photographs(
    dataset: str, half: str, facets: Sequence[str], weights: str = WEIGHTS, most: int | None = None
) -> list[tuple[Sample, Truth]]:
    """Images of PASCAL VOC 2012 val or BSDS500 test in ``USS_MIRROR``, with the facets of a vision transformer in float16."""
    adapter = registry.load("dataset", dataset)
    parameters = adapter.SPEC.params(split="test") if dataset == "bsds500" else adapter.SPEC.params()
    examples = sorted(adapter.examples(parameters), key=lambda example: example.image_id)[HALVES[half]][:most]
    encoder = Encoder.of("vit", {"model": weights, "facets": list(facets)})
    pairs = []
    for example in examples:
        image = decode(example.image, example.image_id)
        exact = encoder([image])[0]
        features = Features({facet: exact[facet].astype(np.float16) for facet in facets}, "vit", comparable=True)
        truth = Truth("annotators" if dataset == "bsds500" else "classes", example.truth, adapter.SPEC.classes)
        pairs.append((Sample(example.image_id, image, features, encoder), truth))
    return pairs


def scored(images: Iterable[tuple[Sample, Truth]], segment: Callable[[Sample], Any], accumulators: Sequence[Accumulator]) -> None:
    """Add what a method makes of images to accumulators."""
    for sample, truth in images:
        regions = segment(sample).pruned()
        for accumulator in accumulators:
            accumulator.update(sample.image_id, truth, regions)


def percentiles(draws: np.ndarray) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of bootstrap replicates, without undefined ones; NaN where there are none."""
    defined = draws[np.isfinite(draws)]
    low, high = np.quantile(defined, [0.025, 0.975]) if len(defined) else (np.nan, np.nan)
    return float(low), float(high)


def cells(accumulator: Accumulator, names: Sequence[str], factor: float = 100) -> str:
    """Cells of a table: a value with its 95 % interval for each name; a dash where there is none."""
    values, draws = accumulator.result(), accumulator.replicate_results()
    texts = []
    for name in names:
        low, high = percentiles(factor * np.array([draw.get(name, np.nan) for draw in draws]))
        texts.append(f"{factor * values[name]:.1f} ({low:.1f} to {high:.1f})" if name in values else "–")
    return " | ".join(texts)


def difference(before: Accumulator, after: Accumulator, name: str, factor: float = 100) -> str:
    """Difference of two methods on the same images, with its paired 95 % interval."""
    draws = [b[name] - a[name] for a, b in zip(before.replicate_results(), after.replicate_results(), strict=True)]
    low, high = percentiles(factor * np.array(draws))
    return f"{factor * (after.result()[name] - before.result()[name]):+.1f} ({low:+.1f} to {high:+.1f})"
