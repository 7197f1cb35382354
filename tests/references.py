"""Scores from label maps and from COCO's lists, by the functions that the metric families use: what other paths are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from uss_dagster.metrics import bsds
from uss_dagster.metrics.base import Truth
from uss_dagster.metrics.coco.matches import MAX_DETS, SIZES, Matches, match_codes, summaries
from uss_dagster.metrics.covering import Covering, tree_covering
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.regions.coco import code_of


def as_truth(gt: np.ndarray, classes: tuple | ClassTree) -> Truth:
    """Ground truth as a dataset gives it: the tree of class regions, labelled with class-tree nodes."""
    tree = classes if isinstance(classes, ClassTree) else ClassTree.from_arrays(*classes)
    return Truth("classes", Regions.from_tree(gt, tree.parent, label=np.arange(len(tree))).pruned(), tree)


def hierarchical_covering(
    gt: np.ndarray, classes: tuple | ClassTree, pred: np.ndarray, parents: Sequence[int], threshold: float = 0.0, mode: str = "code"
) -> Covering:
    """Covering of the leaf map of a class tree by the leaf map of a predicted tree."""
    return tree_covering(as_truth(gt, classes), Regions.from_tree(pred, parents), threshold, mode)


def annotator_regions(maps: Sequence[np.ndarray]) -> Regions:
    """Ground truth of one label map an annotator, 0 for no region; who drew nothing has an empty region."""
    values = [np.unique(labels[labels > 0]).tolist() or [1] for labels in maps]
    masks = [labels == value for labels, own in zip(maps, values, strict=True) for value in own]
    return Regions.from_masks(masks, source=[f"annotator{number:02d}" for number, own in enumerate(values) for _ in own])


def family(maps: Sequence[np.ndarray]) -> Regions:
    """Overlapping regions of label maps, the level is the map's number; 0 for no region."""
    values = [np.unique(labels[labels > 0]).tolist() for labels in maps]
    masks = [labels == value for labels, own in zip(maps, values, strict=True) for value in own]
    level = [number for number, own in enumerate(values) for _ in own]
    return Regions.from_masks(masks, level=level, shape=maps[0].shape) if masks else Regions.from_masks([], shape=maps[0].shape)


def bsds_of_maps(maps: Sequence[np.ndarray], drawn: Sequence[np.ndarray]) -> bsds.RegionScores:
    """BSDS scores of label maps, one a scale, which leave the same pixels out, against annotators' label maps."""
    return bsds.bsds_region(family(maps), annotator_regions(drawn), bsds.Scales("level", tuple(map(float, range(len(maps))))))


def cluster_table(clusters: np.ndarray, labels: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(pixels of each cluster in each class, pixels of each class in no cluster) of any number of maps; label 255 is ignored."""
    valid = labels != 255
    table = np.zeros((shape[0] + 1, shape[1]), np.int64)
    np.add.at(table, (clusters[valid], labels[valid]), 1)  # cluster -1 is the last row
    return table[:-1], table[-1]


def proposal_ar_ap(
    gt: Sequence[Any] | Mapping[str, Any],
    dt: Sequence[Any],
    max_dets: Sequence[int] = MAX_DETS,
    *,
    ap_max_dets: int | None = None,
    sizes: Mapping[Any, tuple[int, int]] | None = None,
) -> dict[str, float]:
    """AR and AP of COCO's annotations (or whole dataset) and results; -1 for a value without ground truth, as in COCOeval.

    AP is taken at the last of ``max_dets``, or at ``ap_max_dets``, where it is one of these.
    """
    sizes = dict(sizes or {})
    if isinstance(gt, Mapping):
        sizes |= {image["id"]: (image["height"], image["width"]) for image in gt["images"]}
        gt = gt["annotations"]
    groups: dict[Any, tuple[list[Any], list[Any]]] = {}
    for side, entries in enumerate((gt, dt)):
        for annotation in sorted(entries, key=lambda a: a.get("category_id", 0)):
            groups.setdefault(annotation["image_id"], ([], []))[side].append(annotation)
    images = [_matches(i, *groups[i], sizes.get(i), max_dets[-1]) for i in sorted(groups)]
    once = np.ones((1, len(images)), np.int64)
    values = next(summaries(images, once, max_dets))
    if ap_max_dets is not None:
        fewer = [replace(m, **{name: getattr(m, name)[:ap_max_dets] for name in ("score", "found", "void")}) for m in images]
        values["ap"] = next(summaries(fewer, once, max_dets)).get("ap", -1.0) if ap_max_dets in max_dets else -1.0
    names = [*(f"ar{k}" for k in max_dets), *(f"ar_{size}" for size in SIZES[1:])]
    names += ["ap", "ap50", "ap75", *(f"ap_{size}" for size in SIZES[1:])]
    return {name: values.get(name, -1.0) for name in names}


def _matches(image_id: Any, truths: list[Any], results: list[Any], size: tuple[int, int] | None, at_most: int) -> Matches:
    if size is None:
        size = next(tuple(a["segmentation"]["size"]) for a in (*truths, *results))  # type: ignore[assignment]
    assert size is not None
    truth_codes, codes = (
        [code_of(a["segmentation"], *size, f"Image '{image_id}', {what} {n}") for n, a in enumerate(entries)]
        for entries, what in ((truths, "ground truth"), (results, "result"))
    )
    return match_codes(
        size,
        truth_codes,
        codes,
        [result["score"] for result in results],
        truth_area=[truth.get("area", -1.0) for truth in truths],
        crowd=[bool(truth.get("iscrowd", 0)) for truth in truths],
        at_most=at_most,
        image_id=image_id,
    )
