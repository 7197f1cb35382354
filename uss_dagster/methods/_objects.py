"""From a binary mask to labelled objects: regions, crops, their class tokens, and clusters of these over the dataset.

References: Cheung et al., arXiv 2311.18628; Zadaianchuk et al., "Unsupervised semantic segmentation with self-supervised object-centric
representations", ICLR 2023 (one object an image, spectral clustering of class tokens).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from uss_dagster.datasets.base import Sample
from uss_dagster.errors import UsageError
from uss_dagster.graphs.eigen import smallest_eigenpairs
from uss_dagster.graphs.kmeans import kmeans
from uss_dagster.graphs.semantic_labels import LabelModel
from uss_dagster.graphs.streaming_kmeans import RowFile
from uss_dagster.pixels import resize_image
from uss_dagster.regions import Regions

Parts = Literal["components", "whole"]
Surplus = Literal["drop", "merge"]
Clustering = Literal["kmeans", "spectral"]

MOST_EXEMPLARS = 4000
"""Vectors that spectral clustering takes at once; of more, a sample."""


@dataclass(frozen=True)
class ObjectRule:
    """How a mask becomes objects and objects become pictures.

    regions: connected components (8 neighbours), or the whole mask as one. min_area: of a component, as a share of the image. most: components
    kept, the largest ones; surplus: what happens to the others. margin: by which a box grows on each side, as a share of it. crop: side
    of the picture that is encoded. mask_background: blacken what is not the object. mirror: average with the mirrored picture.
    """

    regions: Parts = "components"
    min_area: float = 0.01
    most: int = 5
    surplus: Surplus = "drop"
    margin: float = 0.1
    crop: int = 224
    mask_background: bool = False
    mirror: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.min_area < 1 or self.most < 1 or self.margin < 0 or self.crop < 8:
            raise UsageError(
                f"Objects of at least {self.min_area} of the image, at most {self.most}, margin {self.margin}, crops of {self.crop} pixels: "
                "expected a share below 1, 1 or more, 0 or more, and 8 or more."
            )


def object_masks(mask: np.ndarray, rule: ObjectRule) -> list[np.ndarray]:
    """The objects of a mask, bool (H, W) each, the largest first; none where the mask is empty or all its components are too small."""
    from scipy import ndimage

    if rule.regions == "whole":
        return [mask] if mask.mean() >= rule.min_area and mask.any() else []
    parts, count = ndimage.label(mask, np.ones((3, 3)))
    area = np.bincount(parts.ravel(), minlength=count + 1)[1:]
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
    """Class tokens of the objects' pictures, float32 (n, D), of length 1."""
    if not masks:
        return np.zeros((0, 0), np.float32)
    if sample.encode is None:
        raise UsageError("Objects are told apart by class tokens of their pictures; run the method with a backbone that writes 'cls'.")
    pictures = [crop_of(sample.image, mask, rule) for mask in masks]
    vectors = _class_tokens(sample, pictures)
    if rule.mirror:
        vectors = vectors + _class_tokens(sample, [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures])
    return unit(vectors)


def _class_tokens(sample: Sample, pictures: list[np.ndarray]) -> np.ndarray:
    assert sample.encode is not None
    return unit(np.stack([found["cls"] for found in sample.encode(pictures)]))


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12), np.float32)


@dataclass(frozen=True)
class Exemplars:
    """Classes of vectors by the nearest of those that were clustered, which gives each of these its own class again.

    vectors: float16 (n, D). labels: int32 (n,).
    """

    vectors: np.ndarray
    labels: np.ndarray

    def assign(self, vectors: np.ndarray) -> np.ndarray:
        known = self.vectors.astype(np.float32)
        return self.labels[(2 * (vectors @ known.T) - np.einsum("nd,nd->n", known, known)).argmax(axis=1)]


def fit_classes(
    vectors: RowFile, k: int, clustering: Clustering = "kmeans", *, restarts: int = 20, neighbours: int = 30, seed: int = 0
) -> LabelModel | Exemplars | None:
    """Classes of the objects of a dataset, one piece an image; None where there are no objects. Fewer than k where there are fewer objects."""
    if not vectors.rows:
        return None
    if clustering == "kmeans":
        pieces = ((str(number), vectors[number]) for number in range(len(vectors)) if len(vectors[number]))
        return LabelModel.fit(pieces, k, seed=seed, restarts=restarts)
    share = min(1.0, MOST_EXEMPLARS / vectors.rows)
    kept = []
    for number in range(len(vectors)):
        piece = vectors[number]
        kept.append(piece[np.random.default_rng([seed, number]).random(len(piece)) < share] if share < 1 else piece)
    points = np.concatenate([piece for piece in kept if len(piece)]).astype(np.float32)
    return Exemplars(points.astype(np.float16), spectral_classes(points, k, neighbours, restarts, seed))


def spectral_classes(points: np.ndarray, k: int, neighbours: int = 30, restarts: int = 10, seed: int = 0) -> np.ndarray:
    """Spectral clusters of unit vectors (n, D), int32 (n,): k-means of the rows of the first k eigenvectors, brought to length 1.

    The graph joins each vector with its nearest ``neighbours`` by cosine, in either direction.

    References: Ng, Jordan & Weiss, "On spectral clustering: analysis and an algorithm", NIPS 2001.
    """
    from scipy import sparse

    n = len(points)
    if n <= k:
        return np.arange(n, dtype=np.int32)
    nearest = np.empty((n, min(neighbours, n - 1)), np.int64)
    for begin in range(0, n, 512):
        rows = np.arange(begin, min(begin + 512, n))
        cosine = points[rows] @ points.T
        cosine[rows - begin, rows] = -np.inf
        nearest[rows] = np.argsort(-cosine, axis=1, kind="stable")[:, : nearest.shape[1]]
    near = sparse.csr_array((np.ones(nearest.size), (np.repeat(np.arange(n), nearest.shape[1]), nearest.ravel())), shape=(n, n))
    affinity = ((near + near.T) / 2).toarray()
    vectors = smallest_eigenpairs(affinity, k, laplacian="symmetrical", solver="dense").vectors
    return kmeans(unit(vectors).astype(np.float64), k, seed=seed, restarts=restarts).labels


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
