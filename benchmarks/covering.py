"""Hierarchical covering of one image, tables and all, beside the products of pixels × regions that it is usually computed with.

    python benchmarks/covering.py [--size 480 640] [--regions 400] [--truth 30] [--rounds 20] [--integer 32]

Both sides run on one core, the usual way from two leaf maps and two parent arrays, ours from the ``Regions`` that the pipeline reads;
what it takes to make these of the leaf maps is timed apart. Ours ends with NMCovering and NHCovering; the usual way
ends with the table of IoU, and their greatest IoUs must agree. It makes a float32 mask of every region (truth × pixels and
regions × pixels), multiplies them with BLAS and divides; the three steps are timed apart. Released code multiplies integer masks, for
which there is no BLAS: that is run on every ``--integer``-th pixel (0: not at all; 1: on all, minutes) and its time scaled up. The
fastest of ``--rounds`` runs counts for ours, the fastest of three for the usual way. The target is a ratio of at least 300 to the
whole of it, and at most 10 ms.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from uss_dagster.runtime import quiet_environment

quiet_environment()

import numpy as np  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from uss_dagster.metrics.base import Truth  # noqa: E402
from uss_dagster.metrics.covering import tree_covering  # noqa: E402
from uss_dagster.regions import ClassTree, Regions  # noqa: E402
from uss_dagster.regions.regions import ancestor_matrix  # noqa: E402


def random_tree(nodes: int, rng: np.random.Generator) -> np.ndarray:
    """Parents of a tree of ``nodes`` and a root, several levels deep."""
    return np.array([-1, *(int(rng.integers(node // 3, node)) for node in range(1, nodes + 1))])


def leaf_map(parent: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Int32 (H, W): each leaf of the tree the cell of a random point."""
    from scipy.spatial import cKDTree

    leaves = np.setdiff1d(np.arange(len(parent)), parent)
    points = rng.random((len(leaves), 2)) * (height, width)
    nearest = cKDTree(points).query(np.argwhere(np.ones((height, width))))[1]
    return leaves[nearest].reshape(height, width).astype(np.int32)


def masks(leaves: np.ndarray, parent: np.ndarray, kind: type) -> np.ndarray:
    """(nodes below the root, pixels): 1 where a pixel belongs to a node."""
    return ancestor_matrix(parent)[1:].astype(kind)[:, leaves.ravel()]


def timed(work: Callable[[], object], rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begun)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description="Hierarchical covering beside pixel × region products.")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--regions", type=int, default=400)
    parser.add_argument("--truth", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--integer", type=int, default=32, metavar="STRIDE")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    height, width = arguments.size
    gt_parent, pred_parent = random_tree(arguments.truth, rng), random_tree(arguments.regions, rng)
    gt, pred = leaf_map(gt_parent, height, width, rng), leaf_map(pred_parent, height, width, rng)
    inner = np.isin(np.arange(len(gt_parent)), gt_parent)
    classes = ClassTree.from_arrays(gt_parent.tolist(), np.where(inner, -1, 0).tolist())
    parts = {"masks": 0.0, "product": 0.0, "division": 0.0}

    def usual() -> np.ndarray:
        begun = time.perf_counter()
        truth, found = masks(gt, gt_parent, np.float32), masks(pred, pred_parent, np.float32)
        made = time.perf_counter()
        shared = truth @ found.T
        multiplied = time.perf_counter()
        iou = shared / (truth.sum(axis=1)[:, None] + found.sum(axis=1) - shared)
        ended = time.perf_counter()
        parts.update(masks=made - begun, product=multiplied - made, division=ended - multiplied)
        return iou

    def sides() -> tuple[Truth, Regions]:
        truth = Truth("classes", Regions.from_tree(gt, gt_parent, label=np.arange(len(gt_parent))), classes)
        return truth, Regions.from_tree(pred, pred_parent)

    with threadpool_limits(1):
        ours_result = tree_covering(*sides())
        images = iter([sides() for _ in range(arguments.rounds)])  # nothing is cached in any of them
        ours, building = timed(lambda: tree_covering(*next(images)), arguments.rounds), timed(sides, arguments.rounds)
        best = usual()[ours_result.gt_nodes - 1].max(axis=1)
        if not np.allclose(best, ours_result.iou, atol=1e-5):
            raise SystemExit("The two ways do not agree.")
        baseline = timed(usual, 3)
        print(f"{arguments.regions} predicted regions, {arguments.truth} nested ground-truth regions, {height}×{width}, one core")
        print(f"ours, all                              {1e3 * ours:10.2f} ms")
        print(f"regions of two leaf maps               {1e3 * building:10.2f} ms")
        print(f"float32 masks, BLAS product, division  {1e3 * baseline:10.2f} ms   {baseline / ours:8.0f} × ours")
        for name, seconds in parts.items():
            print(f"    of which {name:8s}                  {1e3 * seconds:10.2f} ms   {seconds / ours:8.0f} × ours")
        if arguments.integer:
            some = slice(None, None, arguments.integer)
            truth, found = (masks(m.ravel()[some], p, np.int64) for m, p in ((gt, gt_parent), (pred, pred_parent)))
            integer = timed(lambda: truth @ found.T, 1) * arguments.integer
            print(f"integer product alone, from 1 pixel in {arguments.integer:<4d}{1e3 * integer:8.0f} ms   {integer / ours:8.0f} × ours")


if __name__ == "__main__":
    main()
