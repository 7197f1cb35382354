"""Small images for the tests of metrics: the recorded ones, and random ones of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from references import as_truth

from uss_dagster.metrics.base import Truth
from uss_dagster.regions import Regions

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "metrics_golden.npz")
CASES = sorted(key[:6] for key in GOLDEN.files if key.endswith("_gt_nodes"))
TREES = sorted({int(GOLDEN[f"{case}_class_tree"]) for case in CASES})

Case = tuple[np.ndarray, tuple, np.ndarray, list[int]]
"""Ground-truth leaf map, (parents, kinds) of the class tree, predicted leaf map, predicted parents."""


def golden_case(case: str) -> Case:
    return GOLDEN[f"{case}_gt"], golden_tree(case), GOLDEN[f"{case}_pred"], GOLDEN[f"{case}_pred_parent"].tolist()


def golden_tree(case: str) -> tuple[np.ndarray, np.ndarray]:
    tree = int(GOLDEN[f"{case}_class_tree"])
    return GOLDEN[f"tree{tree}_parent"], GOLDEN[f"tree{tree}_type"]


def sides(case: Case) -> tuple[Truth, Regions]:
    """A case as the pipeline sees it."""
    gt, classes, pred, parents = case
    return as_truth(gt, classes), Regions.from_tree(pred, parents)


def random_tree(rng: np.random.Generator, most: int = 9) -> list[int]:
    return [-1] + [int(rng.integers(node)) for node in range(1, int(rng.integers(2, most)))]


def random_case(seed: int, largest: int = 6) -> Case:
    """A small image; ground truth holds every kind of leaf, and sometimes inner nodes."""
    rng = np.random.default_rng(seed)
    class_parent = random_tree(rng)
    inner = set(class_parent)
    kind = [-1 if node in inner else int(rng.choice([0, 0, 0, 1, 2])) for node in range(len(class_parent))]
    parents = random_tree(rng, 12)
    shape = tuple(rng.integers(2, largest + 1, 2))
    return rng.integers(1, len(kind), shape), (class_parent, kind), rng.integers(0, len(parents), shape), parents


def perfect(case: Case) -> Case:
    """The ground truth as its own prediction; all background is one more leaf under the root."""
    gt, classes, _, _ = case
    kind = np.asarray(classes[1])
    return gt, classes, np.where(kind[gt] == 1, len(kind), gt), [*classes[0], 0]


def random_annotators(seed: int) -> tuple[Truth, Regions]:
    """Two or three flat segmentations of one image, and a predicted tree."""
    rng = np.random.default_rng(seed)
    _, _, pred, parents = random_case(seed)
    maps = [rng.integers(0, rng.integers(1, 5), pred.shape) for _ in range(rng.integers(2, 4))]
    pairs = [(labels == value, f"annotator {a}") for a, labels in enumerate(maps) for value in np.unique(labels)]
    truth = Regions.from_masks([mask for mask, _ in pairs], source=[name for _, name in pairs])
    return Truth("annotators", truth), Regions.from_tree(pred, parents)
