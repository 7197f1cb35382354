"""LightCluster: patches clustered in the dataset, in their category and in the image; one object mask an image; classes from class tokens.

No network is trained. Three k-means give each patch three labels. The image's own clustering says which clusters of the other two are
foreground, by a vote over all images. The three masks of an image are merged into one, which is brought to pixels, refined, and split into
objects. Crops of the objects are encoded again; their class tokens, clustered over the dataset, are the labels of the regions.

Reference: Cheung, Chen, Yang & Zhao, "A lightweight clustering framework for unsupervised semantic segmentation", arXiv 2311.18628. This is
a reimplementation: only the abstracts and figure captions could be read and no code was published. Taken from there: the frozen keys, the
three levels with few clusters each, that the image level decides what is foreground and removes noise, the crops, the class tokens. All
numbers and the rule of agreement (their algorithm 1) are this project's; each is a parameter. See docs/lightcluster.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from uss_dagster.datasets.base import Sample
from uss_dagster.errors import UsageError
from uss_dagster.graphs.streaming_kmeans import Projection, RowFile, Some, assign, fit_centres
from uss_dagster.methods._lightcluster_masks import consistency, image_foreground, most_inside, pixel_mask, pooled_vote
from uss_dagster.methods._lightcluster_params import Params
from uss_dagster.methods._objects import ObjectClasses, classified_objects, fit_classes, labelled_objects, unit32
from uss_dagster.methods._points import drawn, reduce_rows, reduced
from uss_dagster.methods.base import MethodSpec, Samples, one_thread
from uss_dagster.pixels import nearest
from uss_dagster.regions import Regions

SPEC = MethodSpec(
    name="lightcluster",
    title="LightCluster (reimplementation)",
    params=Params,
    needs=("keys", "cls", "cls_attention"),
    facet_parameter="patches.facet",
    encodes=("cls",),
    labels=True,
    paper="Cheung et al., arXiv 2311.18628",
    summary="Keys clustered in dataset, category and image; one object mask that they agree on; classes from class tokens of the objects.",
)


@dataclass(frozen=True)
class Groups:
    """The category of an image: by the nearest of ``centres`` (G, D) to its class token, then ``merged`` (G,); or by its id in ``by_id``."""

    centres: np.ndarray
    merged: np.ndarray
    by_id: Mapping[str, int] = field(default_factory=dict)

    def of(self, sample: Sample) -> int:
        if self.by_id:
            return self.by_id[sample.image_id]
        return int(self.merged[assign(unit32(sample.features["cls"])[None], self.centres)[0]])


@dataclass(frozen=True)
class Vote:
    """Which clusters are foreground: bool (K,) for the dataset, and for each category."""

    dataset: np.ndarray
    category: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class State:
    """What is learnt from all images. Centres are float32 (K, C).

    votes: one after another, see ``Agreement.iterate``. classes: of objects. parts: centres of foreground patches, where classes come
    from these.
    """

    projection: Projection | None
    dataset: np.ndarray
    category: tuple[np.ndarray, ...]
    groups: Groups
    votes: tuple[Vote, ...] = ()
    classes: ObjectClasses | None = None
    parts: np.ndarray | None = None


# -- learning from all images -------------------------------------------------------------------------


def fit(samples: Samples, params: Params) -> State:
    """Centres of dataset and categories, the vote, and the classes, in three passes over the images."""
    if params.categories.source == "oracle":
        raise UsageError(
            "lightcluster: categories.source 'oracle' groups images by labels, which is not unsupervised. "
            "Use the method 'lightcluster_oracle', which is marked as such on every row, or categories.source 'cls_kmeans'."
        )
    return fit_state(samples, params, None)


@one_thread
def fit_state(samples: Samples, params: Params, categories: Mapping[str, str] | None) -> State:
    """``fit``, with the category of each image id, or None where categories are to be found."""
    clusters = params.clusters
    rows, tokens, own = _first_pass(samples, params)
    groups, group = _groups(samples, params, tokens, categories)
    rows, projection = reduce_rows(rows, params.patches.pca, params.seed)
    category = tuple(
        clusters.centres(Some(rows, np.flatnonzero(group == g).tolist()), clusters.k_category, params.seed).centres
        for g in range(int(group.max(initial=-1)) + 1)
    )
    dataset = clusters.centres(rows, clusters.k_dataset, params.seed).centres
    state = State(projection, dataset, category, groups)
    for turn in range(1 + params.agreement.iterate if params.foreground.vote == "pooled" else 0):
        vote, changed = _vote(samples, params, state, own)
        if turn and changed < params.agreement.iterate_change:
            break
        state = replace(state, votes=(*state.votes, vote))
    if params.classes.source == "patch_tokens":
        return replace(state, parts=_fit_parts(samples, params, state, own))
    return replace(state, classes=_fit_objects(samples, params, state, own))


def _first_pass(samples: Samples, params: Params) -> tuple[RowFile, RowFile, RowFile]:
    """On disk, a piece an image: sampled patches, the class token, and the image's own mask with 2 added where it is weak."""
    rows, tokens, own = RowFile(), RowFile(np.float32), RowFile(np.uint8)
    count = params.patches.per_image(len(samples))
    for sample in samples:
        units, trusted = params.patches.grid(sample)
        rows.append(drawn(units, trusted, count, params.seed, sample.image_id))
        tokens.append(unit32(sample.features["cls"])[None])
        mask, weak = image_foreground(units, sample.features["cls_attention"], params.clusters, params.foreground, params.seed)
        own.append((mask + np.uint8(2) * weak).reshape(-1, 1))
    return rows, tokens, own


def _groups(samples: Samples, params: Params, tokens: RowFile, categories: Mapping[str, str] | None) -> tuple[Groups, np.ndarray]:
    """Categories of the images, and the category of each, int (images,)."""
    if categories is not None:
        ids = [sample.image_id for sample in samples]
        missing = sorted(set(ids) - set(categories))
        if missing:
            raise UsageError(f"{len(missing)} images have no category, first '{missing[0]}'. Add them to the file of image labels.")
        names = sorted({categories[image_id] for image_id in ids})
        number = {image_id: names.index(categories[image_id]) for image_id in ids}
        return Groups(np.zeros((0, 0), np.float32), np.zeros(0, np.int64), number), np.array([number[i] for i in ids], np.int64)
    centres = fit_centres(tokens, params.categories.count, seed=params.seed, restarts=params.clusters.image_restarts).centres
    closest = [assign(tokens[number], centres) for number in range(len(tokens))]
    group = np.concatenate(closest).astype(np.int64) if closest else np.zeros(0, np.int64)
    merged = merge_small(centres, np.bincount(group, minlength=len(centres)), params.categories.min_images)
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
    inside, total = ([np.zeros(len(centres)) for centres in (state.dataset, *state.category)] for _ in range(2))
    changed = count = 0
    for _, patches in _all_patches(samples, params, state, own):
        mask = _agreed(patches, params, state)[0] if state.votes else patches.mask
        changed, count = changed + int((mask != patches.mask).sum()), count + mask.size
        if patches.weak:
            continue
        for level, labels in ((0, patches.dataset), (1 + patches.group, patches.category)):
            inside[level] += np.bincount(labels[mask], minlength=len(inside[level]))
            total[level] += np.bincount(labels.ravel(), minlength=len(total[level]))
    foreground = [pooled_vote(i, t, params.foreground.vote_share) for i, t in zip(inside, total, strict=True)]
    return Vote(foreground[0], tuple(foreground[1:])), changed / max(count, 1)


def _fit_objects(samples: Samples, params: Params, state: State, own: RowFile) -> ObjectClasses | None:
    masks = (
        (sample, pixel_mask(patches.units, _agreed(patches, params, state)[0], sample.image, params.mask))
        for sample, patches in _all_patches(samples, params, state, own)
    )
    return fit_classes(masks, params.objects, params.classes, params.seed)


def _fit_parts(samples: Samples, params: Params, state: State, own: RowFile) -> np.ndarray:
    rows, count = RowFile(), params.patches.per_image(len(samples))
    for sample, patches in _all_patches(samples, params, state, own):
        mask = _agreed(patches, params, state)[0]
        rows.append(drawn(reduced(patches.units, state.projection), mask, count, params.seed, sample.image_id))
    return params.clusters.centres(rows, params.classes.count, params.seed).centres


# -- one image ----------------------------------------------------------------------------------------


@one_thread
def segment(sample: Sample, params: Params, state: State) -> Regions:
    """The image (region 0), its background (1) and its objects with their class as label. ``source``: how the mask came about."""
    patches = _patches(sample, params, state, None)
    mask, branch = _agreed(patches, params, state)
    pixels = pixel_mask(patches.units, mask, sample.image, params.mask)
    if params.classes.source == "patch_tokens":
        return _parts(patches, pixels, state, branch)
    return classified_objects(sample, pixels, params.objects, state.classes, branch)


@dataclass(frozen=True)
class Patches:
    """Patches of one image, all (h, w): its own mask, and its clusters in the dataset and in its category. units: (h, w, C)."""

    units: np.ndarray
    mask: np.ndarray
    weak: bool
    dataset: np.ndarray
    category: np.ndarray
    group: int


def _all_patches(samples: Samples, params: Params, state: State, own: RowFile) -> Iterator[tuple[Sample, Patches]]:
    for number, sample in enumerate(samples):
        yield sample, _patches(sample, params, state, own[number])


def _patches(sample: Sample, params: Params, state: State, own: np.ndarray | None) -> Patches:
    """own: the image's own mask as ``_first_pass`` stored it, None to compute it."""
    units, _ = params.patches.grid(sample)
    if own is None:
        mask, weak = image_foreground(units, sample.features["cls_attention"], params.clusters, params.foreground, params.seed)
    else:
        mask, weak = (own & 1).astype(bool).reshape(units.shape[:2]), bool(own[0, 0] & 2)
    points = reduced(units, state.projection).reshape(units.shape[0] * units.shape[1], -1)
    group = state.groups.of(sample)
    dataset, category = (assign(points, centres).reshape(mask.shape) for centres in (state.dataset, state.category[group]))
    return Patches(units, mask, weak, dataset, category, group)


def _agreed(patches: Patches, params: Params, state: State) -> tuple[np.ndarray, str]:
    """The mask of an image, bool (h, w), and how it came about."""
    level = params.agreement.mask_from
    if level == "image":
        return patches.mask, "image level"
    mask, branch = patches.mask, ""
    for turn in range(max(len(state.votes), 1)):
        if params.foreground.vote == "per_image":
            dataset, category = (labels == most_inside(labels, mask) for labels in (patches.dataset, patches.category))
        else:
            vote = state.votes[turn]
            dataset, category = vote.dataset[patches.dataset], vote.category[patches.group][patches.category]
        if level != "consistency":
            return dataset if level == "dataset" else category, f"{level} level"
        mask, branch = consistency(dataset, category, mask, patches.weak, params.agreement)
    return mask, f"{branch}, weak image" if patches.weak else branch


def _parts(patches: Patches, pixels: np.ndarray, state: State, branch: str) -> Regions:
    """Foreground pixels by the cluster of their patch, one region for each that occurs."""
    if state.parts is None or not len(state.parts):
        return labelled_objects(pixels.shape, [], np.zeros(0, np.int32), branch)
    units = reduced(patches.units, state.projection)
    part = nearest(assign(units.reshape(-1, units.shape[2]), state.parts).reshape(patches.mask.shape), *pixels.shape)
    labels = np.unique(part[pixels])
    return labelled_objects(pixels.shape, [(part == label) & pixels for label in labels], labels, branch)
