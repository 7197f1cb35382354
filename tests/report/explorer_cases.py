"""Made-up families of regions, and the explorer's page that holds them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from uss_dagster.regions import Regions
from uss_dagster.report.explorer import SegmentedImage

HOSTILE = "</script><img src=x onerror=alert(1)>&'\""


def tiling(rng: np.random.Generator, height: int, width: int, leaves: int) -> Regions:
    """A tree of merged cells, the cells nearest to random points; the root first."""
    points = rng.random((leaves, 2)) * [height, width]
    grid = np.indices((height, width)).reshape(2, -1).T[:, None]
    cells = ((grid - points) ** 2).sum(axis=2).argmin(axis=1)
    alive, parent, level = list(range(leaves)), np.full(2 * leaves - 1, -1), np.zeros(2 * leaves - 1)
    for step in range(leaves - 1):
        first, second = (alive.pop(rng.integers(len(alive))) for _ in range(2))
        parent[[first, second]] = leaves + step
        level[leaves + step] = step + 1
        alive.append(leaves + step)
    last = 2 * leaves - 2  # numbered from the leaves, turned over so that parents come first
    return Regions.from_tree((last - cells).reshape(height, width), np.where(parent < 0, -1, last - parent)[::-1], level=level[::-1])


def forest(rng: np.random.Generator, height: int, width: int, nodes: int) -> Regions:
    """A tree whose parts do not fill it: pixels belong to any node, some to none."""
    parent = np.array([-1, *(int(rng.integers(-1, node)) for node in range(1, nodes))])
    return Regions.from_tree(rng.integers(-1, nodes, (height, width)), parent)


def pool(rng: np.random.Generator, height: int, width: int, masks: int) -> Regions:
    """Overlapping boxes, some the same."""
    top, left = rng.integers(0, height, masks), rng.integers(0, width, masks)
    rows, columns = np.arange(height)[:, None], np.arange(width)
    tall, wide = rng.integers(1, height + 1, masks), rng.integers(1, width + 1, masks)
    found = [(rows >= t) & (rows < t + h) & (columns >= x) & (columns < x + w) for t, x, h, w in zip(top, left, tall, wide, strict=True)]
    found[masks // 2] = found[0]
    return Regions.from_masks(found, level=rng.random(masks), score=rng.random(masks), source=[f"s{i % 3}" for i in range(masks)])


def nested_pool(rng: np.random.Generator, height: int, width: int, masks: int) -> Regions:
    """Overlapping masks in a tree whose parts neither fill it nor keep apart."""
    found, parent = [np.ones((height, width), bool)], [-1]
    for mask in pool(rng, height, width, masks).masks()[1:]:
        above = int(rng.integers(len(found)))
        found.append(mask & found[above])
        parent.append(above)
    return Regions.from_masks(found, parent)


def labels(rng: np.random.Generator, height: int, width: int, n: int) -> Regions:
    """A plain label map with labels."""
    return Regions.from_label_map(rng.integers(0, n, (height // 4, width // 4)).repeat(4, 0).repeat(4, 1), ignore=0, use_labels=True)


def cases(seed: int = 0, height: int = 24, width: int = 32) -> dict[str, Regions]:
    """One family of each kind."""
    rng = np.random.default_rng(seed)
    return {
        "tiling": tiling(rng, height, width, 20),
        "forest": forest(rng, height, width, 15),
        "pool": pool(rng, height, width, 18),
        "nested_pool": nested_pool(rng, height, width, 18),
        "labels": labels(rng, height, width, 5),
        "none": Regions.from_masks([], shape=(height, width)),
    }


def shown() -> Iterator[SegmentedImage]:
    """Two pictures of one dataset and one of another, all families as entries, one with a hostile name."""
    for number, (dataset, image_id) in enumerate((("cats", "a/b"), ("cats", f"c {HOSTILE}"), (f"dogs {HOSTILE}", "d"))):
        height, width = ((48, 64), (64, 48), (48, 64))[number]
        found = cases(number, height, width)
        truth = labels(np.random.default_rng([number, 1]), height, width, 4)
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        entries = {f"bad {HOSTILE}" if name == "labels" else name: regions for name, regions in found.items()}
        scores = {"tiling": {"overlap": 0.5, "error": float("nan")}}
        yield SegmentedImage(dataset, image_id, pixels, [("Ground truth", truth)], entries, scores, ("cat", "dog", f"fox {HOSTILE}", "hen"))
