"""Quality measures of masks without labels: borders on edges, contrast to the surroundings, agreement with a refinement.

* edge: mean rank of the colour step along the mask's border among all places of the image; a border drawn at random gets 0.5.
* separation: distance d of the mask's mean colour from that of its neighbours along the border, relative to the spread s within the mask:
  d / (d + s).
* quality: the mean of edge and separation.
* refined_iou: IoU of the mask with the result of a guided filter on the image (He, Sun & Tang, TPAMI 35(6), 2013); UnSAM drops masks below
  0.5.

All sums are over atoms and over pairs of neighbouring atoms. So the work for K masks is two small matrix products, not K passes over the
image (``benchmarks/curation.py``). Large images are measured at ``MEASURED`` pixels; a mask that has no pixel there gets NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco

from uss_dagster.pixels import shrink_to_pixels
from uss_dagster.regions import Regions, rle
from uss_dagster.regions.rle import coco_codes

MEASURED = 80_000
"""Greatest number of pixels of the image on which masks are measured."""
SPREAD = 2.0
"""Added to the spread of colours within a mask (in units of Lab), so that noise does not separate plain surfaces."""
MIN_REFINED = 64
"""Least area of a mask, in pixels of the measured image, to get a ``refined_iou``: the filter removes smaller masks whatever they show."""
CHUNK = 128
"""Masks that are refined at once."""


def measure(image: np.ndarray, regions: Regions, refine: bool) -> dict[str, np.ndarray]:
    """Measure K masks.

    Parameters
    ----------
    image : uint8 array of shape (height, width, 3)
    regions : Regions
    refine : bool
        Measure ``refined_iou`` too, which is slow; otherwise it is NaN.

    Returns
    -------
    dict of str to float32 array of shape (K,)
        edge, separation, quality, refined_iou.
    """
    reduced = shrink_to_pixels(image, MEASURED)
    small = regions.resized(*reduced.shape[:2])
    edge, separation = _contrast(reduced, small)
    measures = {
        "edge": edge,
        "separation": separation,
        "quality": np.where(np.isnan(edge), separation, (edge + separation) / 2),
        "refined_iou": refined_iou(reduced, small) if refine else np.full(len(regions), np.nan),
    }
    return {name: np.where(small.area > 0, values, np.nan).astype(np.float32) for name, values in measures.items()}


def _contrast(image: np.ndarray, regions: Regions) -> tuple[np.ndarray, np.ndarray]:
    """(edge, separation), float64 (K,). Without a border inside the image, edge is NaN and separation 0."""
    from skimage.color import rgb2lab

    lab = rgb2lab(image)
    atoms, area, members = regions.atoms, regions.atom_area.astype(np.float64), regions.members.astype(np.float64)
    count = len(area)
    colour = np.stack([np.bincount(atoms.ravel(), lab[..., c].ravel(), count) for c in range(3)], axis=1)
    square = np.bincount(atoms.ravel(), (lab**2).sum(axis=2).ravel(), count)
    pixels = np.maximum(members @ area, 1)[:, None]
    mean = members @ colour / pixels
    spread = np.sqrt(np.maximum(members @ square / pixels[:, 0] - (mean**2).sum(axis=1), 0))
    pairs, length, rank = _borders(atoms, _ranked_steps(lab))
    if not len(pairs):
        return np.full(len(regions), np.nan), np.zeros(len(regions))
    atom_colour = colour / np.maximum(area, 1)[:, None]
    first, second = members[:, pairs[:, 0]], members[:, pairs[:, 1]]
    first_inside, second_inside = first * (1 - second) * length, second * (1 - first) * length
    border = first_inside.sum(axis=1) + second_inside.sum(axis=1)
    divisor = np.maximum(border, 1)
    edge = (first != second).astype(np.float64) @ rank / divisor
    around = (first_inside @ atom_colour[pairs[:, 1]] + second_inside @ atom_colour[pairs[:, 0]]) / divisor[:, None]
    distance = np.linalg.norm(mean - around, axis=1)
    separation = np.where(border > 0, distance / (distance + spread + SPREAD), 0.0)
    return np.where(border > 0, edge, np.nan), separation


def _ranked_steps(lab: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks in 0..1 of the colour step between each pixel and its right and its lower neighbour, (H, W-1) and (H-1, W).

    A step spans four pixels, so that a soft or slightly misplaced edge counts in full.
    """
    steps = []
    for axis in (0, 1):
        padded = np.pad(lab, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        pair = (padded.take(range(1, padded.shape[axis]), axis) + padded.take(range(padded.shape[axis] - 1), axis)) / 2
        # pair i is the mean of pixels i-1 and i; the step between pixels i and i+1 is that of pairs i+2 and i
        step = pair.take(range(2, pair.shape[axis]), axis) - pair.take(range(pair.shape[axis] - 2), axis)
        steps.append(np.sqrt((step**2).sum(axis=2)))
    down, across = steps
    ordered = np.sort(np.concatenate([across.ravel(), down.ravel()]))
    total = max(len(ordered), 1)
    ranked = [(np.searchsorted(ordered, s, "left") + np.searchsorted(ordered, s, "right")) / (2 * total) for s in (across, down)]
    return ranked[0], ranked[1]


def _borders(atoms: np.ndarray, ranked: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbouring atoms (P, 2), the length of their border, and the sum of ranks along it."""
    first = np.concatenate([atoms[:, :-1].ravel(), atoms[:-1].ravel()]).astype(np.int64)
    second = np.concatenate([atoms[:, 1:].ravel(), atoms[1:].ravel()]).astype(np.int64)
    rank = np.concatenate([ranked[0].ravel(), ranked[1].ravel()])
    differ = first != second
    low, high, rank = np.minimum(first, second)[differ], np.maximum(first, second)[differ], rank[differ]
    key, place = np.unique(low * (int(atoms.max(initial=0)) + 1) + high, return_inverse=True)
    pairs = np.stack(np.divmod(key, int(atoms.max(initial=0)) + 1), axis=1)
    return pairs, np.bincount(place, minlength=len(key)).astype(np.float64), np.bincount(place, rank, len(key))


def refined_iou(image: np.ndarray, regions: Regions, radius: int = 4, eps: float = 1e-3) -> np.ndarray:
    """IoU of each mask with the result of a guided filter, thresholded at 0.5.

    Parameters
    ----------
    image : uint8 array of shape (height, width, 3)
        Of the regions' size.
    regions : Regions
    radius : int, default 4
        Of the filter, in pixels.
    eps : float, default 1e-3
        Regularisation of the filter.

    Returns
    -------
    float64 array of shape (K,)
        NaN for masks below ``MIN_REFINED`` pixels.
    """
    from uss_dagster.refine.upsampling import guided_parts

    ious = np.full(len(regions), np.nan)
    large = np.flatnonzero(regions.area >= MIN_REFINED).tolist()
    for start in range(0, len(large), CHUNK):
        chunk = large[start : start + CHUNK]
        masks = np.stack([regions.mask(r) for r in chunk])
        for region, mask, (rows, columns, soft) in zip(chunk, masks, guided_parts(masks, image, radius, eps), strict=True):
            before, after = mask[rows, columns], soft > 0.5
            ious[region] = np.count_nonzero(before & after) / np.count_nonzero(before | after)
    return ious


def boundary_connectivity(codes: Sequence[bytes], shape: tuple[int, int]) -> np.ndarray:
    """Number of pixels of the image's border in each mask, divided by the square root of the mask's area.

    Background continues beyond the image, so it has much of the border: 1 and more. An object that the image cuts has little (Zhu, Liang,
    Wei & Sun, "Saliency optimization from robust background detection", CVPR 2014).

    Parameters
    ----------
    codes : sequence of K bytes
        COCO run-length codes.
    shape : tuple of int
        (height, width).

    Returns
    -------
    float64 array of shape (K,)
    """
    if not codes:
        return np.zeros(0)
    height, width = shape
    ring = np.zeros(shape, np.uint8, order="F")
    ring[[0, -1]] = ring[:, [0, -1]] = 1
    area = rle.areas(codes, height, width).astype(np.float64)
    share = np.asarray(coco.iou(coco_codes(codes, shape), [coco.encode(ring)], [1]))[:, 0]  # of the mask in the ring
    return share * area / np.sqrt(np.maximum(area, 1))
