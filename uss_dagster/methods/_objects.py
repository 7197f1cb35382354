"""From a binary mask to labelled objects: regions, crops, their class tokens, and clusters of these over the dataset.

References: Cheung et al., arXiv 2311.18628; Zadaianchuk et al., "Unsupervised semantic segmentation with self-supervised object-centric
representations", ICLR 2023 (one object an image, spectral clustering of class tokens).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from uss_dagster.bounds import Bounds, at_least, check_bounds
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import UsageError
from uss_dagster.graphs.eigen import smallest_eigenpairs
from uss_dagster.graphs.kmeans import kmeans
from uss_dagster.graphs.semantic_labels import LabelModel
from uss_dagster.graphs.streaming_kmeans import RowFile
from uss_dagster.graphs.vectors import unit
from uss_dagster.methods._maps import components
from uss_dagster.pixels import resize_image
from uss_dagster.regions import Regions

Parts = Literal["components", "whole"]
Clustering = Literal["kmeans", "spectral"]

MOST_EXEMPLARS = 4000
"""Vectors that spectral clustering takes at once; of more, a sample."""


@dataclass(frozen=True)
class ObjectRule:
    """How a mask becomes objects, and objects become crops that the backbone encodes.

    Parameters
    ----------
    regions : {'components', 'whole'}
        An object is a connected component (8 neighbours), or the whole mask. Default 'components'.
    min_area : float
        Least area of an object, as a share of the image. Default 0.01.
    most : int
        Objects an image, the largest ones. Default 5.
    surplus : {'drop', 'merge'}
        Components beyond ``most`` are left out, or join the largest object. Default 'drop'.
    margin : float
        By which a box grows on each side, as a share of its side. Default 0.1.
    crop : int
        Side of the crop that is encoded, in pixels. Default 224.
    mask_background : bool
        Pixels of the crop outside the object are black. Default false.
    mirror : bool
        The vector is the mean of those of the crop and of the mirrored crop. Default false.
    """

    regions: Parts = "components"
    min_area: float = 0.01
    most: int = 5
    surplus: Literal["drop", "merge"] = "drop"
    margin: float = 0.1
    crop: int = 224
    mask_background: bool = False
    mirror: bool = False

    def __post_init__(self) -> None:
        part = Bounds("a share of 0 to below 1", lambda value: 0 <= value < 1)
        check_bounds(self, min_area=part, most=at_least(1), margin=at_least(0), crop=at_least(8))


@dataclass(frozen=True)
class ClassRule:
    """How class tokens of objects become classes.

    Parameters
    ----------
    count : int
        Clusters over the dataset. Default 20.
    clustering : {'kmeans', 'spectral'}
        Of the class tokens. Default 'kmeans'.
    restarts : int
        Starts of k-means, of which the best counts. Default 20.
    neighbours : int
        Of an object in the graph of spectral clustering. Default 30, as in Zadaianchuk et al., ICLR 2023.
    """

    count: int = 20
    clustering: Clustering = "kmeans"
    restarts: int = 20
    neighbours: int = 30

    def __post_init__(self) -> None:
        check_bounds(self, count=at_least(1), restarts=at_least(1), neighbours=at_least(1))


def object_masks(mask: np.ndarray, rule: ObjectRule) -> list[np.ndarray]:
    """The objects of a mask, bool (H, W) each, the largest first; none where the mask is empty or all its components are too small."""
    if rule.regions == "whole":
        return [mask] if mask.mean() >= rule.min_area and mask.any() else []
    parts, size = components(mask)
    area = size[1:]
    large = [int(part) for part in np.argsort(-area, kind="stable") if area[part] >= rule.min_area * mask.size]
    masks = [parts == part + 1 for part in large[: rule.most]]
    if rule.surplus == "merge" and len(large) > rule.most:
        masks[0] = masks[0] | np.isin(parts, np.array(large[rule.most :]) + 1)
    return masks


def crop_of(image: np.ndarray, mask: np.ndarray, rule: ObjectRule) -> np.ndarray:
    """The picture of one object, uint8 (crop, crop, 3): its box, grown and clipped to the image."""
    spans = []
    for axis in (1, 0):
        places = np.flatnonzero(mask.any(axis=axis))
        low, high = int(places[0]), int(places[-1]) + 1
        grow = round(rule.margin * (high - low))
        spans.append(slice(max(low - grow, 0), min(high + grow, mask.shape[1 - axis])))
    picture = image[tuple(spans)]
    if rule.mask_background:
        picture = picture * mask[tuple(spans)][:, :, None]
    return resize_image(np.ascontiguousarray(picture), (rule.crop, rule.crop), area=True)


def object_vectors(sample: Sample, masks: Sequence[np.ndarray], rule: ObjectRule) -> np.ndarray:
    """Class tokens of the objects' crops, float32 (n, D), of length 1."""
    if not masks:
        return np.zeros((0, 0), np.float32)
    if sample.encode is None:
        raise UsageError("Objects are told apart by class tokens of their pictures; run the method with a backbone that writes 'cls'.")
    crops = [crop_of(sample.image, mask, rule) for mask in masks]
    vectors = unit32(np.stack([features["cls"] for features in sample.encode(crops)]))
    if rule.mirror:
        mirrored = sample.encode([np.ascontiguousarray(crop[:, ::-1]) for crop in crops])
        vectors = vectors + unit32(np.stack([features["cls"] for features in mirrored]))
    return unit32(vectors)


def unit32(vectors: np.ndarray) -> np.ndarray:
    """``unit`` in float32."""
    return np.asarray(unit(vectors), np.float32)


@dataclass(frozen=True)
class Exemplars:
    """Classes of vectors by the nearest of those that were clustered, which gives each of these its own class again.

    vectors: float16 (n, D). labels: int32 (n,).
    """

    vectors: np.ndarray
    labels: np.ndarray

    def assign(self, vectors: np.ndarray) -> np.ndarray:
        exemplars = self.vectors.astype(np.float32)
        return self.labels[(2 * (vectors @ exemplars.T) - np.einsum("nd,nd->n", exemplars, exemplars)).argmax(axis=1)]


ObjectClasses = LabelModel | Exemplars


def fit_classes(masks: Iterable[tuple[Sample, np.ndarray]], objects: ObjectRule, classes: ClassRule, seed: int) -> ObjectClasses | None:
    """Classes of the objects of a dataset; None where there are no objects. Fewer than ``count`` where there are fewer objects.

    masks: each image with its mask, bool (H, W).
    """
    vectors = RowFile(np.float32)
    for sample, mask in masks:
        if parts := object_masks(mask, objects):
            vectors.append(object_vectors(sample, parts, objects))
    return cluster_vectors(vectors, classes, seed)


def cluster_vectors(vectors: RowFile, rule: ClassRule, seed: int = 0) -> ObjectClasses | None:
    """Clusters of vectors, one piece an image."""
    if not vectors.rows:
        return None
    if rule.clustering == "kmeans":
        pieces = ((str(number), vectors[number]) for number in range(len(vectors)) if len(vectors[number]))
        return LabelModel.fit(pieces, rule.count, seed=seed, restarts=rule.restarts)
    share = min(1.0, MOST_EXEMPLARS / vectors.rows)
    samples = []
    for number in range(len(vectors)):
        piece = vectors[number]
        samples.append(piece[np.random.default_rng([seed, number]).random(len(piece)) < share] if share < 1 else piece)
    points = np.concatenate([piece for piece in samples if len(piece)]).astype(np.float32)
    return Exemplars(points.astype(np.float16), spectral_classes(points, rule.count, rule.neighbours, rule.restarts, seed))


def spectral_classes(points: np.ndarray, k: int, neighbours: int = 30, restarts: int = 10, seed: int = 0) -> np.ndarray:
    """Spectral clusters of unit vectors (n, D), int32 (n,): k-means of the rows of the first k eigenvectors, brought to length 1.

    The graph joins each vector with its nearest ``neighbours`` by cosine, in either direction; of few vectors with at most half of the others, since a
    graph that joins all tells nothing apart.

    References: Ng, Jordan & Weiss, "On spectral clustering: analysis and an algorithm", NIPS 2001.
    """
    from scipy import sparse

    n = len(points)
    if n <= k:
        return np.arange(n, dtype=np.int32)
    nearest = np.empty((n, min(neighbours, max(1, (n - 1) // 2))), np.int64)
    for begin in range(0, n, 512):
        rows = np.arange(begin, min(begin + 512, n))
        cosine = points[rows] @ points.T
        cosine[rows - begin, rows] = -np.inf
        nearest[rows] = np.argsort(-cosine, axis=1, kind="stable")[:, : nearest.shape[1]]
    near = sparse.csr_array((np.ones(nearest.size), (np.repeat(np.arange(n), nearest.shape[1]), nearest.ravel())), shape=(n, n))
    affinity = ((near + near.T) / 2).toarray()
    vectors = smallest_eigenpairs(affinity, k, laplacian="symmetrical", solver="dense").vectors
    return kmeans(unit32(vectors).astype(np.float64), k, seed=seed, restarts=restarts).labels


def classified_objects(sample: Sample, mask: np.ndarray, rule: ObjectRule, classes: ObjectClasses | None, source: str) -> Regions:
    """Regions of the objects of a mask, bool (H, W), with their class as label; see ``labelled_objects``."""
    masks = object_masks(mask, rule)
    labels = classes.assign(object_vectors(sample, masks, rule)) if masks and classes is not None else np.zeros(len(masks), np.int32)
    return labelled_objects(mask.shape, masks, labels, source)


def labelled_objects(shape: tuple[int, ...], masks: Sequence[np.ndarray], labels: np.ndarray, source: str) -> Regions:
    """The image (region 0), its background and its objects, which carry the labels; the first of two objects that share a pixel has it."""
    leaf = np.ones(shape[:2], np.int32)
    for number, mask in reversed(list(enumerate(masks))):
        leaf[mask] = 2 + number
    count = len(masks)
    return Regions.from_tree(
        leaf,
        [-1, 0] + [0] * count,
        level=[1.0, 0.0] + [0.0] * count,
        score=[1.0, 0.0] + [1.0] * count,
        label=[-1, -1, *labels.tolist()],
        source=source,
    )
