"""Region hierarchies from a backbone's tokens on VOC 2012 val: whole trees, equal numbers of regions, and what each choice is worth.

    USS_MIRROR=/datasets python benchmarks/voc_deep.py [--weights dinov2_vits14_saliency] [--half held-out|tuning|all]
    USS_MIRROR=/datasets python benchmarks/voc_deep.py --ablation --images 24

Constants were chosen on every second photograph, from the first (``--half tuning``); the others (``--half held-out``) chose nothing;
``all`` prints both and then all of them together. Numbers are NMCovering and mIoU (max overlap per image, leaf classes) with 95 %
bootstrap intervals over photographs. "8 regions" is the tree opened from the top, highest level first, until it has 8 leaves.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from deep_photographs import percentiles

from uss_dagster import registry
from uss_dagster.artifacts.image_files import decode
from uss_dagster.backbones.base import Encoder, Features
from uss_dagster.datasets.base import Example, Sample
from uss_dagster.datasets.voc2012 import SPEC
from uss_dagster.metrics.base import Accumulator, Contribution, Truth, nan_ratio
from uss_dagster.metrics.covering import Overlap, cover_tree, overlap
from uss_dagster.metrics.matching import LEAVES, cut_sums, summary, sums_of
from uss_dagster.regions import Regions
from uss_dagster.segmenter import Segmenter

REPLICATES = 500
COUNTS = (8, 16, 32, 64)
HALVES = {"held-out": slice(1, None, 2), "tuning": slice(0, None, 2)}
SIZES = {"own": None, "518": 518, "700": 700, "840x840": [840, 840]}
"""``image_size`` of the encoder: the image's own, a short side, or exact."""
PAPER = {"preset": "paper"}


@dataclass(frozen=True)
class Entry:
    """A method with parameters. size: of the encoder's input, see ``SIZES``. facet: which it reads as tokens; '' for no backbone."""

    title: str
    method: str
    params: dict[str, Any]
    size: str = "own"
    facet: str = "tokens"


MAIN = [
    Entry("contour_merge, objects", "contour_merge", {"preset": "objects"}),
    Entry("the same, figure not first", "contour_merge", {"preset": "objects", "figure_first": False}),
    Entry("contour_merge, r1 + tokens", "contour_merge", {}),
    Entry("contour_merge, no weights", "contour_merge", {}, facet=""),
    Entry("slic_merge", "slic_merge", {}),
    Entry("kmeans", "kmeans", {}),
    Entry("ncut_recursive, local graph", "ncut_recursive", {"graph": "local"}),
    Entry("hierarchy_agnostic", "hierarchy_agnostic", {}),
    Entry("hierarchy_agnostic, paper", "hierarchy_agnostic", PAPER),
]
_BOTH: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("contour_merge, objects", "contour_merge", {"preset": "objects"}),
    ("hierarchy_agnostic", "hierarchy_agnostic", {}),
)
ABLATION = [
    *(Entry(f"{title}, {size}, {facet}", method, params, size, facet) for title, method, params in _BOTH
      for size, facet in (("own", "tokens"), ("518", "tokens"), ("700", "tokens"), ("840x840", "tokens"), ("own", "keys"))),
    *(Entry(f"paper, {size}", "hierarchy_agnostic", PAPER, size) for size in ("own", "518", "840x840")),
    Entry("paper, bound 80", "hierarchy_agnostic", {"preset": "paper_config"}),
    Entry("paper, CRF", "hierarchy_agnostic", {**PAPER, "refine": "crf"}),
    Entry("leaves, CRF", "hierarchy_agnostic", {"refine": "crf"}),
    Entry("leaves, k groups by the gap", "hierarchy_agnostic", {"heuristic": "maxgap"}),
    Entry("leaves, minmax affinity", "hierarchy_agnostic", {"adjacency": "minmax"}),
    Entry("leaves, bound at divisions in two", "hierarchy_agnostic", {"perturb_two": True}),
    Entry("local graph", "hierarchy_agnostic", {"graph": "local"}),
    Entry("local graph, bound at divisions in two", "hierarchy_agnostic", {"graph": "local", "perturb_two": True}),
    Entry("paper, parts merged bottom up", "hierarchy_agnostic", {**PAPER, "merging": "bottomup"}),
    *(Entry(f"patches, {linkage} linkage", "agglomerative", {"linkage": linkage}) for linkage in ("ward", "average", "complete", "single")),
    *(Entry(f"paper, step 1 {how}", "hierarchy_agnostic", {**PAPER, "overclustering": how})
      for how in ("none", "kmeans", "felzenszwalb", "slic", "quickshift", "watershed")),
    *(Entry(f"paper, seed {seed}", "hierarchy_agnostic", {**PAPER, "seed": seed}) for seed in (0, 1, 2, 3)),
]  # fmt: skip


def features(weights: str, example: Example, image: np.ndarray, entry: Entry, folder: Path | None) -> Features | None:
    """What the entry reads, from a file of an earlier run where there is one."""
    if not entry.facet:
        return None
    path = folder / entry.size / f"{example.image_id}.npz" if folder else None
    if path and path.is_file():
        with np.load(path) as stored:
            tokens = stored[entry.facet]
    else:
        parameters = {"model": weights, "facets": ["tokens", "keys"], "image_size": SIZES[entry.size]}
        encoded = Encoder.of("vit", parameters)([image])[0]
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, tokens=encoded["tokens"].astype(np.float16), keys=encoded["keys"].astype(np.float16))
        tokens = encoded[entry.facet].astype(np.float16)
    return Features({"tokens": tokens}, comparable=True)


def opened(regions: Regions, count: int) -> np.ndarray:
    """The regions of the tree opened from the top until it has ``count`` leaves, bool (K,), without the image."""
    shown = np.zeros(len(regions), bool)
    leaves = 1
    inner = np.unique(regions.parent[regions.parent >= 0])
    for node in inner[np.argsort(-regions.level[inner], kind="stable")].tolist():
        if leaves >= count:
            break
        children = np.flatnonzero(regions.parent == node)
        shown[children] = True
        leaves += len(children) - 1
    return shown


def measure(truth: Truth, regions: Regions) -> Contribution:
    """NMCovering and the sums of mIoU of the whole tree and of each of ``COUNTS``."""
    sums: Contribution = {"regions": np.array(float(len(regions))), "images": np.array(1.0)}
    for name, table in tables(overlap(truth, regions), regions):
        covered = cover_tree(table).nm  # undefined where an image has no object
        sums |= {f"{name}.nm": np.array(np.nan_to_num(covered)), f"{name}.n": np.array(float(not np.isnan(covered)))}
        sums |= {f"{name}.{LEAVES}.{key}": value for key, value in cut_sums(table, LEAVES).items()}
    return sums


def tables(table: Overlap, regions: Regions) -> Iterator[tuple[str, Overlap]]:
    yield "all", table
    for count in COUNTS:
        yield str(count), replace(table, candidates=opened(regions, count) & table.candidates)


def reduce(total: Contribution) -> dict[str, float]:
    values = {"regions": nan_ratio(total["regions"], total["images"])}
    for name in ("all", *map(str, COUNTS)):
        values[f"{name} nm"] = nan_ratio(total[f"{name}.nm"], total[f"{name}.n"])
        values[f"{name} miou"] = summary(sums_of(total, f"{name}.{LEAVES}")).get("miou", np.nan)
    return values


def table_of(scores: dict[str, Accumulator], seconds: dict[str, float]) -> None:
    """A row for each entry: whole tree with intervals, then equal numbers of regions, NMCovering/mIoU."""
    for title, accumulator in scores.items():
        value, draws = accumulator.result(), accumulator.replicate_results()
        row = [f"{title:<34}"]
        for metric in ("nm", "miou"):
            low, high = percentiles(np.array([draw[f"all {metric}"] for draw in draws]))
            row.append(f"{value[f'all {metric}']:.3f} [{low:.3f}, {high:.3f}]")
        row += [f"{count}: {value[f'{count} nm']:.3f}/{value[f'{count} miou']:.3f}" for count in COUNTS]
        print(" | ".join([*row, f"{value['regions']:.0f} regions", f"{seconds[title] / accumulator.n:.2f} s"]), flush=True)


def differences(scores: dict[str, Accumulator], first: str, second: str) -> None:
    """The paired difference of two entries."""
    draws = list(zip(scores[first].replicate_results(), scores[second].replicate_results(), strict=True))
    for metric in ("nm", "miou"):
        low, high = percentiles(np.array([after[f"all {metric}"] - before[f"all {metric}"] for after, before in draws]))
        gain = scores[first].result()[f"all {metric}"] - scores[second].result()[f"all {metric}"]
        print(f"{first} less {second}, {metric}: {gain:+.3f} [{low:+.3f}, {high:+.3f}]")


def evaluate(
    examples: list[Example], entries: list[Entry], read: Callable[[Example, np.ndarray, Entry], Features | None]
) -> tuple[dict[str, Accumulator], dict[str, float]]:
    """The sums and the seconds (without the encoder's) of each entry over some photographs."""
    scores = {entry.title: Accumulator(measure, reduce, REPLICATES) for entry in entries}
    seconds = dict.fromkeys(scores, 0.0)
    tree = registry.load("dataset", "voc2012").classes(SPEC.params()).tree
    for example in examples:
        image = decode(example.image, example.image_id)
        for entry in entries:
            sample = Sample(example.image_id, image, read(example, image, entry))
            start = time.process_time()
            regions = Segmenter.of(entry.method, entry.params).segment(sample)
            seconds[entry.title] += time.process_time() - start
            scores[entry.title].update(example.image_id, Truth("classes", example.truth, tree), regions)
    return scores, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="dinov2_vits14_saliency")
    parser.add_argument("--half", choices=[*HALVES, "all"], default="held-out")
    parser.add_argument("--images", type=int, help="only the first so many of a half")
    parser.add_argument("--ablation", action="store_true", help="one choice changed at a time, in place of the methods")
    parser.add_argument("--only", default="", help="only the entries with this text in their title")
    parser.add_argument("--features", type=Path, help="folder in which features are stored between runs")
    arguments = parser.parse_args()
    adapter = registry.load("dataset", "voc2012")
    examples = sorted(adapter.examples(SPEC.params(split="val")), key=lambda example: example.image_id)
    entries = [entry for entry in (ABLATION if arguments.ablation else MAIN) if arguments.only in entry.title]
    whole: dict[str, Accumulator] = {}
    time_of: dict[str, float] = {}
    for half in HALVES if arguments.half == "all" else [arguments.half]:
        chosen = examples[HALVES[half]][: arguments.images]
        scores, seconds = evaluate(
            chosen, entries, lambda example, image, entry: features(arguments.weights, example, image, entry, arguments.features)
        )
        print(f"{len(chosen)} photographs of VOC 2012 val ({half}), weights {arguments.weights}")
        table_of(scores, seconds)
        for title, accumulator in scores.items():
            time_of[title] = time_of.get(title, 0.0) + seconds[title]
            if title in whole:
                whole[title].merge(accumulator)
            else:
                whole[title] = accumulator
    if arguments.half == "all":
        print(f"{whole[entries[0].title].n} photographs (all)")
        table_of(whole, time_of)
    if not arguments.ablation and not arguments.only:
        for rival in ("the same, figure not first", "slic_merge", "hierarchy_agnostic"):
            differences(whole, "contour_merge, objects", rival)
        differences(whole, "hierarchy_agnostic", "hierarchy_agnostic, paper")


if __name__ == "__main__":
    main()
