"""AR and AP of mask proposals: pycocotools, faster-coco-eval where it is installed, and ours, on the same annotations.

    python benchmarks/proposals.py [--images 100] [--masks 300] [--truths 20] [--size 480 640] [--rounds 3] [--replicates 200]

Ground truth and results are regions with wavy borders; a third of the results are shifted ground truth, a tenth of the ground truth
is crowds. Ten images are drawn and come again under other ids with other scores. Every side starts from the same lists of
dictionaries and ends with all AR and AP, its index and its summary included; each runs in a process of its own, which has compiled or
loaded what it needs, and the fastest round counts. Memory is what the first round adds at its peak to the lists it was given. A last line times the
bootstrap, for which the others have nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import ctypes
import io
import multiprocessing
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from uss_dagster.metrics.coco.matches import MAX_DETS, SIZES, Matches, match_codes, summaries
from uss_dagster.regions import Regions

Annotations = list[dict[str, Any]]
Lists = tuple[dict[str, Any], Annotations]


def wavy_cells(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Int (H, W): the nearest of some points, seen through a wavy glass."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    for _ in range(3):
        wave, phase = rng.uniform(15, 80, 2), rng.uniform(0, 6, 2)
        y, x = y + 6 * np.sin(x / wave[0] + phase[0]), x + 6 * np.sin(y / wave[1] + phase[1])
    points = rng.random((cells, 2)) * (height, width)
    return np.argmin([(y - top) ** 2 + (x - left) ** 2 for top, left in points], axis=0)


def draw_image(rng: np.random.Generator, masks: int, truths: int, height: int, width: int) -> tuple[Annotations, Annotations]:
    """Ground truth and results of one image."""
    truth = wavy_cells(rng, height, width, truths)
    families: list[Regions] = []
    while sum(map(len, families)) < masks:
        shifted = rng.random() < 1 / 3
        cells = np.roll(truth, rng.integers(-12, 13, 2), (0, 1)) if shifted else wavy_cells(rng, height, width, int(rng.integers(5, 60)))
        families.append(Regions.from_label_map(cells))
    mine, found = ([a for family in group for a in family.to_coco(0)] for group in ([Regions.from_label_map(truth)], families))
    plain = [[{k: a[k] for k in ("category_id", "segmentation", "area")} for a in group] for group in (mine, found[:masks])]
    return [a | {"iscrowd": int(rng.random() < 0.1)} for a in plain[0]], plain[1]


def make_lists(images: int, masks: int, truths: int, height: int, width: int) -> Lists:
    rng = np.random.default_rng(0)
    drawn = [draw_image(rng, masks, truths, height, width) for _ in range(min(images, 10))]
    annotations: Annotations = []
    results: Annotations = []
    for image_id in range(1, images + 1):
        mine, found = drawn[image_id % len(drawn)]
        annotations += [a | {"image_id": image_id, "id": len(annotations) + n} for n, a in enumerate(mine, 1)]
        results += [a | {"image_id": image_id, "score": float(rng.random())} for a in found]
    gt = {
        "images": [{"id": i, "height": height, "width": width} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "object"}],
        "info": {},
    }
    return gt, results


def coco_like(coco: Any, evaluator: Any, lists: Lists) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        gt = coco()
        gt.dataset = lists[0]
        gt.createIndex()
        evaluation = evaluator(gt, gt.loadRes(lists[1]), "segm")
        evaluation.params.useCats, evaluation.params.maxDets = 0, list(MAX_DETS)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision, recall = np.asarray(evaluation.eval["precision"])[:, :, 0], np.asarray(evaluation.eval["recall"])[:, 0]
    values = {f"ar{k}": recall[:, 0, m].mean() for m, k in enumerate(MAX_DETS)}
    values |= {"ap": precision[:, :, 0, -1].mean(), "ap50": precision[0, :, 0, -1].mean(), "ap75": precision[5, :, 0, -1].mean()}
    for s, size in enumerate(SIZES[1:], 1):
        values |= {f"ar_{size}": recall[:, s, -1].mean(), f"ap_{size}": precision[:, :, s, -1].mean()}
    return values


def pycocotools(lists: Lists) -> dict[str, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return coco_like(COCO, COCOeval, lists)


def faster_coco_eval(lists: Lists) -> dict[str, float]:
    from faster_coco_eval import COCO, COCOeval_faster

    return coco_like(COCO, COCOeval_faster, lists)


def ours(lists: Lists) -> dict[str, float]:
    matches = own_matches(lists)
    return next(summaries(matches, np.ones((1, len(matches)), np.int64)))


def own_matches(lists: Lists) -> list[Matches]:
    """The proposals of each image matched to its ground truth, in order of image id."""
    gt, dt = lists
    groups: dict[int, tuple[list[Any], list[Any]]] = {image["id"]: ([], []) for image in gt["images"]}
    for side, entries in enumerate((gt["annotations"], dt)):
        for annotation in entries:
            groups[annotation["image_id"]][side].append(annotation)
    matches = []
    for image in sorted(gt["images"], key=lambda image: image["id"]):
        truths, results = groups[image["id"]]
        codes, found = ([a["segmentation"]["counts"].encode() for a in group] for group in (truths, results))
        size, scores = (image["height"], image["width"]), [r["score"] for r in results]
        matches.append(match_codes(size, codes, found, scores, crowd=[a["iscrowd"] for a in truths]))
    return matches


def resident(field: str) -> float:
    """MB of this process: VmRSS now, VmHWM at its peak (Linux)."""
    return next(int(line.split()[1]) / 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))


def forget_peak() -> float:
    """Give free memory back, start the peak anew, and return what is held."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def measured(side: Callable[[Lists], dict[str, float]], lists: Lists, rounds: int, answer: Any) -> None:
    """Send (values, seconds, MB beyond the inputs) through a pipe."""
    few = {i["id"] for i in lists[0]["images"][:2]}
    part = lists[0] | {"images": lists[0]["images"][:2], "annotations": [a for a in lists[0]["annotations"] if a["image_id"] in few]}
    side(copy.deepcopy((part, [r for r in lists[1] if r["image_id"] in few])))  # imports and compiles
    seconds, peaks = [], []
    for _ in range(rounds):
        given = copy.deepcopy(lists)  # pycocotools writes into its inputs
        before = forget_peak()
        begun = time.perf_counter()
        values = side(given)
        seconds.append(time.perf_counter() - begun)
        peaks.append(resident("VmHWM") - before)
    answer.send((values, min(seconds), peaks[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description="AR and AP of mask proposals beside pycocotools.")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--masks", type=int, default=300, help="results an image")
    parser.add_argument("--truths", type=int, default=20, help="ground truths an image")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--replicates", type=int, default=200)
    arguments = parser.parse_args()
    lists = make_lists(arguments.images, arguments.masks, arguments.truths, *arguments.size)
    sides = {"pycocotools": pycocotools, "ours": ours}
    if find_spec("faster_coco_eval"):
        sides["faster-coco-eval"] = faster_coco_eval
    context = multiprocessing.get_context("fork")
    found: dict[str, tuple[dict[str, float], float, float]] = {}
    for name, side in sides.items():
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=measured, args=(side, lists, arguments.rounds, sender))
        child.start()
        found[name] = receiver.recv()
        child.join()
    expected, _, _ = found["pycocotools"]
    values, base, _ = found["ours"]
    print(f"{arguments.images} images, {arguments.masks} results and {arguments.truths} ground truths each; AR@1000 {values['ar1000']:.4f}")
    for name, (numbers, seconds, peak) in found.items():
        difference = max(abs(numbers[key] - expected[key]) for key in expected)
        print(
            f"{name:18s}{seconds:8.3f} s   / ours {seconds / base:6.1f}   peak +{peak:6.1f} MB   differs from pycocotools by {difference:.1e}"
        )

    matches = own_matches(lists)
    weights = np.random.default_rng(0).poisson(1, (arguments.replicates, len(matches)))
    next(summaries(matches[:2], weights[:1, :2]))
    begun = time.perf_counter()
    list(summaries(matches, weights))
    print(f"{arguments.replicates} bootstrap replicates of all AR and AP: {time.perf_counter() - begun:.3f} s")


if __name__ == "__main__":
    main()
