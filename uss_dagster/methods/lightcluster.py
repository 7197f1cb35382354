"""LightCluster: patches clustered in the dataset, in its category and in the image, agreed upon as one object mask; classes from class tokens.

No network is trained. Three k-means give each patch three labels. The image's own clustering says which clusters of the other two are
foreground, by a vote over all images. One mask an image is what the three agree on; it is brought to pixels, refined, and split into
objects, whose pictures are encoded again; their class tokens, clustered over the dataset, are the labels of the regions.

Reference: Cheung, Chen, Yang & Zhao, "A lightweight clustering framework for unsupervised semantic segmentation", arXiv 2311.18628. This is
a reimplementation: only the abstracts and figure captions could be read and no code was published. Taken from there: the frozen keys, the
three levels with few clusters each, that the image level decides what is foreground and removes noise, the crops, the class tokens. All
numbers and the rule of agreement (their algorithm 1) are this project's; each is a parameter. See docs/lightcluster.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from uss_dagster.datasets.base import Sample
from uss_dagster.errors import UsageError
from uss_dagster.graphs.few_clusters import few_clusters
from uss_dagster.graphs.semantic_labels import LabelModel
from uss_dagster.graphs.streaming_kmeans import Centres, Projection, RowFile, Shards, Some, assign, fit_centres, principal
from uss_dagster.methods._objects import (
    Clustering,
    Exemplars,
    ObjectRule,
    Parts,
    Surplus,
    fit_classes,
    labelled_objects,
    object_masks,
    object_vectors,
    unit,
)
from uss_dagster.methods._points import Facet, Samples, drawn, per_image, projected, unit_grid
from uss_dagster.methods.base import MethodSpec
from uss_dagster.pixels import bilinear, nearest, resize_image
from uss_dagster.refine.crf import Crf, dense_crf
from uss_dagster.refine.pamr import Pamr, pamr
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params:
    """Every choice that the paper's readable parts leave open, with this project's answer as the default.

    Features. facet: of the patches. pca: channels kept, None for all. outlier_mads: see ``unit_grid``; 3 for DINOv2 without registers.

    Clusters. k_dataset, k_category, k_image: how many at each level. sample_per_image, sample_limit: patches that centres are fitted on, of an
    image and in all. batch, epochs, tolerance, restarts: of the k-means over images. image_restarts: of that inside an image. category_source:
    groups of images come from k-means of their class tokens (``cls_kmeans``); ``oracle`` needs the method ``lightcluster_oracle``. groups:
    how many. min_group_images: a smaller group joins the nearest.

    Foreground. foreground: the image's cluster that the class token attends to, or with the fewest patches on the image's border, or both
    together. weak_below, weak_above: share of the image outside which its own mask is not believed. fg_vote: one decision for each
    cluster over all images, or image by image. vote_share: part of a cluster that has to lie in the images' own masks.

    Agreement. mask_from: the agreement or one level alone. agree_iou, reliable_iou, keep_overlap, keep_share, min_patches: thresholds of
    ``consistency``. iterate: how often its result takes the place of the image's own mask for another vote; iterate_change: unless it
    changed less of the patches.

    Pixels. unary: likeness to the mean patches of object and background, or the mask itself. temperature: of the likeness.
    certainty: of the mask. refine, iterations, max_pixels: see ``refine.leaves``. area_factor: a refined mask so many times larger or smaller,
    or empty, is not used.

    Classes. regions, min_area, most_regions, surplus, margin, crop, mask_background, mirror: see ``ObjectRule``. classes: how many clusters.
    classes_from: class tokens of objects, or patches of the foreground, which finds parts. class_clustering, class_restarts, neighbours: of
    the class tokens; neighbours only matter to spectral clustering.
    """

    facet: Facet = "keys"
    pca: int | None = None
    outlier_mads: float | None = None
    k_dataset: int = 3
    k_category: int = 3
    k_image: int = 2
    sample_per_image: int = 256
    sample_limit: int = 2_000_000
    batch: int = 16_384
    epochs: int = 100
    tolerance: float = 1e-4
    restarts: int = 5
    image_restarts: int = 10
    category_source: Literal["cls_kmeans", "oracle"] = "cls_kmeans"
    groups: int = 4
    min_group_images: int = 20
    foreground: Literal["both", "border", "cls_attn"] = "both"
    weak_below: float = 0.01
    weak_above: float = 0.9
    fg_vote: Literal["pooled", "per_image"] = "pooled"
    vote_share: float = 0.5
    mask_from: Literal["consistency", "dataset", "category", "image"] = "consistency"
    agree_iou: float = 0.5
    reliable_iou: float = 0.1
    keep_overlap: float = 0.2
    keep_share: float = 0.25
    min_patches: int = 4
    iterate: int = 0
    iterate_change: float = 0.01
    unary: Literal["cosine", "mask"] = "cosine"
    temperature: float = 0.07
    certainty: float = 0.7
    refine: Literal["crf", "pamr", "none"] = "crf"
    iterations: int = 10
    max_pixels: int = 400_000
    area_factor: float = 4.0
    regions: Parts = "components"
    min_area: float = 0.01
    most_regions: int = 5
    surplus: Surplus = "drop"
    margin: float = 0.1
    crop: int = 224
    mask_background: bool = False
    mirror: bool = False
    classes: int = 20
    classes_from: Literal["cls", "patch_tokens"] = "cls"
    class_clustering: Clustering = "kmeans"
    class_restarts: int = 20
    neighbours: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("k_dataset", "k_category", "k_image", "sample_per_image", "sample_limit", "batch", "epochs", "restarts", "image_restarts")
        for name in (*counts, "groups", "min_group_images", "classes", "class_restarts", "neighbours", "max_pixels"):
            if getattr(self, name) < 1:
                raise UsageError(f"lightcluster: '{name}' is {getattr(self, name)}, expected 1 or more.")
        for name in ("weak_below", "weak_above", "vote_share", "agree_iou", "reliable_iou", "keep_overlap", "keep_share", "iterate_change"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"lightcluster: '{name}' is {getattr(self, name)}, expected a share from 0 to 1.")
        if self.temperature <= 0 or self.area_factor < 1 or not 0.5 <= self.certainty <= 1 or self.iterate < 0 or self.iterations < 0:
            raise UsageError(
                f"lightcluster: temperature {self.temperature}, area_factor {self.area_factor}, certainty {self.certainty}, iterate "
                f"{self.iterate}, iterations {self.iterations}; expected above 0, 1 or more, 0.5 to 1, and 0 or more for the last two."
            )
        _ = self.objects  # its own bounds

    @property
    def objects(self) -> ObjectRule:
        return ObjectRule(
            self.regions, self.min_area, self.most_regions, self.surplus, self.margin, self.crop, self.mask_background, self.mirror
        )


SPEC = MethodSpec(
    name="lightcluster",
    title="LightCluster (reimplementation)",
    params=Params,
    needs=("keys", "cls", "cls_attention"),
    encodes=("cls",),
    labels=True,
    paper="Cheung et al., arXiv 2311.18628",
    licence="MIT (this project)",
    summary="Keys clustered in dataset, category and image; one object mask that they agree on; classes from class tokens of the objects.",
)


class Classes(Protocol):
    """Labels of vectors (n, D), int32 (n,)."""

    def assign(self, vectors: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Groups:
    """The category of an image: by the nearest of ``centres`` (G, D) to its class token, then ``merged`` (G,); or by its id in ``known``."""

    centres: np.ndarray
    merged: np.ndarray
    known: Mapping[str, int] = field(default_factory=dict)

    def of(self, sample: Sample) -> int:
        if self.known:
            return self.known[sample.image_id]
        return int(self.merged[assign(unit(sample.features["cls"])[None], self.centres)[0]])


@dataclass(frozen=True)
class Vote:
    """Which clusters are foreground: bool (K,) for the dataset, and for each category."""

    dataset: np.ndarray
    category: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class State:
    """What is learnt from all images. centres are float32 (K, C). votes: one after another, see ``Params.iterate``. classes: of objects;
    parts: centres of foreground patches, where classes come from these."""

    projection: Projection | None
    dataset: np.ndarray
    category: tuple[np.ndarray, ...]
    groups: Groups
    votes: tuple[Vote, ...] = ()
    classes: LabelModel | Exemplars | None = None
    parts: np.ndarray | None = None


# -- learning from all images -------------------------------------------------------------------------


def fit(samples: Samples, params: Params) -> State:
    """Centres of dataset and categories, the vote, and the classes, in three passes over the images."""
    if params.category_source == "oracle":
        raise UsageError(
            "lightcluster: category_source 'oracle' groups images by labels, which is not unsupervised. "
            "Use the method 'lightcluster_oracle', which is marked as such on every row, or category_source 'cls_kmeans'."
        )
    return fit_state(samples, params, None)


def fit_state(samples: Samples, params: Params, known: Mapping[str, str] | None) -> State:
    """``fit``, with the categories of the images known or not."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # sums inside BLAS come out in one order
        rows, tokens, own = _first_pass(samples, params)
        groups, group = _groups(samples, params, tokens, known)
        projection = principal(rows, params.pca, seed=params.seed) if params.pca and rows.rows else None
        if projection is not None:
            rows = projected(rows, projection)
        category = tuple(
            _centres(Some(rows, np.flatnonzero(group == g).tolist()), params.k_category, params).centres
            for g in range(int(group.max(initial=-1)) + 1)
        )
        state = State(projection, _centres(rows, params.k_dataset, params).centres, category, groups)
        for turn in range(1 + params.iterate if params.fg_vote == "pooled" else 0):
            vote, changed = _vote(samples, params, state, own)
            if turn and changed < params.iterate_change:
                break
            state = _with(state, votes=(*state.votes, vote))
        if params.classes_from == "patch_tokens":
            return _with(state, parts=_fit_parts(samples, params, state, own))
        return _with(state, classes=_fit_objects(samples, params, state, own))


def _with(state: State, **values: object) -> State:
    from dataclasses import replace

    return replace(state, **values)  # type: ignore[arg-type]


def _first_pass(samples: Samples, params: Params) -> tuple[RowFile, RowFile, RowFile]:
    """Put aside, a piece an image: sampled patches, the class token, and the image's own mask with 2 added where it is weak."""
    rows, tokens, own = RowFile(), RowFile(np.float32), RowFile(np.uint8)
    count = per_image(len(samples), params.sample_per_image, params.sample_limit)
    for sample in samples:
        units, trusted = unit_grid(sample, params.facet, params.outlier_mads)
        rows.append(drawn(units, trusted, count, params.seed, sample.image_id))
        tokens.append(unit(sample.features["cls"])[None])
        mask, weak = image_foreground(units, sample.features["cls_attention"], params)
        own.append((mask + np.uint8(2) * weak).reshape(-1, 1))
    return rows, tokens, own


def _centres(rows: Shards, k: int, params: Params) -> Centres:
    return fit_centres(
        rows, k, seed=params.seed, restarts=params.restarts, batch=params.batch, epochs=params.epochs, tolerance=params.tolerance
    )


def _groups(samples: Samples, params: Params, tokens: RowFile, known: Mapping[str, str] | None) -> tuple[Groups, np.ndarray]:
    """Categories of the images, and the category of each, int (images,)."""
    if known is not None:
        ids = [sample.image_id for sample in samples]
        missing = sorted(set(ids) - set(known))
        if missing:
            raise UsageError(f"{len(missing)} images have no category, first '{missing[0]}'. Add them to the file of image labels.")
        names = sorted({known[image_id] for image_id in ids})
        number = {image_id: names.index(known[image_id]) for image_id in ids}
        return Groups(np.zeros((0, 0), np.float32), np.zeros(0, np.int64), number), np.array([number[i] for i in ids], np.int64)
    centres = fit_centres(tokens, params.groups, seed=params.seed, restarts=params.image_restarts).centres
    nearest = [assign(tokens[number], centres) for number in range(len(tokens))]
    group = np.concatenate(nearest).astype(np.int64) if nearest else np.zeros(0, np.int64)
    merged = merge_small(centres, np.bincount(group, minlength=len(centres)), params.min_group_images)
    return Groups(centres, merged), merged[group]


def merge_small(centres: np.ndarray, sizes: np.ndarray, smallest: int) -> np.ndarray:
    """New number of each group, int64 (G,): the smallest group below ``smallest`` joins the one whose centre is nearest, again and again."""
    into = np.arange(len(centres))
    size = sizes.astype(np.int64).copy()
    alive = np.ones(len(centres), bool)
    while alive.sum() > 1:
        lowest = min(np.flatnonzero(alive).tolist(), key=lambda g: (size[g], g))
        if size[lowest] >= smallest:
            break
        alive[lowest] = False
        others = np.flatnonzero(alive)
        host = int(others[np.argmin(((centres[others] - centres[lowest]) ** 2).sum(axis=1))])
        into[into == lowest] = host
        size[host] += size[lowest]
    return np.unique(into, return_inverse=True)[1].astype(np.int64) if len(into) else into


def _vote(samples: Samples, params: Params, state: State, own: RowFile) -> tuple[Vote, float]:
    """The vote over all images, and the share of their patches where the votes before it changed their own masks."""
    inside = [np.zeros(len(centres)) for centres in (state.dataset, *state.category)]
    total = [np.zeros(len(centres)) for centres in (state.dataset, *state.category)]
    changed = patches = 0
    for found in _all_patches(samples, params, state, own):
        mask = _agreed(found, params, state)[0] if state.votes else found.mask
        changed, patches = changed + int((mask != found.mask).sum()), patches + mask.size
        if found.weak:
            continue
        for level, labels in ((0, found.dataset), (1 + found.group, found.category)):
            inside[level] += np.bincount(labels[mask], minlength=len(inside[level]))
            total[level] += np.bincount(labels.ravel(), minlength=len(total[level]))
    decided = [pooled_vote(i, t, params.vote_share) for i, t in zip(inside, total, strict=True)]
    return Vote(decided[0], tuple(decided[1:])), changed / max(patches, 1)


def _fit_objects(samples: Samples, params: Params, state: State, own: RowFile) -> LabelModel | Exemplars | None:
    vectors = RowFile(np.float32)
    for sample, found in zip(samples, _all_patches(samples, params, state, own), strict=True):
        masks = object_masks(pixel_mask(found.units, _agreed(found, params, state)[0], sample.image, params), params.objects)
        if masks:
            vectors.append(object_vectors(sample, masks, params.objects))
    return fit_classes(
        vectors, params.classes, params.class_clustering, restarts=params.class_restarts, neighbours=params.neighbours, seed=params.seed
    )


def _fit_parts(samples: Samples, params: Params, state: State, own: RowFile) -> np.ndarray:
    rows = RowFile()
    count = per_image(len(samples), params.sample_per_image, params.sample_limit)
    for found in _all_patches(samples, params, state, own):
        mask = _agreed(found, params, state)[0]
        rows.append(drawn(_reduced(found.units, state.projection), mask, count, params.seed, found.image_id))
    return _centres(rows, params.classes, params).centres


# -- one image ----------------------------------------------------------------------------------------


def segment(sample: Sample, params: Params, state: State) -> Regions:
    """The image (region 0), its background (1) and its objects with their class as label. ``source``: how the mask came about."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        found = _patches(sample, params, state, None)
        mask, branch = _agreed(found, params, state)
        pixels = pixel_mask(found.units, mask, sample.image, params)
        if params.classes_from == "patch_tokens":
            return _parts(found, pixels, state, branch)
        masks = object_masks(pixels, params.objects)
        labels = np.zeros(len(masks), np.int32)
        if masks and state.classes is not None:
            labels = state.classes.assign(object_vectors(sample, masks, params.objects))
        return labelled_objects(sample.image.shape, masks, labels, branch)


@dataclass(frozen=True)
class _Patches:
    """Patches of one image, all (h, w): its own mask, and its clusters in the dataset and in its category. units: (h, w, C)."""

    image_id: str
    units: np.ndarray
    mask: np.ndarray
    weak: bool
    dataset: np.ndarray
    category: np.ndarray
    group: int


def _all_patches(samples: Samples, params: Params, state: State, own: RowFile) -> Iterator[_Patches]:
    for number, sample in enumerate(samples):
        yield _patches(sample, params, state, own[number])


def _patches(sample: Sample, params: Params, state: State, own: np.ndarray | None) -> _Patches:
    """own: what was put aside of the image's own mask, None to find it anew."""
    units, _ = unit_grid(sample, params.facet, params.outlier_mads)
    if own is None:
        mask, weak = image_foreground(units, sample.features["cls_attention"], params)
    else:
        mask, weak = (own & 1).astype(bool).reshape(units.shape[:2]), bool(own[0, 0] & 2)
    points = _reduced(units, state.projection).reshape(units.shape[0] * units.shape[1], -1)
    group = state.groups.of(sample)
    dataset, category = (assign(points, centres).reshape(mask.shape) for centres in (state.dataset, state.category[group]))
    return _Patches(sample.image_id, units, mask, weak, dataset, category, group)


def _reduced(units: np.ndarray, projection: Projection | None) -> np.ndarray:
    return units if projection is None else projection(units)


def image_foreground(units: np.ndarray, attention: np.ndarray, params: Params) -> tuple[np.ndarray, bool]:
    """The image's own mask, bool (h, w), and whether it is weak: too small or too large to be an object.

    Each of its clusters scores z(mean attention of the class token) - z(share of the border's patches), z over the clusters. Two clusters have
    z of +1 and -1, so where the two criteria disagree they tie; then the border decides, and then the first patch's cluster is background.
    """
    h, w = units.shape[:2]
    labels = few_clusters(units.reshape(h * w, -1), params.k_image, seed=params.seed, restarts=params.image_restarts).reshape(h, w)
    k = int(labels.max()) + 1
    border = np.ones((h, w), bool)
    border[1:-1, 1:-1] = False
    on_border = np.bincount(labels[border], minlength=k) / border.sum()
    attended = np.bincount(labels.ravel(), nearest(attention, h, w).ravel(), k) / np.bincount(labels.ravel(), minlength=k)
    score = np.zeros(k)
    if params.foreground in ("both", "cls_attn"):
        score += _standardised(attended)
    if params.foreground in ("both", "border"):
        score -= _standardised(on_border)
    # rounded, so that what is equal ties
    best = max(range(k), key=lambda c: (round(float(score[c]), 9), round(-float(on_border[c]), 9), c))
    mask = labels == best
    return mask, not params.weak_below <= mask.mean() <= params.weak_above


def _standardised(values: np.ndarray) -> np.ndarray:
    spread = values.std()
    return (values - values.mean()) / spread if spread > 1e-12 else np.zeros(len(values))


def pooled_vote(inside: np.ndarray, total: np.ndarray, share: float = 0.5) -> np.ndarray:
    """Which clusters are foreground, bool (K,): those of which more than ``share``, and more than of all patches, lie in the images' masks.

    inside: patches of each cluster in the masks. total: all its patches. Where no cluster qualifies the best one does, and of several that
    all do the worst does not. Without any patch, as where every image is weak, none is foreground.
    """
    if not total.sum():
        return np.zeros(len(total), bool)
    part = np.divide(inside, total, out=np.zeros(len(total)), where=total > 0)
    chosen = part > max(share, inside.sum() / total.sum())
    if not chosen.any():
        chosen[np.argmax(part)] = True
    elif chosen.all() and len(chosen) > 1:
        chosen[np.argmin(part)] = False
    return chosen


def _agreed(found: _Patches, params: Params, state: State) -> tuple[np.ndarray, str]:
    """The mask of an image, bool (h, w), and how it came about."""
    if params.mask_from == "image":
        return found.mask, "image level"
    mask, branch = found.mask, ""
    for turn in range(max(len(state.votes), 1)):
        if params.fg_vote == "per_image":
            dataset, category = (labels == _most_inside(labels, mask) for labels in (found.dataset, found.category))
        else:
            dataset, category = state.votes[turn].dataset[found.dataset], state.votes[turn].category[found.group][found.category]
        if params.mask_from != "consistency":
            return {"dataset": dataset, "category": category}[params.mask_from], f"{params.mask_from} level"
        mask, branch = consistency(dataset, category, mask, found.weak, params)
    return mask, f"{branch}, weak image" if found.weak else branch


def _most_inside(labels: np.ndarray, mask: np.ndarray) -> int:
    return int(np.bincount(labels[mask], minlength=1).argmax()) if mask.any() else -1


def consistency(dataset: np.ndarray, category: np.ndarray, image: np.ndarray, weak: bool, params: Params) -> tuple[np.ndarray, str]:
    """One mask from the masks of three levels, bool (h, w), and the last branch that shaped it. weak: the image's own is not to be believed.

    1. structure: where dataset and category agree (IoU ≥ ``agree_iou``) what both have, holes filled (``agree``); else the one that is
       more like the image's own (``dataset``, ``category``).
    2. reliability: nearly disjoint from the image's own (IoU < ``reliable_iou``), unless that is weak: what two of three have
       (``majority``), or the image's own where that is nothing (``image``).
    3. denoise: a component (8 neighbours) goes unless ``keep_overlap`` of it lies in the image's own mask or it is ``keep_share`` of the
       whole; also one of fewer than ``min_patches``.
    4. nothing left: the largest component of the image's own mask (``largest``), or nothing where that is weak (``empty``).
    """
    from scipy import ndimage

    if iou(dataset, category) >= params.agree_iou:
        mask, branch = ndimage.binary_fill_holes(dataset & category), "agree"
    elif iou(dataset, image) >= iou(category, image):
        mask, branch = dataset, "dataset"
    else:
        mask, branch = category, "category"
    if not weak and iou(mask, image) < params.reliable_iou:
        mask, branch = dataset.astype(int) + category + image >= 2, "majority"
        if not mask.any():
            mask, branch = image, "image"
    mask = denoised(mask, image, params)
    if mask.any():
        return mask, branch
    return (mask, "empty") if weak else (_largest(image), "largest")


def denoised(mask: np.ndarray, image: np.ndarray, params: Params) -> np.ndarray:
    """Step 3 of ``consistency``."""
    from scipy import ndimage

    parts, count = ndimage.label(mask, np.ones((3, 3)))
    size = np.bincount(parts.ravel(), minlength=count + 1)
    shared = np.bincount(parts[image], minlength=count + 1)
    keep = (shared >= params.keep_overlap * size) | (size >= params.keep_share * mask.sum())
    keep &= size >= params.min_patches
    keep[0] = False
    return np.asarray(keep[parts])


def _largest(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    parts, count = ndimage.label(mask, np.ones((3, 3)))
    return parts == 1 + int(np.bincount(parts.ravel(), minlength=count + 1)[1:].argmax()) if count else mask


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Of two masks; 0 where both are empty."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 0.0


# -- pixels -------------------------------------------------------------------------------------------


def pixel_mask(units: np.ndarray, mask: np.ndarray, image: np.ndarray, params: Params) -> np.ndarray:
    """A patch mask (h, w) at the pixels of the image, bool (H, W), refined unless that would change its area out of all proportion."""
    height, width = image.shape[:2]
    if not mask.any() or mask.all():
        return np.full((height, width), bool(mask.any()))
    soft = soft_mask(units, mask, params.temperature) if params.unary == "cosine" else mask.astype(np.float32)
    plain = bilinear(soft, height, width) > 0.5
    if params.refine == "none":
        return plain
    share = min(1.0, (params.max_pixels / (height * width)) ** 0.5)
    small = (max(1, round(height * share)), max(1, round(width * share)))
    picture = image if share == 1 else resize_image(image, small, area=True)
    likely = bilinear(soft, *picture.shape[:2])
    if params.unary == "mask":
        likely = 1 - params.certainty + (2 * params.certainty - 1) * likely
    both = np.stack([1 - likely, likely])
    if params.refine == "crf":
        after = dense_crf(both, picture, Crf(iterations=params.iterations))
    else:
        after = pamr(both, picture, Pamr(iterations=params.iterations))
    refined = nearest(after[1] > after[0], height, width)
    return refined if plain.sum() <= params.area_factor * refined.sum() <= params.area_factor**2 * plain.sum() else plain


def soft_mask(units: np.ndarray, mask: np.ndarray, temperature: float) -> np.ndarray:
    """How much each patch is like the mean of the mask and unlike the mean of the others, float32 (h, w), from 0 to 1."""
    cosine = [units @ unit(units[side].mean(axis=0)) for side in (mask, ~mask)]
    return np.asarray(1 / (1 + np.exp(-np.clip((cosine[0] - cosine[1]) / temperature, -50, 50))), np.float32)


def _parts(found: _Patches, pixels: np.ndarray, state: State, branch: str) -> Regions:
    """Foreground pixels by the cluster of their patch, one region for each that occurs."""
    units = _reduced(found.units, state.projection)
    if state.parts is None or not len(state.parts):
        return labelled_objects(pixels.shape, [], np.zeros(0, np.int32), branch)
    part = nearest(assign(units.reshape(-1, units.shape[2]), state.parts).reshape(found.mask.shape), *pixels.shape)
    shown = np.unique(part[pixels])
    return labelled_objects(pixels.shape, [(part == label) & pixels for label in shown], shown, branch)
