"""The masks of LightCluster: the image's own, the vote over clusters, the agreement of three levels, and the mask of pixels."""

from __future__ import annotations

import numpy as np

from uss_dagster.graphs.few_clusters import few_clusters
from uss_dagster.methods._lightcluster_params import Agreement, Clusters, Foreground, Mask
from uss_dagster.methods._maps import components
from uss_dagster.methods._objects import unit32
from uss_dagster.pixels import bilinear, iou, nearest, resize_image
from uss_dagster.refine.crf import Crf, dense_crf
from uss_dagster.refine.pamr import Pamr, pamr

# -- patches ------------------------------------------------------------------------------------------


def image_foreground(
    units: np.ndarray, attention: np.ndarray, clusters: Clusters, foreground: Foreground, seed: int = 0
) -> tuple[np.ndarray, bool]:
    """The image's own mask, bool (h, w), and whether it is weak: too small or too large to be an object.

    Each of its clusters scores z(mean attention of the class token) - z(share of the border's patches), z over the clusters. Two clusters have
    z of +1 and -1, so where the two criteria disagree they tie; then the border decides, and then the first patch's cluster is background.
    """
    h, w = units.shape[:2]
    labels = few_clusters(units.reshape(h * w, -1), clusters.k_image, seed=seed, restarts=clusters.image_restarts).reshape(h, w)
    k = int(labels.max()) + 1
    border = np.ones((h, w), bool)
    border[1:-1, 1:-1] = False
    on_border = np.bincount(labels[border], minlength=k) / border.sum()
    attended = np.bincount(labels.ravel(), nearest(attention, h, w).ravel(), k) / np.bincount(labels.ravel(), minlength=k)
    score = np.zeros(k)
    if foreground.rule != "border":
        score += _standardised(attended)
    if foreground.rule != "cls_attn":
        score -= _standardised(on_border)
    # rounded, so that equal scores tie
    best = max(range(k), key=lambda c: (round(float(score[c]), 9), round(-float(on_border[c]), 9), c))
    mask = labels == best
    return mask, not foreground.weak_below <= mask.mean() <= foreground.weak_above


def _standardised(values: np.ndarray) -> np.ndarray:
    spread = values.std()
    return (values - values.mean()) / spread if spread > 1e-12 else np.zeros(len(values))


def pooled_vote(inside: np.ndarray, total: np.ndarray, share: float = 0.5) -> np.ndarray:
    """Which clusters are foreground, bool (K,): those with more than ``share`` of their patches, and more than the average share, in the masks.

    Where no cluster qualifies the best one is foreground; where all of several do, the worst one is not. Without any patch, as where every
    image is weak, none is.

    Parameters
    ----------
    inside : array (K,)
        Patches of each cluster in the images' masks.
    total : array (K,)
        All its patches.
    share : float
        See ``Foreground.vote_share``.
    """
    if not total.sum():
        return np.zeros(len(total), bool)
    part = np.divide(inside, total, out=np.zeros(len(total)), where=total > 0)
    foreground = part > max(share, inside.sum() / total.sum())
    if not foreground.any():
        foreground[np.argmax(part)] = True
    elif foreground.all() and len(foreground) > 1:
        foreground[np.argmin(part)] = False
    return foreground


def most_inside(labels: np.ndarray, mask: np.ndarray) -> int:
    """The cluster of most patches of a mask; -1 where it is empty."""
    return int(np.bincount(labels[mask], minlength=1).argmax()) if mask.any() else -1


def consistency(dataset: np.ndarray, category: np.ndarray, image: np.ndarray, weak: bool, rule: Agreement) -> tuple[np.ndarray, str]:
    """One mask from the masks of three levels.

    1. Structure: where dataset and category agree (IoU ≥ ``agree_iou``) their intersection, holes filled (``agree``); else the one that is
       more like the image's own (``dataset``, ``category``).
    2. Reliability: where that is nearly disjoint from the image's own (IoU < ``reliable_iou``), unless the image is weak, the patches in two
       of the three (``majority``), or the image's own where there are none (``image``).
    3. Denoising: see ``denoised``.
    4. Where nothing is left: the largest component of the image's own mask (``largest``), or nothing where the image is weak (``empty``).

    Parameters
    ----------
    dataset, category, image : bool array (h, w)
        The masks of the levels.
    weak : bool
        The image's own mask is not to be believed.
    rule : Agreement
        The thresholds.

    Returns
    -------
    mask : bool array (h, w)
    branch : str
        The last of the names above that shaped it.
    """
    from scipy import ndimage

    if iou(dataset, category) >= rule.agree_iou:
        mask, branch = ndimage.binary_fill_holes(dataset & category), "agree"
    elif iou(dataset, image) >= iou(category, image):
        mask, branch = dataset, "dataset"
    else:
        mask, branch = category, "category"
    if not weak and iou(mask, image) < rule.reliable_iou:
        mask, branch = dataset.astype(int) + category + image >= 2, "majority"
        if not mask.any():
            mask, branch = image, "image"
    mask = denoised(mask, image, rule)
    if mask.any():
        return mask, branch
    return (mask, "empty") if weak else (_largest(image), "largest")


def denoised(mask: np.ndarray, image: np.ndarray, rule: Agreement) -> np.ndarray:
    """The components (8 neighbours) of a mask of which ``keep_overlap`` lies in the image's own mask, or that are ``keep_share`` of the whole
    mask; none of fewer than ``min_patches``."""
    parts, size = components(mask)
    shared = np.bincount(parts[image], minlength=len(size))
    keep = (shared >= rule.keep_overlap * size) | (size >= rule.keep_share * mask.sum())
    keep &= size >= rule.min_patches
    keep[0] = False
    return np.asarray(keep[parts])


def _largest(mask: np.ndarray) -> np.ndarray:
    parts, size = components(mask)
    return parts == 1 + int(size[1:].argmax()) if len(size) > 1 else mask


# -- pixels -------------------------------------------------------------------------------------------


def pixel_mask(units: np.ndarray, mask: np.ndarray, image: np.ndarray, rule: Mask) -> np.ndarray:
    """A mask of patches (h, w) at the pixels of the image, bool (H, W), refined unless that changes its area too much."""
    height, width = image.shape[:2]
    if not mask.any() or mask.all():
        return np.full((height, width), bool(mask.any()))
    soft = soft_mask(units, mask, rule.temperature) if rule.unary == "cosine" else mask.astype(np.float32)
    plain = bilinear(soft, height, width) > 0.5
    if rule.refine == "none":
        return plain
    share = min(1.0, (rule.max_pixels / (height * width)) ** 0.5)
    small = (max(1, round(height * share)), max(1, round(width * share)))
    picture = image if share == 1 else resize_image(image, small, area=True)
    likely = bilinear(soft, *picture.shape[:2])
    if rule.unary == "mask":
        likely = 1 - rule.certainty + (2 * rule.certainty - 1) * likely
    both = np.stack([1 - likely, likely])
    if rule.refine == "crf":
        after = dense_crf(both, picture, Crf(iterations=rule.iterations, **vars(rule.crf)))
    else:
        after = pamr(both, picture, Pamr(iterations=rule.iterations))
    refined = nearest(after[1] > after[0], height, width)
    return refined if plain.sum() <= rule.area_factor * refined.sum() <= rule.area_factor**2 * plain.sum() else plain


def soft_mask(units: np.ndarray, mask: np.ndarray, temperature: float) -> np.ndarray:
    """How much each patch is like the mean of the mask and unlike the mean of the others, float32 (h, w), from 0 to 1."""
    cosine = [units @ unit32(units[side].mean(axis=0)) for side in (mask, ~mask)]
    return np.asarray(1 / (1 + np.exp(-np.clip((cosine[0] - cosine[1]) / temperature, -50, 50))), np.float32)
