"""Mask proposals without classes: average recall and precision as COCO computes them, and segmentation from one click.

Proposals are matched to ground truth greedily, best score first, one to one, at ten IoU thresholds (.50:.05:.95) and for four
ranges of area. AR@k is the share of all ground truths of the dataset that the k best proposals of their image find, averaged
over thresholds; AP averages the interpolated precision at 101 recall points. Numbers are those of COCOeval with ``useCats = 0``:

* a ground truth counts in a range of areas, bounds included, by its own area; a proposal that fell on a ground truth of another
  range or on a crowd, or fell on nothing and is itself of another range, is neither right nor wrong there;
* IoU with a crowd is the share of the proposal inside it, and a crowd may be taken many times;
* proposals of equal score keep their order, those of different images the order of their image ids;
* an image without ground truth can only add wrong proposals; one without proposals lowers recall.

COCOeval's summary takes AP always at 100 proposals an image, and gives -1 where 100 is not among its ``maxDets``. Here AP is taken
at the last of ``max_dets``; ``ap_max_dets=100`` gives the number that COCOeval prints. Two more habits are left out: COCOeval counts a match
with a ground truth whose id is 0 as none, and drops detections of categories that no ground truth has.

AR adds up over images. AP does not: it needs 24 bytes for every proposal, its score and what it found in 40 cells (10 thresholds
× 4 ranges), so at most 24 kB an image. A bootstrap replicate is one pass over these rows: its work grows with proposals, and with cells
only where a proposal touches a ground truth.

One click: a ground truth is clicked at its centre, and the regions there answer. ``click_max`` is the IoU of the answer of highest score,
``click_oracle`` the best IoU of any, both averaged over ground truths. A promptable model answers through ``one_click``.

Reference: Lin et al., "Microsoft COCO", ECCV 2014, and its evaluation code; Wang et al., "Segment anything without supervision",
NeurIPS 2024 (AR@1000 without classes, 1-IoU).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from uss_dagster.errors import BadData, UsageError
from uss_dagster.metrics.base import Accumulator, Contribution, Metric, MetricSpec, Truth, poisson_weights
from uss_dagster.regions import Regions, rle
from uss_dagster.regions.classes import FOREGROUND, IGNORE, INNER
from uss_dagster.regions.regions import intersections

MAX_DETS = (1, 10, 100, 1000)
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
SIZES = ("all", "small", "medium", "large")
RANGES = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]], np.float64)

_CELLS = len(SIZES) * len(THRESHOLDS)
_PROTOCOL = "COCO, class-agnostic masks"
_CLICK = "one click at the centre, regions there"

SPEC = MetricSpec(
    name="proposals",
    title="Mask proposals",
    truths=("classes", "instances"),
    metrics={
        "ar1000": Metric("AR@1000", _PROTOCOL),
        "ar100": Metric("AR@100", _PROTOCOL, detail=True),
        "ar10": Metric("AR@10", _PROTOCOL, detail=True),
        "ar1": Metric("AR@1", _PROTOCOL, detail=True),
        "ar_small": Metric("AR@1000, small", _PROTOCOL, detail=True),
        "ar_medium": Metric("AR@1000, medium", _PROTOCOL, detail=True),
        "ar_large": Metric("AR@1000, large", _PROTOCOL, detail=True),
        "ap": Metric("AP@1000", _PROTOCOL, per_image=False),
        "ap50": Metric("AP50", _PROTOCOL, per_image=False, detail=True),
        "ap75": Metric("AP75", _PROTOCOL, per_image=False, detail=True),
        "ap_small": Metric("AP, small", _PROTOCOL, per_image=False, detail=True),
        "ap_medium": Metric("AP, medium", _PROTOCOL, per_image=False, detail=True),
        "ap_large": Metric("AP, large", _PROTOCOL, per_image=False, detail=True),
        "click_max": Metric("1-IoU, best score", _CLICK, detail=True),
        "click_oracle": Metric("1-IoU (oracle)", _CLICK, oracle=True, detail=True),
    },
    paper="Lin et al., ECCV 2014; Wang et al., NeurIPS 2024",
)


@dataclass(frozen=True)
class Matches:
    """What the D proposals of one image found, best score first.

    score: float64 (D,). found, void: uint64 (D,), a bit a cell, size · 10 + threshold: found a ground truth; fell on one that does not
    count. Bits 40 to 43 of found: the proposal is itself of the size. truths: int64 (4,), ground truths of each size.
    clicks: float64 (3,), sum of IoU of the best answer to a click, sum of the best IoU of any, clicks.
    """

    score: np.ndarray
    found: np.ndarray
    void: np.ndarray
    truths: np.ndarray
    clicks: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def best(self, most: int) -> Matches:
        """The same with so many proposals at most."""
        return replace(self, score=self.score[:most], found=self.found[:most], void=self.void[:most])

    def contribution(self, max_dets: Sequence[int] = MAX_DETS) -> Contribution:
        """found (number of max_dets, 4, 10), ground truths found by so many proposals; truths (4,); clicks (3,). They add over images."""
        bits = (self.found[:, None] >> np.arange(_CELLS, dtype=np.uint64)) & np.uint64(1)
        found = np.array([bits[:most].sum(axis=0) for most in max_dets], np.float64)
        return {
            "found": found.reshape(-1, len(SIZES), len(THRESHOLDS)),
            "truths": self.truths.astype(np.float64),
            "clicks": self.clicks,
        }


# -- COCO lists -----------------------------------------------------------------------------------


def proposal_ar_ap(
    gt: Sequence[Mapping[str, Any]] | Mapping[str, Any],
    dt: Sequence[Mapping[str, Any]],
    max_dets: int | Sequence[int] = MAX_DETS,
    *,
    ap_max_dets: int | None = None,
    sizes: Mapping[Any, tuple[int, int]] | None = None,
) -> dict[str, float]:
    """AR and AP of COCO results: ar1, ar10, ar100, ar1000, ar_small, ar_medium, ar_large, ap, ap50, ap75, ap_small, ap_medium, ap_large.

    gt: COCO annotations (image_id, segmentation, and where they have them area, iscrowd, category_id), or the whole dataset with its
    'images' and 'annotations'. dt: COCO results (image_id, segmentation, score). A segmentation is a run-length code, compressed or
    not, or polygons, which need the image's size: from the dataset's 'images', or ``sizes``, image id → (height, width). Areas of results are
    those of their masks, as in COCOeval when results carry no box. max_dets: the k of AR@k, ascending; sizes and AP are taken at the last; one
    number stands for itself and what is below it of 1, 10, 100, 1000. ap_max_dets: take 'ap' at so many proposals an image instead;
    100 is what COCOeval prints whatever its maxDets, and like it gives -1 where 100 is not in ``max_dets``.

    A value for which there is no ground truth is -1, as in COCOeval.

    >>> square = {"image_id": 1, "segmentation": {"size": [2, 2], "counts": [0, 2, 2]}}
    >>> proposal_ar_ap([square], [square | {"score": 0.9}])["ar1000"]
    1.0
    """
    if isinstance(max_dets, int):
        max_dets = [k for k in MAX_DETS if k < max_dets] + [max_dets]
    max_dets = sorted(max_dets)
    if not max_dets or max_dets[0] < 1:
        raise UsageError(f"max_dets is {list(max_dets)}; give numbers of proposals of 1 or more.")
    known, sizes = None, dict(sizes or {})
    if isinstance(gt, Mapping):
        sizes |= {image["id"]: (int(image["height"]), int(image["width"])) for image in gt["images"]}
        known = {image["id"] for image in gt["images"]}
    truths, results = _by_image(gt["annotations"] if isinstance(gt, Mapping) else gt), _by_image(dt)
    strangers = results.keys() - known if known is not None else set()
    if strangers:
        raise BadData(f"Results of {len(strangers)} images that the ground truth does not list, such as '{sorted(strangers)[0]}'.")
    images = []
    for image_id in sorted(truths.keys() | results.keys()):
        mine, found = truths.get(image_id, []), results.get(image_id, [])
        size, codes, found_codes = _codes(image_id, mine, found, sizes.get(image_id))
        images.append(
            match_codes(
                size,
                codes,
                found_codes,
                [_need(d, "score", image_id) for d in found],
                truth_area=[d.get("area", -1.0) for d in mine],
                crowd=[bool(d.get("iscrowd", 0)) for d in mine],
                at_most=max_dets[-1],
                image_id=image_id,
            )
        )
    once = np.ones((1, len(images)), np.int64)
    values = next(summaries(images, once, max_dets))
    if ap_max_dets is not None:
        few = next(summaries([image.best(ap_max_dets) for image in images], once, max_dets))
        values["ap"] = few.get("ap", -1.0) if ap_max_dets in max_dets else -1.0
    names = [f"ar{k}" for k in max_dets] + [n for n in SPEC.metrics if n.startswith(("ap", "ar_"))]
    return {name: values.get(name, -1.0) for name in names}


def _by_image(annotations: Iterable[Mapping[str, Any]]) -> dict[Any, list[Mapping[str, Any]]]:
    """Annotations of each image by category, then in the order given."""
    images: dict[Any, list[Mapping[str, Any]]] = {}
    for annotation in annotations:
        images.setdefault(annotation["image_id"], []).append(annotation)
    for group in images.values():
        group.sort(key=lambda a: a.get("category_id", 0))
    return images


def _codes(
    image_id: Any, truths: list[Mapping[str, Any]], results: list[Mapping[str, Any]], size: tuple[int, int] | None
) -> tuple[tuple[int, int], list[bytes], list[bytes]]:
    """((height, width), codes of the ground truth, codes of the results); all must be of one size."""
    groups: tuple[list[bytes], list[bytes]] = [], []
    for codes, items, what in zip(groups, (truths, results), ("ground truth", "result"), strict=True):
        for number, annotation in enumerate(items):
            segmentation = _need(annotation, "segmentation", image_id)
            if isinstance(segmentation, Mapping):
                height, width = segmentation["size"]
                if size is None:
                    size = int(height), int(width)
                elif size != (height, width):
                    raise BadData(
                        f"Image '{image_id}', {what} {number}: the mask is {height}×{width}, the image {size[0]}×{size[1]} (height×width)."
                    )
                counts = segmentation["counts"]
                if isinstance(counts, str):
                    codes.append(counts.encode("ascii", "replace"))
                else:
                    codes.append(counts if isinstance(counts, bytes) else rle.encode_runs(np.asarray(counts)))
            else:
                codes.append(_polygons(image_id, segmentation, size))
    return size or (1, 1), *groups


def _polygons(image_id: Any, polygons: Any, size: tuple[int, int] | None) -> bytes:
    from pycocotools import mask as coco

    if size is None:
        raise BadData(f"Image '{image_id}' has polygons, whose image size is not known; pass the dataset with its 'images', or sizes=.")
    return coco.merge(coco.frPyObjects(polygons, *size))["counts"]


def _need(annotation: Mapping[str, Any], key: str, image_id: Any) -> Any:
    if key not in annotation:
        raise BadData(f"Image '{image_id}' has an annotation without '{key}'; ground truth needs a segmentation, results also a score.")
    return annotation[key]


def match_codes(
    size: tuple[int, int],
    truths: Sequence[bytes],
    proposals: Sequence[bytes],
    scores: Sequence[float] | np.ndarray,
    *,
    truth_area: Sequence[float] | np.ndarray | None = None,
    crowd: Sequence[bool] | np.ndarray | None = None,
    at_most: int = MAX_DETS[-1],
    image_id: Any = "",
) -> Matches:
    """Match one image's proposals to its ground truth, both as COCO codes, along their runs.

    size: (height, width). scores: (D,). truth_area: (G,), pixels that decide a ground truth's size, negative for those of its mask;
    None is all of them. crowd: bool (G,). at_most: proposals of highest score that take part.
    """
    from uss_dagster.metrics import _proposals_kernel as kernel

    score = np.asarray(scores, np.float64)
    _check_scores(score, f"Image '{image_id}', region")
    order = np.argsort(-score, kind="stable")[:at_most]
    truth = _read(size, truths, image_id, "ground truth", range(len(truths)))
    proposal = _read(size, [proposals[i] for i in order], image_id, "region", order)
    ignored = np.zeros(len(truths), bool) if crowd is None else np.asarray(crowd, bool)
    given = np.full(len(truths), -1.0) if truth_area is None else np.asarray(truth_area, np.float64)
    iou = kernel.overlaps(*proposal, *truth, ignored, THRESHOLDS[0])  # type: ignore[call-arg, arg-type]
    return _matched(score[order], iou, proposal[2], np.where(given < 0, truth[2], given), ignored)


def _read(size: tuple[int, int], codes: Sequence[bytes], image_id: Any, what: str, numbers: Iterable[int]) -> tuple[np.ndarray, ...]:
    """Runs, their places, areas and boxes of masks; a code that is broken or of another size is refused."""
    from uss_dagster.metrics import _proposals_kernel as kernel

    first = np.zeros(len(codes) + 1, np.int64)
    np.cumsum([len(code) for code in codes], out=first[1:])
    *read, length = kernel.read_codes(np.frombuffer(b"".join(codes), np.uint8), first, size[0])
    if (length != size[0] * size[1]).any():
        place = int(np.argmax(length != size[0] * size[1]))
        covers = f"covers {length[place]} pixels" if length[place] >= 0 else "is broken"
        raise BadData(
            f"Image '{image_id}', {what} {list(numbers)[place]}: its run-length code {covers}, the image has {size[0]}×{size[1]} pixels."
        )
    return tuple(read)


def _check_scores(score: np.ndarray, what: str) -> None:
    if np.isnan(score).any():
        raise BadData(f"{what} {int(np.argmax(np.isnan(score)))} has a score of NaN; proposals are ranked by score.")


def _matched(score: np.ndarray, iou: np.ndarray, area: np.ndarray, truth_area: np.ndarray, crowd: np.ndarray) -> Matches:
    from uss_dagster.metrics import _proposals_kernel as kernel

    found, void = kernel.match(iou, area.astype(np.float64), truth_area.astype(np.float64), crowd, THRESHOLDS, RANGES)
    inside = (truth_area >= RANGES[:, :1]) & (truth_area <= RANGES[:, 1:])
    return Matches(score, found, void, np.count_nonzero(inside & ~crowd, axis=1))


# -- Regions --------------------------------------------------------------------------------------


def match_regions(truth: Truth, prediction: Regions) -> Matches:
    """Match the proposals of one image to its ground truth, and click every ground truth once.

    Ground truth of kind 'instances': the regions; source 'crowd' marks crowds. Of kind 'classes': regions that are neither whole image
    nor background nor ignored, each mask once; pixels of ignored classes and of none are taken out of everything. Sizes are those of masks.
    """
    if truth.regions.shape != prediction.shape:
        raise BadData(f"Ground truth is {truth.regions.shape}, its regions are {prediction.shape} (height, width); both cover one image.")
    kept, valid, crowd = _ground_truth(truth)
    ranked = _ranked(prediction, valid)
    both = intersections(truth.regions, prediction, valid)[kept][:, ranked].T
    truth_area, area = _areas(truth.regions, valid)[kept], _areas(prediction, valid)[ranked]
    union = np.where(crowd, area[:, None], area[:, None] + truth_area - both)
    iou = np.ascontiguousarray(both / np.maximum(union, 1))
    matches = _matched(prediction.score[ranked].astype(np.float64), iou, area, truth_area, crowd)
    matches.clicks[:] = _click_regions(truth.regions, prediction, valid, kept, ranked, iou, (truth_area > 0) & ~crowd)
    return matches


def _ground_truth(truth: Truth) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """(indices of the regions that count, valid pixels bool (H, W) or None for all, bool, which of the regions are crowds)."""
    regions = truth.regions
    if truth.kind == "instances":
        return np.arange(len(regions)), None, np.array([source == "crowd" for source in regions.source], bool)
    if truth.kind != "classes" or truth.classes is None:
        raise BadData(f"Proposals need ground truth of kind 'instances', or 'classes' with its class tree, got '{truth.kind}'.")
    if int(regions.label.max(initial=-1)) >= len(truth.classes):
        raise BadData(f"Ground truth has class {regions.label.max()}, but the class tree ends at {len(truth.classes) - 1}.")
    kind = np.append(truth.classes.kind, IGNORE)  # the last entry serves label -1
    leaf = truth.leaf_classes()
    valid = (kind[leaf] != IGNORE) & (leaf != 0)
    counts = ~regions.is_root & (regions.label > 0) & np.isin(kind[regions.label], (FOREGROUND, INNER))
    kept = _each_mask_once(regions, np.flatnonzero(counts & (_areas(regions, valid) > 0)), valid)
    return kept, valid, np.zeros(len(kept), bool)


def _ranked(prediction: Regions, valid: np.ndarray | None) -> np.ndarray:
    """Indices of the proposals, best score first and in stored order among equals: no whole image, each mask once, at most 1000."""
    _check_scores(prediction.score, "Region")
    order = np.argsort(-prediction.score, kind="stable")
    return _each_mask_once(prediction, order[~prediction.is_root[order]], valid)[: MAX_DETS[-1]]


def _each_mask_once(regions: Regions, order: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """``order`` without regions whose valid pixels are those of an earlier one."""
    rows = np.packbits(regions.members[order][:, _atom_areas(regions, valid) > 0], axis=1)
    seen: dict[bytes, int] = {}
    for region, row in zip(order.tolist(), rows, strict=True):
        seen.setdefault(row.tobytes(), region)
    return np.array(list(seen.values()), np.int64)


def _atom_areas(regions: Regions, valid: np.ndarray | None) -> np.ndarray:
    return regions.atom_area if valid is None else np.bincount(regions.atoms[valid], minlength=regions.members.shape[1])


def _areas(regions: Regions, valid: np.ndarray | None) -> np.ndarray:
    return regions.members @ _atom_areas(regions, valid)


def _click_regions(
    truths: Regions,
    prediction: Regions,
    valid: np.ndarray | None,
    kept: np.ndarray,
    ranked: np.ndarray,
    iou: np.ndarray,
    clicked: np.ndarray,
) -> np.ndarray:
    """The sums of ``Matches.clicks``: the answers to a click are the proposals that hold it, 0 where none does."""
    clicks = np.zeros(3)
    for column in np.flatnonzero(clicked):
        x, y, width, height = truths.boxes[kept[column]]
        window = np.s_[y : y + height, x : x + width]
        mask = truths.members[kept[column]][truths.atoms[window]]
        column_x, row_y = click_point(mask if valid is None else mask & valid[window])
        answers = iou[prediction.members[ranked, prediction.atoms[y + row_y, x + column_x]], column]
        clicks += (answers[0], answers.max(), 1) if len(answers) else (0, 0, 1)
    return clicks


# -- one click ------------------------------------------------------------------------------------


def click_point(mask: np.ndarray) -> tuple[int, int]:
    """(x, y) of the pixel farthest from the outside of a mask, bool (H, W) and not empty; the first such in raster order.

    The outside begins at the image's edge.
    """
    from scipy.ndimage import distance_transform_edt

    distance = distance_transform_edt(np.pad(np.asarray(mask, bool), 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(np.argmax(distance)), distance.shape)
    return int(x), int(y)


def one_click(truths: np.ndarray, answers: Sequence[np.ndarray], quality: Sequence[np.ndarray]) -> Contribution:
    """What a promptable model's answers to one click a ground truth add: ``clicks`` (3,), see ``Matches``, for ``reduce_clicks``.

    truths: bool (G, H, W). answers: G arrays bool (M, H, W), the masks that the click on each ground truth gave, any number of them.
    quality: G arrays (M,), what the model thinks of each; the first of equals is its best.
    """
    clicks = np.zeros(3)
    for number, (mask, masks, scores) in enumerate(zip(truths, answers, quality, strict=True)):
        if len(masks) != len(scores) or np.isnan(scores).any():
            raise BadData(
                f"Click {number} has {len(masks)} masks and qualities {np.asarray(scores).tolist()}; give a number for each mask."
            )
        clicks[2] += 1
        if len(masks):
            pixels = np.asarray(masks, bool).reshape(len(masks), -1)
            inside = pixels[:, mask.ravel()].sum(axis=1)
            iou = inside / np.maximum(pixels.sum(axis=1) + mask.sum() - inside, 1)
            clicks[:2] += iou[np.argmax(scores)], iou.max()
    return {"clicks": clicks}


def reduce_clicks(total: Contribution) -> dict[str, float]:
    """click_max and click_oracle, means over clicks; nothing where there was none."""
    best, oracle, n = total["clicks"].tolist()
    return {"click_max": best / n, "click_oracle": oracle / n} if n else {}


# -- over images ----------------------------------------------------------------------------------


def measure(truth: Truth, prediction: Regions) -> Contribution:
    """The part of one image that adds up: what AR and clicks need. AP needs an ``accumulator``."""
    return match_regions(truth, prediction).contribution()


def reduce(total: Contribution, max_dets: Sequence[int] = MAX_DETS) -> dict[str, float]:
    """AR and clicks from added contributions; a value without ground truth is left out."""
    found, truths = total["found"], total["truths"]
    named = [(f"ar{most}", found[i, 0], truths[0]) for i, most in enumerate(max_dets)]
    named += [(f"ar_{size}", found[-1, s], truths[s]) for s, size in enumerate(SIZES) if s]
    return {name: float(np.mean(counts / n)) for name, counts, n in named if n} | reduce_clicks(total)


def summaries(images: Sequence[Matches], weights: np.ndarray, max_dets: Sequence[int] = MAX_DETS) -> Iterator[dict[str, float]]:
    """AR, AP and clicks of images in order of id, for each row of weights, int64 (R, images): how many times an image counts.

    A value without ground truth is left out.
    """
    if not images:
        yield from ({} for _ in weights)
        return
    contributions = [image.contribution(max_dets) for image in images]
    stacked = {key: np.array([c[key] for c in contributions]) for key in contributions[0]}
    curves = _Curves(images)
    for weight in weights:
        total = {key: np.tensordot(weight.astype(np.float64), values, 1) for key, values in stacked.items()}
        yield reduce(total, max_dets) | _precisions(curves(weight))


class _Curves:
    """Precision curves of a dataset under any weights of its images; the proposals of all images are ranked once."""

    def __init__(self, images: Sequence[Matches]) -> None:
        order = np.argsort(-np.concatenate([image.score for image in images]), kind="stable")
        self.image = np.repeat(np.arange(len(images), dtype=np.int32), [len(image.score) for image in images])[order]
        self.found = np.concatenate([image.found for image in images])[order]
        self.void = np.concatenate([image.void for image in images])[order]
        self.truths = np.array([image.truths for image in images], np.int64)
        finds = [np.count_nonzero(self.found & (np.uint64(1) << np.uint64(cell))) for cell in range(_CELLS)]
        self.first = np.concatenate([[0], np.cumsum(finds)])

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Size → precision float64 (10, 101), for sizes with ground truth."""
        from uss_dagster.metrics import _proposals_kernel as kernel

        weights = np.ascontiguousarray(weights)
        truths = weights @ self.truths
        curves = kernel.precision_curves(self.image, self.found, self.void, weights, truths, self.first, RECALLS)
        return {size: curves[s] for s, size in enumerate(SIZES) if truths[s]}


def _precisions(curves: dict[str, np.ndarray]) -> dict[str, float]:
    values = {"ap" if size == "all" else f"ap_{size}": float(np.mean(curve)) for size, curve in curves.items()}
    if "all" in curves:
        values |= {"ap50": float(np.mean(curves["all"][0])), "ap75": float(np.mean(curves["all"][5]))}
    return values


class ProposalAccumulator(Accumulator):
    """Keeps every image's ``Matches``: average precision ranks the proposals of all images together."""

    def __init__(self, replicates: int = 0) -> None:
        super().__init__(measure, reduce, replicates)
        self.images: dict[str, Matches] = {}

    def update(self, image_id: str, truth: Truth, prediction: Regions) -> dict[str, float] | None:
        """Add one image; returns its own AR and clicks, or None where it has neither ground truth nor proposals."""
        matches = match_regions(truth, prediction)
        if not len(matches.score) and not matches.truths.any():
            self.skipped.append(image_id)
            return None
        self._add({image_id: matches})
        return reduce(matches.contribution())

    def merge(self, other: Accumulator) -> None:
        """Add another accumulator of proposals, of other images."""
        assert isinstance(other, ProposalAccumulator)
        self._add(other.images)
        self.skipped += other.skipped

    def result(self) -> dict[str, float]:
        """Values over all images so far, whatever order they came in; those without any ground truth are left out."""
        return next(self._summaries(np.ones((1, self.n), np.int64)))

    def replicate_results(self) -> list[dict[str, float]]:
        """Values of each bootstrap replicate, in which an image counts as often as it was drawn."""
        weights = [poisson_weights(image_id, self.replicates) for image_id in sorted(self.images)]
        return list(self._summaries(np.array(weights, np.int64).reshape(self.n, self.replicates).T)) if self.n else []

    def _summaries(self, weights: np.ndarray) -> Iterator[dict[str, float]]:
        return summaries([self.images[image_id] for image_id in sorted(self.images)], weights)

    def _add(self, images: Mapping[str, Matches]) -> None:
        twice = self.images.keys() & images.keys()
        if twice:
            raise BadData(f"'{sorted(twice)[0]}' is scored twice; give each image once.")
        self.images.update(images)
        self.n = len(self.images)


def accumulator(replicates: int = 0) -> ProposalAccumulator:
    """An empty accumulator of this family."""
    return ProposalAccumulator(replicates)
