"""Seconds an image: ``contour_merge`` beside scikit-image's Felzenszwalb at ten scales, and greedy merging beside a plain Python heap.

    USS_MIRROR=… python benchmarks/contour_merge.py [--images 5] [--rounds 3]

One process and one thread on the same photographs: BSDS500's lowest numbers where USS_MIRROR has it, else scikit-image's own pictures. All
sides take a decoded image; ours ends with a tree, the other with ten label maps. Seconds of processor time; rounds alternate, so a busy machine
slows all, and the fastest round of each image counts. The second table says where the default's time goes; the fit of textons is in `planes`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from uss_dagster.runtime import quiet_environment, single_thread

quiet_environment()
single_thread()

import numpy as np  # noqa: E402

from uss_dagster import registry  # noqa: E402
from uss_dagster.datasets.base import Sample, mirror_folder  # noqa: E402
from uss_dagster.graphs import contours, merging, region_graph, watershed  # noqa: E402
from uss_dagster.methods import contour_merge  # noqa: E402

WATCHED = (
    (contour_merge, "histogram_planes", "planes"),
    (contour_merge, "contour_strength", "contours"),
    (contour_merge, "contour_leaves", "leaves"),
    (contour_merge, "bank_features", "bank"),
    (contour_merge, "whiten", "bank"),
    (contour_merge, "dictionary_features", "dictionary"),
    (contour_merge, "region_means", "means"),
    (contour_merge, "region_graph", "graphs"),
    (contour_merge, "border_heights", "merging"),
    (contour_merge, "merge_tree", "merging"),
    (contour_merge, "merged_down", "merging"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of contour_merge beside Felzenszwalb's segmentation.")
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    images = photographs(arguments.images)

    presets = [preset for preset in contour_merge.PRESETS if preset != "objects"]  # which merges by the tokens of a backbone
    sides: dict[str, Callable[[np.ndarray], object]] = {f"contour_merge {p}": partial(merge, p) for p in presets}
    sides["felzenszwalb, 10 scales"] = felzenszwalb
    best = {name: np.full(len(images), np.inf) for name in sides}
    for turn in range(arguments.rounds + 1):
        for number, image in enumerate(images):
            for name, run in sides.items():
                begun = time.process_time()
                run(image)
                if turn:  # the first round compiles and warms up
                    best[name][number] = min(best[name][number], time.process_time() - begun)
    theirs = best["felzenszwalb, 10 scales"].mean()
    print(f"{len(images)} images, e.g. {images[0].shape[1]}×{images[0].shape[0]}, one thread, seconds of processor an image")
    for name, seconds in best.items():
        print(f"{name:26s}{seconds.mean():7.3f}   felzenszwalb / this {theirs / seconds.mean():6.2f}")
    where_time_goes(images)
    merging_alone(images[0])


def merge(preset: Any, image: np.ndarray) -> object:
    return contour_merge.segment(Sample("", image), contour_merge.Params(preset=preset))


def photographs(count: int) -> list[np.ndarray]:
    if mirror_folder("bsds500") is None:
        from skimage import data

        return [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()][:count]
    from uss_dagster.artifacts.image_files import decode

    bsds = registry.load("dataset", "bsds500")
    return [decode(example.image, example.image_id) for example in bsds.examples(bsds.Params(limit=count))]


def felzenszwalb(image: np.ndarray) -> list[np.ndarray]:
    from skimage.segmentation import felzenszwalb as segment

    scales = np.geomspace(50, 5000, 10).tolist()
    return [segment(image, scale=s, sigma=0.8, min_size=round(max(20, s / 2)), channel_axis=-1) for s in scales]


def where_time_goes(images: list[np.ndarray]) -> None:
    """One more pass of the default with a clock around what ``segment`` calls."""
    spent: dict[str, float] = {}

    def timed(function: Callable[..., object], part: str) -> Callable[..., object]:
        def call(*args: object, **values: object) -> object:
            begun = time.process_time()
            result = function(*args, **values)
            spent[part] = spent.get(part, 0.0) + time.process_time() - begun
            return result

        return call

    before = {name: getattr(module, name) for module, name, _ in WATCHED}
    for module, name, part in WATCHED:
        setattr(module, name, timed(before[name], part))
    begun = time.process_time()
    for image in images:
        contour_merge.segment(Sample("", image), contour_merge.Params())
    whole = time.process_time() - begun
    for module, name, _ in WATCHED:
        setattr(module, name, before[name])
    spent["the rest"] = whole - sum(spent.values())
    print("r1: " + ", ".join(f"{part} {1000 * seconds / len(images):.0f} ms" for part, seconds in spent.items()))


def merging_alone(image: np.ndarray) -> None:
    """The compiled merging beside the same algorithm with Python's heap and dictionaries, on the leaves of one image."""
    from skimage.color import rgb2lab

    lab = rgb2lab(image).astype(np.float32)
    strength = contours.contour_strength(contours.histogram_planes(lab))
    leaves = watershed.contour_leaves(strength)
    graph, area = region_graph.region_graph(leaves, strength), np.bincount(leaves.ravel())
    features = np.random.default_rng(0).normal(size=(len(area), 50))
    seconds = {}
    for name, run in {"compiled": merging.merges, "heapq": merged_in_python}.items():
        times = []
        for _ in range(4):
            begun = time.process_time()
            run(graph, area, features, feature_weight=0.3, size_exponent=0.2)
            times.append(time.process_time() - begun)
        seconds[name] = min(times)
    print(
        f"merging {len(area)} leaves: compiled {1000 * seconds['compiled']:.1f} ms, Python {1000 * seconds['heapq']:.1f} ms, "
        f"ratio {seconds['heapq'] / seconds['compiled']:.1f}"
    )


def merged_in_python(
    graph: region_graph.RegionGraph, area: np.ndarray, features: np.ndarray, *, feature_weight: float, size_exponent: float
) -> list[tuple[int, int]]:
    """What one would write without a compiler: a heap of pairs and a dictionary of borders a region."""
    import heapq

    size, mean = [float(a) for a in area], list(features)
    whole = sum(size)
    borders: list[dict[int, tuple[float, float]]] = [{} for _ in size]
    for (i, j), length, strength in zip(graph.pairs.tolist(), graph.length.tolist(), graph.strength.tolist(), strict=True):
        borders[i][j] = borders[j][i] = (length, length * strength)

    def cost(i: int, j: int) -> tuple[float, int, int]:
        length, total = borders[i][j]
        shrink = (size[i] * size[j] / ((size[i] + size[j]) * whole)) ** size_exponent
        return (feature_weight * float(np.linalg.norm(mean[i] - mean[j])) + total / length) * shrink, min(i, j), max(i, j)

    queue = [cost(i, j) for i, j in graph.pairs.tolist()]
    heapq.heapify(queue)
    done: set[int] = set()
    merged = []
    while queue:
        _, i, j = heapq.heappop(queue)
        if i in done or j in done:
            continue
        done |= {i, j}
        merged.append((i, j))
        new = len(size)
        size.append(size[i] + size[j])
        mean.append((size[i] * mean[i] + size[j] * mean[j]) / size[new])
        joined: dict[int, tuple[float, float]] = {}
        for old in (i, j):
            for other, (length, total) in borders[old].items():
                if other not in (i, j):
                    before = joined.get(other, (0.0, 0.0))
                    joined[other] = before[0] + length, before[1] + total
        borders.append(joined)
        for other, border in joined.items():
            borders[other].pop(i, None)
            borders[other].pop(j, None)
            borders[other][new] = border
            heapq.heappush(queue, cost(other, new))
    return merged


if __name__ == "__main__":
    main()
