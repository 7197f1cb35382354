"""UnSAM's divide and conquer: cuts find objects from the top down, merging finds their parts from the bottom up, all in one pool.

Two graphs, as for the other spectral methods (see ``_spectral``). *dense*, for tokens that are comparable across images, follows the paper: MaskCut
on views of the image in the place of a trained detector, then patches of each mask's box merged by cosine and recorded at falling
thresholds (``_unsam_patches``). *local*, for hand-made features, does both on the leaves of a contour map (``_unsam_leaves``). The pool then
goes through exact suppression and, if wanted, refinement, and each mask gets the smallest one that holds it as its parent.

References: Wang et al., "Segment anything without supervision", NeurIPS 2024; Wang et al., "Cut and learn for unsupervised object detection
and instance segmentation", CVPR 2023 (MaskCut); Cao et al., "SOHES: self-supervised open-world hierarchical entity segmentation", ICLR 2024.
What differs from the authors' program is listed in docs/unsam.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from uss_dagster import registry
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import UsageError
from uss_dagster.graphs.mask_nms import mask_nms
from uss_dagster.graphs.maskcut import maskcut as maskcut
from uss_dagster.graphs.patch_merging import MergeRecord, merge_record
from uss_dagster.graphs.patch_merging import iterative_merge as iterative_merge
from uss_dagster.methods import _unsam_leaves as on_leaves
from uss_dagster.methods import _unsam_patches as on_patches
from uss_dagster.methods._spectral import Graph, lone_root
from uss_dagster.methods._unsam_patches import DrawnPieces, Piece
from uss_dagster.methods.base import MethodSpec
from uss_dagster.pixels import check_image
from uss_dagster.regions import Regions

CALIBRATION_IMAGES = 50

PRESETS: dict[str, dict[str, Any]] = {
    "train": {"confidence": 0.1, "min_score": 0.0, "nms_iou": 0.9, "most": 1000, "refine": "none"},
    "clean": {"confidence": 0.3, "min_score": 0.2, "nms_iou": 0.8, "most": 200, "refine": "guided"},
}


@dataclass(frozen=True)
class Params:
    """preset: ``train``, many masks for a student to learn from, or ``clean``, few that are likely right; it sets confidence (that a divide mask must
    exceed), min_score (of any mask), nms_iou, most (masks an image) and refine, unless these are given. graph: see the module.
    facet: the features, ``keys`` or ``tokens``.

    Dense. rounds, tau, eps: of MaskCut. cells: side of the grid that is cut. tiles: large images are also cut in four. min_part: share of a
    view that a part must have. divide_iou: of suppression among divide masks. crop: side in pixels to which boxes are stretched. grid: patches a side of
    it, at most. thetas: cosines, falling; where none are given ``fit`` chooses those that leave ``clusters`` clusters of an image on
    average. The authors use 0.6, 0.5, …, 0.1 with DINO ViT-B/8. min_patches: of a cluster. inside: share of a cluster that must lie in its divide mask.

    Local. most_leaves: of the contour map. trees: beside the averaged one, 0 to 6. depth, temperature: of the recursive cut. smallest: area in pixels
    at half size.

    divide: ``cuts``, or ``student``: the masks of a trained student in the place of the divide stage; model: its folder, or in a profile its
    name. On leaves a mask takes those that lie in it by half or more.

    nms_window: compare a mask with the next so many only, as the release does; none compares all. refine: ``guided`` pulls borders to the image's,
    and drops a mask that this changes to an IoU below refine_iou, or that has more than most_area of the image. long_side: an image longer than 4/3 of
    it is reduced to it for the masks.
    """

    preset: Literal["clean", "train"] = "train"
    divide: Literal["cuts", "student"] = "cuts"
    model: str = ""
    graph: Graph = "auto"
    facet: Literal["keys", "tokens"] = "keys"
    confidence: float | None = None
    min_score: float | None = None
    nms_iou: float | None = None
    most: int | None = None
    refine: Literal["none", "guided"] | None = None
    rounds: int = 6
    tau: float = 0.15
    eps: float = 1e-5
    cells: int = 48
    tiles: bool = True
    min_part: float = 0.01
    divide_iou: float = 0.8
    crop: int = 256
    grid: int = 32
    thetas: tuple[float, ...] | None = None
    clusters: tuple[float, ...] = (64.0, 32.0, 16.0, 8.0, 4.0, 2.0)
    min_patches: int = 4
    inside: float = 0.9
    most_leaves: int = 900
    trees: int = 6
    depth: int = 5
    temperature: float = 0.06
    smallest: int = 12
    nms_window: int | None = None
    refine_iou: float = 0.5
    most_area: float = 0.9
    long_side: int = 480
    seed: int = 0

    def __post_init__(self) -> None:
        if self.thetas is not None and (not self.thetas or any(b >= a for a, b in pairwise(self.thetas))):
            raise UsageError(f"unsam: thetas {self.thetas}, expected one or more, each below the one before.")
        if not self.clusters or min(self.clusters) < 1 or list(self.clusters) != sorted(self.clusters, reverse=True):
            raise UsageError(f"unsam: clusters {self.clusters}, expected one or more of 1 and above, falling.")
        if bool(self.model) != (self.divide == "student"):
            raise UsageError(
                f"unsam: divide is '{self.divide}' and model '{self.model}'; a model goes with divide=student, and only with it."
            )
        for name, least in (
            ("rounds", 1),
            ("cells", 2),
            ("crop", 8),
            ("grid", 2),
            ("min_patches", 1),
            ("most_leaves", 1),
            ("long_side", 16),
        ):
            if getattr(self, name) < least:
                raise UsageError(f"unsam: {name} is {getattr(self, name)}, expected {least} or more.")
        if not 0 <= self.trees <= len(on_leaves.TREES) or self.depth < 0 or self.temperature <= 0:
            raise UsageError(
                f"unsam: trees {self.trees}, depth {self.depth}, temperature {self.temperature}, expected 0 to {len(on_leaves.TREES)}, "
                "0 or more, and above 0."
            )

    def of_preset(self, name: str) -> Any:
        """The value given, or the preset's."""
        given = getattr(self, name)
        return PRESETS[self.preset][name] if given is None else given


SPEC = MethodSpec(
    name="unsam",
    title="UnSAM",
    params=Params,
    needs=("keys",),
    encodes=("keys",),
    overlap=True,
    model="taken",
    paper="Wang et al., NeurIPS 2024",
    licence="MIT (this project)",
    summary="Divide and conquer: cuts find objects, merging finds their parts; all scales in one pool of nested masks.",
)


@dataclass(frozen=True)
class Calibration:
    """thetas: falling cosines; None where they are given or none are needed. digest: of the student's weights, empty without one."""

    thetas: tuple[float, ...] | None
    digest: str = ""


def fit(samples: Iterable[Sample], params: Params) -> Calibration | None:
    """What holds for all images; None where that is nothing."""
    digest = registry.load("method", "student").load(params.model).digest if params.divide == "student" else ""
    thetas = fitted_thetas(samples, params)
    return Calibration(thetas, digest) if thetas or digest else None


def fitted_thetas(samples: Iterable[Sample], params: Params) -> tuple[float, ...] | None:
    """The thresholds that leave ``params.clusters`` clusters of an image on average, over at most 50 images spread over the dataset.

    None where they are given, and for the local graph, which has none.
    """
    if params.thetas is not None or params.graph == "local":
        return None
    total = len(samples) if hasattr(samples, "__len__") else CALIBRATION_IMAGES  # type: ignore[arg-type]
    step = max(1, total // CALIBRATION_IMAGES)
    records: list[MergeRecord] = []
    for number, sample in enumerate(samples):
        if params.graph == "auto" and not sample.features.comparable:
            return None
        if number % step == 0:
            records.append(merge_record(on_patches.at_most(sample.features[params.facet], params.grid)))
        if len(records) == CALIBRATION_IMAGES:
            break
    return calibrated(records, params.clusters) if records else None


def calibrated(records: list[MergeRecord], clusters: Iterable[float]) -> tuple[float, ...]:
    """For each number the greatest cosine at which grids have, on average, no more clusters than that; strictly falling."""
    # clusters left at theta change only where theta passes a running minimum of weights
    floors = [np.minimum.accumulate(record.weight) for record in records]
    cosines = np.unique(np.concatenate([[-1.0], *floors]))
    left = np.mean([len(f) + 1 - np.searchsorted(-f, -cosines, side="right") for f in floors], axis=0)
    found: list[float] = []
    for target in clusters:
        reached = np.flatnonzero(left <= target)
        theta = float(cosines[reached[-1]]) if len(reached) else -1.0
        found.append(min(theta, np.nextafter(found[-1], -2.0)) if found else theta)
    return tuple(found)


def segment(sample: Sample, params: Params, state: Calibration | None = None) -> Regions:
    """The whole image (region 0) and the pool below it, larger masks first; the whole image alone where it is of one colour.

    ``score`` is the confidence, ``source`` is divide or conquer. ``level``: on patches, the index of the coarsest threshold at which a
    cluster stands, their number for divide masks; on leaves, the height at which a region forms.
    """
    from threadpoolctl import threadpool_limits

    from uss_dagster.methods.contour_merge import reduced

    full = check_image(sample.image)
    image = reduced(full, params.long_side)
    if not np.ptp(image, axis=(0, 1)).any():
        return lone_root(sample)
    with threadpool_limits(1):  # sums inside BLAS come out in one order
        dense = params.graph == "dense" or (params.graph == "auto" and sample.features.comparable)
        pool = _patch_pool(sample, image, params, state) if dense else _leaf_pool(sample, image, params)
        if params.of_preset("refine") == "guided":
            pool = refined(pool, image, params.refine_iou, params.most_area)
        family = nested(pool)
    return family if family.shape == full.shape[:2] else family.resized(*full.shape[:2])


def _leaf_pool(sample: Sample, image: np.ndarray, params: Params) -> Regions:
    from uss_dagster.methods.contour_merge import enlarged

    leaves = on_leaves.leaves_of(image, sample.features[params.facet], params.most_leaves, params.seed)
    if params.divide == "student":
        parts = [on_leaves.on_most(leaves, student_masks(image, params))]
    else:
        parts = [on_leaves.divide(leaves, params.depth, params.temperature, params.of_preset("confidence"))]
    parts.append(on_leaves.conquer(leaves, params.trees))
    pool = on_leaves.pooled(
        leaves,
        parts,
        iou=params.of_preset("nms_iou"),
        window=params.nms_window,
        min_score=params.of_preset("min_score"),
        smallest=params.smallest,
        most=params.of_preset("most"),
    )
    atoms = enlarged(pool.atoms, image.shape[:2], image.shape[:2])
    return Regions(atoms, pool.members, level=pool.level, score=pool.score, source=pool.source)


def _patch_pool(sample: Sample, image: np.ndarray, params: Params, state: Calibration | None) -> Regions:
    thetas = params.thetas or (state.thetas if state else None)
    if thetas is None:
        raise UsageError(
            "unsam: no 'thetas' were given and nothing was fitted; give thetas, or the state that fit(all samples, params) returns."
        )
    if sample.encode is None:
        raise UsageError("unsam: the dense graph encodes pieces of the image, but the sample came without its backbone; pass 'encode'.")
    encode_all, shape = sample.encode, image.shape[:2]

    def encode(images: list[np.ndarray]) -> list[np.ndarray]:
        return [features[params.facet] for features in encode_all(images)]

    if params.divide == "student":
        found = on_patches.as_pieces(student_masks(image, params), params.divide_iou, level=len(thetas))
    else:
        found = on_patches.divide(
            image,
            sample.features[params.facet],
            encode,
            cells=params.cells,
            tiles=params.tiles,
            rounds=params.rounds,
            tau=params.tau,
            eps=params.eps,
            min_part=params.min_part,
            confidence=params.of_preset("confidence"),
            iou=params.divide_iou,
            level=len(thetas),
        )
    pieces = list(found)
    crops = on_patches.box_images(image, found, params.crop)
    for whole, (record, features) in zip(found, on_patches.records_of(crops, encode, params.grid, thetas[-1]), strict=True):
        pieces += on_patches.conquer(whole, record, features, thetas, min_patches=params.min_patches, inside=params.inside)
    pieces = [piece for piece in pieces if piece.score >= params.of_preset("min_score")]
    # divide masks before clusters, then larger before smaller
    priority = np.array([np.count_nonzero(piece.crop) + image.size * (piece.source == "divide") for piece in pieces], np.float64)
    kept = mask_nms([piece.code(shape) for piece in pieces], priority, params.of_preset("nms_iou"), params.nms_window)
    best = sorted(kept.tolist(), key=lambda i: -pieces[i].score)[: params.of_preset("most")]
    chosen: list[Piece] = [pieces[i] for i in best]
    return Regions.from_masks(
        DrawnPieces(chosen, shape),  # type: ignore[arg-type]
        shape=shape,
        level=[piece.level for piece in chosen],
        score=[piece.score for piece in chosen],
        source=[piece.source for piece in chosen],
    )


def student_masks(image: np.ndarray, params: Params) -> Regions:
    """What the trained student finds in an image, uint8 (H, W, 3), more certain than ``confidence``; without the whole image."""
    method = registry.load("method", "student")
    found: Regions = method.segment(
        Sample("", image), method.Params(model=params.model, auto="queries", split=1, most=params.of_preset("most"))
    )
    return found.select(np.flatnonzero(~found.is_root & (found.score > params.of_preset("confidence"))))


def refined(pool: Regions, image: np.ndarray, least_iou: float = 0.5, most_area: float = 0.9, *, radius: int = 8) -> Regions:
    """Masks with their borders pulled to those of the image, uint8 (H, W, 3), by a guided filter in a window of twice the longer side of each box.

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
        after = guided_filter(before[None].astype(np.float64), np.ascontiguousarray(image[rows, columns]), radius=radius)[0] > 0.5
        overlap = int(np.count_nonzero(before & after)) / max(int(np.count_nonzero(before | after)), 1)
        if after.any() and overlap >= least_iou and np.count_nonzero(after) <= most_area * height * width:
            pieces.append(Piece(rows.start, columns.start, after, 0, float(pool.score[region]), pool.source[region]))
        else:
            pieces.append(Piece(0, 0, np.zeros((1, 1), bool), 0, 0.0, ""))
    kept = np.flatnonzero([piece.crop.any() for piece in pieces])
    codes = [pieces[i].code(pool.shape) for i in kept]
    kept = np.sort(kept[mask_nms(codes, pool.score[kept], 1.0)])
    return Regions.from_masks(
        DrawnPieces([pieces[i] for i in kept], pool.shape),  # type: ignore[arg-type]
        shape=pool.shape,
        level=pool.level[kept],
        score=pool.score[kept],
        source=[pool.source[i] for i in kept],
    )


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
