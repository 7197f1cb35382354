"""Seconds an image: the BSDS500 region benchmark at 99 thresholds, beside the direct way.

    USS_MIRROR=… python benchmarks/bsds.py [--images 10] [--rounds 3]

Both start from the double-size ultrametric map of an image and its annotators' segmentations (ours as regions, as datasets keep
them), and end with covering, PRI and VOI at every threshold. The direct way labels the map anew at each threshold
(scipy.ndimage.label) and makes one contingency table an annotator with NumPy. Without the mirror of BSDS500 a map of like size is
drawn from noise. Results are compared; rounds alternate, and the fastest of each counts. The target is less than 0.5 s an image with 5 annotators.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.io import loadmat
from scipy.ndimage import gaussian_filter, label

from uss_dagster.datasets.base import mirror_folder
from uss_dagster.graphs.ucm import ucm_tree
from uss_dagster.metrics import bsds
from uss_dagster.regions import Regions

THRESHOLDS = np.arange(1, 100) / 100


def ours(ucm2: np.ndarray, annotators: Regions) -> np.ndarray:
    labels, tree = ucm_tree(ucm2)
    regions = Regions.from_tree(tree.leaf[labels], tree.parent, level=tree.height, source="ucm")
    scores = bsds.bsds_region(regions, annotators, bsds.prepare([regions]))
    return np.stack([scores.cnt / scores.sum, scores.ri, scores.voi])


def drawn_regions(annotators: list[np.ndarray]) -> Regions:
    masks = [labels == value for labels in annotators for value in np.unique(labels[labels > 0])]
    source = [f"annotator{number}" for number, labels in enumerate(annotators) for _ in np.unique(labels[labels > 0])]
    return Regions.from_masks(masks, source=source)


def direct(ucm2: np.ndarray, annotators: list[np.ndarray]) -> np.ndarray:
    rows = []
    for threshold in THRESHOLDS:
        segments = label(ucm2 <= threshold, np.ones((3, 3)))[0][1::2, 1::2]
        cnt, ri, voi = 0.0, [], []
        for drawn in annotators:
            width = int(drawn.max()) + 1
            table = np.bincount((segments * width + drawn).ravel(), minlength=(int(segments.max()) + 1) * width).reshape(-1, width)
            mine, theirs, n = table.sum(axis=1), table.sum(axis=0), drawn.size
            iou = table / np.maximum(mine[:, None] + theirs - table, 1)
            cnt += theirs[1:] @ iou[1:, 1:].max(axis=0)
            apart = ((mine**2).sum() + (theirs**2).sum()) / 2 - (table**2).sum()
            ri.append(1 - apart / (n * (n - 1) / 2))
            entropy = [-(share[share > 0] * np.log2(share[share > 0])).sum() for share in (mine / n, theirs / n, table / n)]
            voi.append(2 * entropy[2] - entropy[0] - entropy[1])
        rows.append([cnt / sum(np.count_nonzero(drawn) for drawn in annotators), np.mean(ri), np.mean(voi)])
    return np.array(rows).T


def photos(count: int) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """(map, its first 5 annotators' label maps) of photographs, or of noise."""
    folder = mirror_folder("bsds500")
    if folder is None or not (folder / "ucm2" / "test").is_dir():
        return [noise(np.random.default_rng(seed)) for seed in range(count)]
    found: list[tuple[np.ndarray, list[np.ndarray]]] = []
    for path in sorted((folder / "ucm2" / "test").glob("*.npz")):
        stored = np.load(path)
        cells = loadmat(folder / "data" / "groundTruth" / "test" / f"{path.stem}.mat")["groundTruth"].ravel()
        if len(cells) >= 5 and len(found) < count:
            found.append((stored["values"][stored["index"]], [cell["Segmentation"][0, 0].astype(np.int64) for cell in cells[:5]]))
    return found


def noise(rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Cells of 16 × 10 pixels with contours of smoothly varying strength, and five annotators' blobs."""
    height, width = 321, 481
    cells = np.arange(height)[:, None] // 10 * 1000 + np.arange(width) // 16
    wall = np.zeros((2 * height - 1, 2 * width - 1), bool)
    wall[:, 1::2] = (cells[:, 1:] != cells[:, :-1]).repeat(2, axis=0)[:-1]
    wall[1::2] |= (cells[1:] != cells[:-1]).repeat(2, axis=1)[:, :-1]
    strength = gaussian_filter(rng.random(wall.shape), 20)
    strength = (strength - strength.min()) / np.ptp(strength)
    blobs = [gaussian_filter(rng.random((height, width)), 25) for _ in range(5)]
    return np.pad(wall * strength, 1, mode="edge"), [1 + np.floor((b - b.min()) / np.ptp(b) * 19).astype(np.int64) for b in blobs]


def main() -> None:
    parser = argparse.ArgumentParser(description="BSDS500 region benchmark: ours beside one table a threshold and annotator.")
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    images = photos(arguments.images)
    regions = [drawn_regions(annotators) for _, annotators in images]
    ours(images[0][0], regions[0])  # compiles
    best = {"ours": np.full(len(images), np.inf), "direct": np.full(len(images), np.inf)}
    for _ in range(arguments.rounds):
        for number, (ucm2, annotators) in enumerate(images):
            results = {}
            for name, way, truth in (("ours", ours, regions[number]), ("direct", direct, annotators)):
                begun = time.perf_counter()
                results[name] = way(ucm2, truth)
                best[name][number] = min(best[name][number], time.perf_counter() - begun)
            np.testing.assert_allclose(results["ours"], results["direct"], atol=1e-9)
    print(f"{len(images)} images, {len(THRESHOLDS)} thresholds, 5 annotators; equal to 1e-9")
    for name, seconds in best.items():
        print(f"{name:8s}{seconds.mean():8.3f} s/image (slowest {seconds.max():.3f})")
    print(f"direct / ours {best['direct'].sum() / best['ours'].sum():.1f}")


if __name__ == "__main__":
    main()
