"""Proposals against pycocotools on real COCO photos: the same ground truth, crowds included, and five kinds of results."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from references import proposal_ar_ap

from uss_dagster.datasets.base import mirror_folder
from uss_dagster.metrics.base import Truth
from uss_dagster.metrics.coco.matches import MAX_DETS, SIZES
from uss_dagster.metrics.proposals import accumulator
from uss_dagster.regions import Regions, rle

Annotations = list[dict[str, Any]]
Dataset = dict[str, Any]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    folder = mirror_folder("coco_val2017")
    if folder is None:
        pytest.skip("The 103 COCO photos are not here: set USS_MIRROR to the folder that holds coco_val2017/.")
    return json.loads((folder / "annotations" / "instances_val2017.json").read_text())


def coco_eval(dataset: Dataset, results: Annotations, max_dets: tuple[int, ...]) -> COCOeval:
    """COCOeval with useCats = 0, accumulated."""
    with contextlib.redirect_stdout(io.StringIO()):
        gt, dt = COCO(), COCO()
        gt.dataset = copy.deepcopy(dataset)
        gt.createIndex()
        if results:
            dt = gt.loadRes(copy.deepcopy(results))
        else:  # loadRes looks at the first result
            dt.dataset = {**gt.dataset, "annotations": []}
            dt.createIndex()
        evaluation = COCOeval(gt, dt, "segm")
        evaluation.params.useCats = 0
        evaluation.params.maxDets = list(max_dets)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def coco_values(evaluation: COCOeval) -> dict[str, float]:
    """Our names for the entries of COCOeval's arrays; AP at the last of maxDets."""
    precision, recall = evaluation.eval["precision"][:, :, 0], evaluation.eval["recall"][:, 0]
    values = {f"ar{k}": recall[:, 0, m].mean() for m, k in enumerate(evaluation.params.maxDets)}
    values |= {"ap": precision[:, :, 0, -1].mean(), "ap50": precision[0, :, 0, -1].mean(), "ap75": precision[5, :, 0, -1].mean()}
    for s, size in enumerate(SIZES[1:], 1):
        values |= {f"ar_{size}": recall[:, s, -1].mean(), f"ap_{size}": precision[:, :, s, -1].mean()}
    return values


def codes(dataset: Dataset) -> Annotations:
    """The ground truth as results with a score of 1."""
    gt = COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        gt.dataset = copy.deepcopy(dataset)
        gt.createIndex()
    return [{"image_id": a["image_id"], "category_id": 1, "segmentation": gt.annToRLE(a), "score": 1.0} for a in gt.dataset["annotations"]]


def boxes(rng: np.random.Generator, image: dict[str, Any], n: int) -> Annotations:
    """Random filled boxes of one image, a third of them with a score that others have too."""
    height, width = image["height"], image["width"]
    corner = rng.random((n, 2)) * (width - 1, height - 1)
    size = rng.random((n, 2)) ** 2 * ((width, height) - corner)
    found = coco_mask.frPyObjects(np.concatenate([corner, size], axis=1), height, width)
    score = rng.random(n)
    score[: n // 3] = score[: n // 3].round(1)
    return [{"image_id": image["id"], "category_id": 1, "segmentation": s, "score": float(v)} for s, v in zip(found, score, strict=True)]


def damaged(rng: np.random.Generator, annotation: dict[str, Any]) -> dict[str, Any]:
    """A result without some columns and rows at its side, so that its IoU is anywhere between 0 and 1."""
    mask = coco_mask.decode(annotation["segmentation"])
    y, x = np.nonzero(mask)
    mask[:, int(np.quantile(x, rng.uniform(0.5, 1))) :] = 0
    mask[: int(np.quantile(y, rng.uniform(0, 0.3))) if len(y) else 0] = 0
    return annotation | {"segmentation": coco_mask.encode(np.asfortranarray(mask)), "score": float(rng.random())}


def random_results(dataset: Dataset) -> Annotations:
    rng = np.random.default_rng(0)
    near = [damaged(rng, a) for a in codes(dataset) for _ in range(2)]
    return near + [b for image in dataset["images"] for b in boxes(rng, image, int(rng.integers(0, 20)))]


def perfect_results(dataset: Dataset) -> Annotations:
    return codes(dataset)


def duplicated_results(dataset: Dataset) -> Annotations:
    """Every object three times, and every crowd and every fourth result twice more, under two scores in all."""
    once = codes(dataset)
    return [a | {"score": 0.25 + 0.5 * (n % 2)} for n, a in enumerate(once * 3 + once[::4] * 2)]


def no_results(dataset: Dataset) -> Annotations:
    return []


def empty_masks(dataset: Dataset) -> Annotations:
    """An empty mask and a whole image for every second image."""
    results = []
    for image in dataset["images"][::2]:
        pixels = image["height"] * image["width"]
        for counts, score in (([pixels], 0.9), ([0, pixels], 0.5)):
            segmentation = {"size": [image["height"], image["width"]], "counts": rle.encode_runs(np.array(counts))}
            results.append({"image_id": image["id"], "category_id": 1, "segmentation": segmentation, "score": score})
    return results


def thousand_results(dataset: Dataset) -> Annotations:
    """More than 1,000 an image: some of the best ones, at any rank, are the objects."""
    rng = np.random.default_rng(1)
    found = [damaged(rng, a) if rng.random() < 0.7 else a | {"score": float(rng.random())} for a in codes(dataset)]
    return [b for image in dataset["images"] for b in boxes(rng, image, 1000)] + found


KINDS: dict[str, Callable[[Dataset], Annotations]] = {
    "random": random_results,
    "perfect": perfect_results,
    "duplicated": duplicated_results,
    "none": no_results,
    "empty": empty_masks,
}


def family(image: dict[str, Any], annotations: Annotations, **columns: Any) -> Regions:
    masks = [coco_mask.decode(a["segmentation"]).astype(bool) for a in annotations]
    return Regions.from_masks(masks, shape=(image["height"], image["width"]), **(columns if masks else {}))


@pytest.mark.parametrize("kind", KINDS)
def test_identical_to_pycocotools(dataset: Dataset, kind: str) -> None:
    results = KINDS[kind](dataset)
    expected = coco_values(coco_eval(dataset, results, MAX_DETS))
    assert proposal_ar_ap(dataset, results) == pytest.approx(expected, abs=1e-12)
    assert kind != "perfect" or expected["ar1000"] == 1  # crowds are found and cost nothing


def test_the_photos_hold_crowds(dataset: Dataset) -> None:
    assert len(dataset["images"]) == 103
    assert sum(a["iscrowd"] for a in dataset["annotations"]) == 7


def test_a_thousand_a_photo_and_the_maxdets_trap(dataset: Dataset) -> None:
    """COCOeval's own summary: AP at 100 whatever maxDets are, and -1 where they lack 100."""
    photos = dataset["images"][:5]
    ids = {image["id"] for image in photos}
    part = dataset | {"images": photos, "annotations": [a for a in dataset["annotations"] if a["image_id"] in ids]}
    results = thousand_results(part)
    assert len(results) > 1000 * len(photos)
    for max_dets in ((1, 100, 1000), (1, 10, 1000)):
        evaluation = coco_eval(part, results, max_dets)
        assert proposal_ar_ap(part, results, max_dets) == pytest.approx(coco_values(evaluation), abs=1e-12)
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.summarize()
        names = [
            "ap",
            "ap50",
            "ap75",
            "ap_small",
            "ap_medium",
            "ap_large",
            *(f"ar{k}" for k in max_dets),
            "ar_small",
            "ar_medium",
            "ar_large",
        ]
        stock = proposal_ar_ap(part, results, max_dets, ap_max_dets=100)
        np.testing.assert_allclose([stock[name] for name in names], evaluation.stats, atol=1e-12)
        assert (stock["ap"] == -1) == (100 not in max_dets)


@pytest.mark.slow
def test_a_thousand_on_all_photos(dataset: Dataset) -> None:
    results = thousand_results(dataset)
    expected = coco_values(coco_eval(dataset, results, MAX_DETS))
    assert proposal_ar_ap(dataset, results) == pytest.approx(expected, abs=1e-12)


def test_regions_give_the_numbers_of_their_codes(dataset: Dataset) -> None:
    """Through atoms and through runs: one answer, where ground truth is measured by its masks and no mask comes twice."""
    photos = dataset["images"][:8]
    ids = {image["id"] for image in photos}
    part = dataset | {"images": photos, "annotations": [a for a in dataset["annotations"] if a["image_id"] in ids]}
    truths = [t | {"iscrowd": a["iscrowd"], "id": a["id"]} for t, a in zip(codes(part), part["annotations"], strict=True)]
    results = random_results(part)
    unique = {(r["image_id"], r["segmentation"]["counts"]): r | {"score": float(np.float32(r["score"]))} for r in results}
    meter = accumulator()
    for image in photos:
        mine = [t for t in truths if t["image_id"] == image["id"]]
        found = [r for r in unique.values() if r["image_id"] == image["id"]]
        truth = family(image, mine, source=["crowd" if t["iscrowd"] else "" for t in mine])
        prediction = family(image, found, score=[r["score"] for r in found])
        meter.update(str(image["id"]).zfill(12), Truth("instances", truth), prediction)
    whole = {(i["id"], rle.encode_runs(np.array([0, i["height"] * i["width"]]))) for i in photos}
    kept = [r for key, r in unique.items() if key not in whole]
    expected = proposal_ar_ap(truths, kept)
    assert {name: meter.result()[name] for name in expected} == pytest.approx(expected, abs=1e-12)
