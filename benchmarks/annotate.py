"""Labelling by clicks on regions: how much work it is beside drawing polygons, and whether few labelled images rank the methods as all do.

    USS_MIRROR=FOLDER python benchmarks/annotate.py voc [--images 20] [--work .annotate-benchmark] [--repetitions 10]

A simulated person knows the ground truth (``uss_dagster.annotation.simulation``): connected regions of the classes of VOC 2012, void pixels
left out, or the segments of the first annotator of BSDS500; those below .2 % of the image are left out. Each region is clicked until its IoU is .85,
at most 20 times, without the brush. Beside it: the fewest corners of polygons with which the true mask is drawn to the same IoU. Regions
of all entries are computed first and kept in the work folder.

The ranking: images come in the order of ``annotation.order``, drawn anew in each repetition; after each, the labels from clicks rank the entries, until
the page says stop or 5, 10 or 15 images are labelled. Right is a leader that is the best entry on all images by the ground truth itself, or one that the
intervals over all images do not tell apart from it.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.draw import polygon
from skimage.measure import approximate_polygon, find_contours

from uss_dagster.annotation.entries import Entries, segment_entries
from uss_dagster.annotation.order import Order, differences
from uss_dagster.annotation.pool import pool_of
from uss_dagster.annotation.progress import Ranking, rank
from uss_dagster.annotation.simulation import ENOUGH, Labelled, label
from uss_dagster.commands.parameters import make_segmenter
from uss_dagster.datasets.bsds500 import read_annotators
from uss_dagster.metrics.base import Truth
from uss_dagster.metrics.covering import measure
from uss_dagster.regions import Regions
from uss_dagster.segmenter import Segmenter

METHODS = ("contour_merge", "slic_merge", "felzenszwalb", "kmeans", "ncut_recursive")
LEAST_SHARE, AFTER = 0.002, (5, 10, 15)


def segmenters() -> dict[str, Segmenter]:
    """The methods by themselves, one also with two scales; those that read features read ``patches``."""
    both = {name: make_segmenter(name, None, None, None, 1024) for name in METHODS}
    return both | {"felzenszwalb_2": make_segmenter("felzenszwalb", ["scales=2"], None, None, 1024)}


def photographs(dataset: str, mirror: Path, count: int) -> list[tuple[str, Path]]:
    """(id, file) of images spread over the sample."""
    folder, step = {"voc": ("voc2012/VOCdevkit/VOC2012/JPEGImages", 4), "bsds": ("bsds500/data/images/test", 3)}[dataset]
    files = sorted((mirror / folder).glob("*.jpg"))[::step][:count]
    return sorted((path.stem, path) for path in files)


def targets_of(dataset: str, mirror: Path, image_id: str) -> tuple[list[np.ndarray], np.ndarray]:
    """The regions to label, bool (H, W) each, and the pixels that count."""
    if dataset == "bsds":
        labels = read_annotators(mirror / f"bsds500/data/groundTruth/test/{image_id}.mat", image_id)[0]
        valid = np.ones(labels.shape, bool)
        masks = [labels == value for value in np.unique(labels)]
    else:
        labels = np.asarray(Image.open(mirror / f"voc2012/VOCdevkit/VOC2012/SegmentationClass/{image_id}.png"))
        valid = labels != 255
        parts = [ndimage.label(labels == value) for value in np.unique(labels[valid]) if value]
        masks = [numbered == number for numbered, most in parts for number in range(1, most + 1)]
    return [mask for mask in masks if mask.sum() >= LEAST_SHARE * mask.size], valid


def corners(mask: np.ndarray, valid: np.ndarray) -> int:
    """The fewest corners of polygons that give the mask with an IoU of ``ENOUGH``, over tolerances of Douglas and Peucker's method."""
    padded = np.pad(mask.astype(float), 1)
    contours = sorted(find_contours(padded, 0.5), key=len, reverse=True)
    fewest = sum(map(len, contours))
    for tolerance in np.geomspace(0.5, 0.5 * max(mask.shape), 24):
        drawn, count = np.zeros_like(mask), 0
        for contour in contours:
            points = approximate_polygon(contour, tolerance)[:-1] - 1
            if len(points) < 3:
                continue
            inside = np.zeros_like(mask)
            inside[polygon(points[:, 0], points[:, 1], mask.shape)] = True
            drawn, count = drawn ^ inside, count + len(points)
        shared = (drawn & mask & valid).sum()
        if shared >= ENOUGH * ((drawn | mask) & valid).sum():
            fewest = min(fewest, count)
    return fewest


@dataclass(frozen=True)
class LabelledImage:
    """What was made of one image. scores: NMCovering of each entry by the labels from clicks; true_scores: by the ground truth."""

    labels: list[Labelled]
    corners: list[int]
    pool_seconds: float
    click_seconds: float
    candidates: int
    scores: np.ndarray
    true_scores: np.ndarray


def label_image(entries: Entries, image_id: str, masks: list[np.ndarray], valid: np.ndarray) -> LabelledImage:
    shape = valid.shape
    families = [entries.regions(entry, image_id, shape) for entry in entries.names]
    started = time.process_time()
    pool = pool_of(families, shape)
    _ = pool.start
    pooled = time.process_time()
    labels = [label(pool, mask, valid) for mask in masks]
    clicked = time.process_time()
    made = [one.mask for one in labels if one.mask.any()]
    scores = [[_score(family, truth) for family in families] for truth in (made, masks)]
    return LabelledImage(
        labels, [corners(mask, valid) for mask in masks], pooled - started, clicked - pooled, len(pool.regions), *map(np.array, scores)
    )


def _score(family: Regions, masks: list[np.ndarray]) -> float:
    contribution = measure(Truth("annotators", Regions.from_masks(masks)), family)
    return float(contribution["nm_covering_annotators"]) if contribution else np.nan


def show_labelling(images: dict[str, LabelledImage]) -> None:
    labels = [one for image in images.values() for one in image.labels]
    drawn = [count for image in images.values() for count in image.corners]
    reached = np.array([one.reached for one in labels])
    clicks, actions = (np.array([getattr(one, name) for one in labels]) for name in ("clicks", "actions"))
    whole = [all(one.reached for one in image.labels) for image in images.values()]
    print(
        f"{len(images)} images, {len(labels)} regions; candidates an image: {np.mean([image.candidates for image in images.values()]):.0f}"
    )
    print(f"IoU {ENOUGH} reached: {reached.mean():.1%} of regions, all regions of {sum(whole)} images")
    for name, chosen in (("all", np.ones_like(reached)), ("reached", reached), ("not reached", ~reached)):
        if chosen.any():
            ious = np.array([one.iou for one in labels])[chosen]
            print(
                f"  {name}: clicks mean {clicks[chosen].mean():.1f}, median {np.median(clicks[chosen]):.0f}; actions {actions[chosen].mean():.1f}, "
                f"median {np.median(actions[chosen]):.0f}; polygon corners {np.array(drawn)[chosen].mean():.1f}, median "
                f"{np.median(np.array(drawn)[chosen]):.0f}; IoU {ious.mean():.3f}"
            )
    per_image = [(sum(o.clicks for o in i.labels), sum(o.actions for o in i.labels), sum(i.corners)) for i in images.values()]
    print("an image: clicks {:.1f}, actions {:.1f}, corners {:.1f}".format(*np.mean(per_image, axis=0)))
    seconds = [(image.pool_seconds, image.click_seconds) for image in images.values()]
    print("an image, seconds of processor: candidates {:.2f} s, all clicks {:.2f} s".format(*np.mean(seconds, axis=0)))


def show_ranking(entries: Entries, images: dict[str, LabelledImage], repetitions: int) -> None:
    ids = list(images)
    by_clicks = np.stack([images[i].scores for i in ids])
    by_truth = np.stack([images[i].true_scores for i in ids])
    everything = rank(by_truth, np.ones(len(ids)), ids, entries.names, 0)
    print(f"ranking, ground truth of all images:  {_line(everything)}")
    print(f"ranking, clicked labels of all images: {_line(rank(by_clicks, np.ones(len(ids)), ids, entries.names, 0))}")
    good = {standing.entry for standing in everything.standings if standing.state != "behind"}
    difference = {i: value for i, value in differences(entries).items() if i in images}
    for name, spread in (("the page's order", difference), ("a plain random order", dict.fromkeys(ids, 1.0))):
        orders = [Order({f"{repetition}:{i}": value for i, value in spread.items()}) for repetition in range(repetitions)]
        for most in AFTER:
            ends = [_until_stop(order, by_clicks, ids, entries.names, most) for order in orders]
            leaders = [ranking.standings[0].entry for ranking in ends]
            right = sum(leader in good for leader in leaders)
            winner = sum(leader == everything.standings[0].entry for leader in leaders)
            stops = [leader in good for leader, ranking in zip(leaders, ends, strict=True) if ranking.stop]
            print(
                f"{name}, at most {most} images: right in {right} of {repetitions} repetitions, the very winner in {winner}; "
                f"stopped in {len(stops)}, of these right {sum(stops)}; images {np.mean([ranking.images for ranking in ends]):.1f}"
            )


def _until_stop(order: Order, scores: np.ndarray, ids: list[str], names: tuple[str, ...], most: int) -> Ranking:
    place = {image_id: number for number, image_id in enumerate(ids)}
    for count in range(1, most + 1):
        asked = order.ids[:count]
        weights = order.weights(asked)
        rows = scores[[place[i.partition(":")[2]] for i in asked]]
        ranking = rank(rows, np.array([weights[i] for i in asked]), asked, names, len(ids) - count)
        if ranking.stop:
            break
    return ranking


def _line(ranking: Ranking) -> str:
    return ", ".join(f"{one.entry} {one.value:.3f}" + ("" if one.state == "leads" else f" [{one.state}]") for one in ranking.standings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=["voc", "bsds"])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--work", type=Path, default=Path(".annotate-benchmark"))
    parser.add_argument("--repetitions", type=int, default=10)
    arguments = parser.parse_args()
    mirror = Path(os.environ["USS_MIRROR"])
    named = photographs(arguments.dataset, mirror, arguments.images)
    entries = segment_entries(named, segmenters(), arguments.work / arguments.dataset, print, print)
    images: dict[str, LabelledImage] = {}
    for image_id, _ in named:
        masks, valid = targets_of(arguments.dataset, mirror, image_id)
        if masks:
            images[image_id] = label_image(entries, image_id, masks, valid)
    show_labelling(images)
    show_ranking(entries, images, arguments.repetitions)


if __name__ == "__main__":
    main()
