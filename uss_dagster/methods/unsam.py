"""UnSAM's divide and conquer: cuts find objects from the top down, merging finds their parts from the bottom up, all in one pool.

Two graphs. *dense* follows the paper: MaskCut on views of the image in the place of a trained detector, then patches of each mask's box merged
by cosine and recorded at falling thresholds (``_unsam_patches``). *local* does both on the leaves of a contour map (``_unsam_leaves``), by
hand-made features or those of a network; it finds more on photographs, and is the default. The pool then
goes through exact suppression and, if wanted, refinement, and each mask gets the smallest one that holds it as its parent.

References: Wang et al., "Segment anything without supervision", NeurIPS 2024; Wang et al., "Cut and learn for unsupervised object detection
and instance segmentation", CVPR 2023 (MaskCut); Cao et al., "SOHES: self-supervised open-world hierarchical entity segmentation", ICLR 2024.
What differs from the authors' program is listed in docs/unsam.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from uss_dagster import registry
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import ParameterError, UsageError
from uss_dagster.graphs.mask_nms import mask_nms
from uss_dagster.graphs.patch_merging import MergeRecord, merge_record
from uss_dagster.methods import _unsam_leaves as on_leaves
from uss_dagster.methods import _unsam_patches as on_patches
from uss_dagster.methods._spectral import lone_root
from uss_dagster.methods._unsam_params import Params, RefineKind
from uss_dagster.methods._unsam_patches import Piece
from uss_dagster.methods.base import MethodSpec, Samples, one_thread
from uss_dagster.methods.contour_merge import enlarged
from uss_dagster.notes import note
from uss_dagster.pixels import check_image, iou, shrink_long_side
from uss_dagster.refine.crf import crf_mask
from uss_dagster.regions import Regions

CALIBRATION_IMAGES = 50

SPEC = MethodSpec(
    name="unsam",
    title="UnSAM",
    params=Params,
    needs=("keys",),
    facet_parameter="facet",
    encodes=("keys",),
    overlap=True,
    model="taken",
    reads="masks",
    paper="Wang et al., NeurIPS 2024",
    summary="Divide and conquer: cuts find objects, merging finds their parts; all scales in one pool of nested masks.",
)


@dataclass(frozen=True)
class Calibration:
    """thetas: falling cosines; None where they are given or none are needed. digest: of the student's weights, empty without one. masks: id of an
    image → its id in the masks made elsewhere, where they divide.
    """

    thetas: tuple[float, ...] | None
    digest: str = ""
    masks: dict[str, str] | None = None


def for_dataset(params: Params, dataset: str, root: Path) -> Params:
    """The parameters for one dataset: the file or folder of its masks made elsewhere, where they divide."""
    if params.divide != "masks":
        return params
    try:
        return replace(params, masks=registry.load("method", "masks").for_dataset(_elsewhere(params), dataset, root).path)
    except ParameterError as error:
        raise ParameterError(str(error).replace("'path'", "'masks'"), ("masks",)) from None


def _elsewhere(params: Params) -> Any:
    """Parameters of the method ``masks`` for those that divide."""
    return registry.load("method", "masks").Params(path=params.masks)


def fit(samples: Samples, params: Params) -> Calibration | None:
    """What holds for all images; None where that is nothing."""
    digest = registry.load("method", "student").load(params.model).digest if params.divide == "student" else ""
    thetas = fitted_thetas(samples, params)
    masks = registry.load("method", "masks").fit(samples, _elsewhere(params)) if params.divide == "masks" else None
    return Calibration(thetas, digest, masks) if thetas or digest or masks is not None else None


def fitted_thetas(samples: Samples, params: Params) -> tuple[float, ...] | None:
    """The thresholds that leave ``merge.clusters`` clusters of an image on average, over at most 50 images spread over the dataset.

    None where they are given, and where the graph is not dense, as leaves are merged without any.
    """
    if params.merge.thetas is not None or params.graph != "dense":
        return None
    step = max(1, len(samples) // CALIBRATION_IMAGES)
    records: list[MergeRecord] = []
    for number, sample in enumerate(samples):
        if number % step == 0:
            records.append(merge_record(on_patches.at_most(sample.features[params.facet], params.merge.grid)))
        if len(records) == CALIBRATION_IMAGES:
            break
    return calibrated(records, params.merge.clusters) if records else None


def calibrated(records: list[MergeRecord], clusters: Iterable[float]) -> tuple[float, ...]:
    """For each number the greatest cosine at which grids have, on average, no more clusters than that; strictly falling."""
    # clusters left at theta change only where theta passes a running minimum of weights
    floors = [np.minimum.accumulate(record.weight) for record in records]
    cosines = np.unique(np.concatenate([[-1.0], *floors]))
    left = np.mean([len(f) + 1 - np.searchsorted(-f, -cosines, side="right") for f in floors], axis=0)
    thetas: list[float] = []
    for target in clusters:
        reached = np.flatnonzero(left <= target)
        theta = float(cosines[reached[-1]]) if len(reached) else -1.0
        thetas.append(min(theta, np.nextafter(thetas[-1], -2.0)) if thetas else theta)
    return tuple(thetas)


@one_thread
def segment(sample: Sample, params: Params, state: Calibration | None = None) -> Regions:
    """The whole image (region 0) and the pool below it, larger masks first; the whole image alone where it is of one colour.

    ``score`` is the confidence, ``source`` is divide or conquer. ``level``: on patches, the index of the coarsest threshold at which a
    cluster stands, their number for divide masks; on leaves, the height at which a region forms.
    """
    full = check_image(sample.image)
    image = shrink_long_side(full, params.long_side)
    if not np.ptp(image, axis=(0, 1)).any():
        return lone_root(sample)
    if _is_dense(sample, params):
        pool = _patch_pool(sample, image, full if params.full_size else image, params, state)
    else:
        pool = _leaf_pool(sample, image, params, state)
    if params.refine_kind != "none":
        pool = refined(pool, image, params.refine.iou, params.refine.max_area, kind=params.refine_kind)
    family = nested(pool)
    return family if family.shape == full.shape[:2] else family.resized(*full.shape[:2])


def _is_dense(sample: Sample, params: Params) -> bool:
    """Thresholds are given for the paper's route, so with them a network's features go that way by themselves."""
    return params.graph == "dense" or (params.graph == "auto" and params.merge.thetas is not None and sample.features.comparable)


def _leaf_pool(sample: Sample, image: np.ndarray, params: Params, state: Calibration | None) -> Regions:
    rule, limits = params.leaves, params.limits
    weight = rule.token_weight if sample.features.comparable else 0.0
    note(route="leaves")
    leaves = on_leaves.leaves_of(image, sample.features[params.facet], rule.most, params.seed, weight)
    if params.divide != "cuts":
        divided = on_leaves.on_most(leaves, whole_masks(sample, image, params, state))
    else:
        divided = on_leaves.divide(leaves, rule.depth, rule.temperature, limits.confidence)
    parts = [divided, on_leaves.conquer(leaves, rule.trees)]
    pool = on_leaves.pooled(leaves, parts, limits, params.pool.window, rule.smallest)
    atoms = enlarged(pool.atoms, image.shape[:2], image.shape[:2])
    return Regions(atoms, pool.members, level=pool.level, score=pool.score, source=pool.source)


def _patch_pool(sample: Sample, image: np.ndarray, full: np.ndarray, params: Params, state: Calibration | None) -> Regions:
    """full: the image at the size at which pieces are cut from it."""
    thetas = params.merge.thetas or (state.thetas if state else None)
    if thetas is None:
        raise UsageError(
            "unsam: no 'merge.thetas' were given and nothing was fitted; give thetas, or the state that fit(all samples, params) returns."
        )
    note(route="patches", thetas=list(thetas))
    if sample.encode is None:
        raise UsageError("unsam: the dense graph encodes pieces of the image, but the sample came without its backbone; pass 'encode'.")
    encode_all, shape, limits = sample.encode, image.shape[:2], params.limits

    def encode(images: list[np.ndarray]) -> list[np.ndarray]:
        return [features[params.facet] for features in encode_all(images)]

    if params.divide != "cuts":
        wholes = on_patches.as_pieces(whole_masks(sample, image, params, state), params.cuts.iou, level=len(thetas))
    else:
        grid = sample.features[params.facet]
        wholes = on_patches.divide(image, grid, encode, params.cuts, limits.confidence, len(thetas), full)
    if params.pool.history:
        wholes = [replace(whole, history=f"divide {number}") for number, whole in enumerate(wholes)]
    pieces = list(wholes)
    crops = on_patches.box_images(full, wholes, params.merge.crop, shape)
    for whole, (record, features) in zip(wholes, on_patches.records_of(crops, encode, params.merge.grid, thetas[-1]), strict=True):
        pieces += on_patches.conquer(whole, record, features, thetas, params.merge.min_patches, params.merge.inside)
    pieces = [piece for piece in pieces if piece.score >= limits.min_score]
    # divide masks before clusters, then larger before smaller
    priority = np.array([np.count_nonzero(piece.crop) + image.size * (piece.source == "divide") for piece in pieces], np.float64)
    distinct = mask_nms([piece.code(shape) for piece in pieces], priority, limits.iou, params.pool.window)
    best = sorted(distinct.tolist(), key=lambda i: -pieces[i].score)[: limits.most]
    return on_patches.regions_of([pieces[i] for i in best], shape)


def whole_masks(sample: Sample, image: np.ndarray, params: Params, state: Calibration | None) -> Regions:
    """Divide masks that no cut makes, over the image, uint8 (H, W, 3), of a sample: those of the student, or made elsewhere."""
    return student_masks(image, params) if params.divide == "student" else masks_made_elsewhere(sample, image, params, state)


def masks_made_elsewhere(sample: Sample, image: np.ndarray, params: Params, state: Calibration | None) -> Regions:
    """Those with more than ``pool.confidence`` at the size of the image, uint8 (H, W, 3), without the whole image; none for an image without."""
    if state is None or state.masks is None:
        raise UsageError("unsam: divide=masks needs the state that fit(all samples, params) returns.")
    masks: Regions = registry.load("method", "masks").segment(sample, _elsewhere(params), state.masks)
    size = image.shape[:2]
    masks = masks if masks.shape == size or not len(masks) else masks.resized(*size)
    area = masks.area
    return masks.select(np.flatnonzero((area > 0) & (area < masks.atoms.size) & (masks.score > params.limits.confidence)))


def student_masks(image: np.ndarray, params: Params) -> Regions:
    """The masks of the trained student in an image, uint8 (H, W, 3), with more than ``pool.confidence``; without the whole image."""
    method, limits = registry.load("method", "student"), params.limits
    masks: Regions = method.segment(Sample("", image), method.Params(model=params.model, auto="queries", split=1, most=limits.most))
    return masks.select(np.flatnonzero(~masks.is_root & (masks.score > limits.confidence)))


def refined(
    pool: Regions, image: np.ndarray, least_iou: float = 0.5, most_area: float = 0.9, *, radius: int = 8, kind: RefineKind = "guided"
) -> Regions:
    """Masks with their borders pulled to those of the image, uint8 (H, W, 3), in a window of twice the longer side of each box.

    Those that have more than ``most_area`` of the image, or an IoU below ``least_iou`` with what they were, are dropped, as are exact duplicates.
    """
    from uss_dagster.refine.upsampling import guided_filter

    height, width = pool.shape
    pieces: list[Piece] = []
    for region, (x, y, w, h) in enumerate(pool.boxes.tolist()):
        side, middle_x, middle_y = max(w, h), x + w // 2, y + h // 2
        rows = slice(max(0, middle_y - side), min(height, middle_y + side + 1))
        columns = slice(max(0, middle_x - side), min(width, middle_x + side + 1))
        before = pool.members[region][pool.atoms[rows, columns]]
        window = np.ascontiguousarray(image[rows, columns])
        if kind == "crf":
            after = crf_mask(before, window)
        else:
            after = guided_filter(before[None].astype(np.float64), window, radius=radius)[0] > 0.5
        if after.any() and iou(before, after) >= least_iou and np.count_nonzero(after) <= most_area * height * width:
            pieces.append(Piece(rows.start, columns.start, after, pool.level[region], pool.score[region], pool.source[region]))
    distinct = np.sort(mask_nms([piece.code(pool.shape) for piece in pieces], np.array([piece.score for piece in pieces]), 1.0))
    return on_patches.regions_of([pieces[i] for i in distinct], pool.shape)


def nested(pool: Regions) -> Regions:
    """The whole image (region 0) and the regions of a pool, larger ones first, each below the smallest that holds it; nothing empty, nothing twice."""
    area = pool.area
    order = np.flatnonzero((area > 0) & (area < pool.atoms.size))
    order = order[np.argsort(-area[order], kind="stable")]
    members = pool.members[order]
    holds = members.astype(np.float32) @ (~members).astype(np.float32).T == 0  # [a, b]: nothing of a is outside b
    holds &= area[order][:, None] < area[order]
    # of those that hold it the last is the smallest; region 0 holds all
    holds = np.concatenate([np.ones((len(order), 1), bool), holds], axis=1)
    parent = len(order) - np.argmax(holds[:, ::-1], axis=1)
    top = float(np.nanmax(pool.level, initial=1.0))
    return Regions(
        pool.atoms,
        np.concatenate([np.ones((1, pool.members.shape[1]), bool), members]),
        np.concatenate([[-1], parent]).astype(np.int32),
        level=np.concatenate([[top], pool.level[order]]),
        score=np.concatenate([[1.0], pool.score[order]]),
        source=["image", *(pool.source[i] for i in order)],
    )
