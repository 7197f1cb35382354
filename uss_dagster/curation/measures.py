"""How good each mask is, without labels: does its border lie on edges, does it differ from what is around it, does refinement agree?

All sums are over atoms and over pairs of neighbouring atoms, so the work for K masks is two small matrix products, not K passes over the
picture. Large pictures are measured at ``MEASURED`` pixels; a mask too thin to be there has no measure (NaN).

edge: mean rank, among all places of the picture, of the colour step where the mask's border runs: 0.5 is what a border drawn at random
gets. separation: how far the mask's mean colour lies from that of its neighbours along the border, against the spread within it,
d / (d + s). quality: the mean of both. refined_iou: IoU of the mask and what a guided filter on the picture makes of it (He, Sun & Tang,
TPAMI 35(6), 2013); UnSAM drops masks below 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco

from uss_dagster.regions import Regions, rle

MEASURED = 80_000
"""Pixels of the picture at which masks are measured."""
SPREAD = 2.0
"""Added to the spread of colours within a mask (in units of Lab), so that noise does not set plain surfaces apart."""
JUDGED = 64
"""Pixels, at that size, from which a mask's refinement is judged: the filter smooths smaller ones away whatever they show."""
CHUNK = 128


def measure(image: np.ndarray, regions: Regions, refine: bool) -> dict[str, np.ndarray]:
    """edge, separation, quality and refined_iou, float32 (K,) each. image: uint8 (H, W, 3). refine: measure the last one too (slow)."""
    picture = _reduced(image)
    small = regions.resized(*picture.shape[:2])
    there = small.area > 0
    edge, separation = _against_surroundings(picture, small)
    unknown = np.full(len(regions), np.nan)
    quality = np.where(np.isnan(edge), separation, (edge + separation) / 2)
    found = {"edge": edge, "separation": separation, "quality": quality, "refined_iou": refined_iou(picture, small) if refine else unknown}
    return {name: np.where(there, values, np.nan).astype(np.float32) for name, values in found.items()}


def _against_surroundings(picture: np.ndarray, regions: Regions) -> tuple[np.ndarray, np.ndarray]:
    """(edge, separation), float64 (K,). Edge is NaN without a border inside the picture, where separation is 0."""
    from skimage.color import rgb2lab

    lab = rgb2lab(picture)
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
    of_atom = colour / np.maximum(area, 1)[:, None]
    here, there = members[:, pairs[:, 0]], members[:, pairs[:, 1]]
    inside_first, inside_second = here * (1 - there) * length, there * (1 - here) * length
    border = inside_first.sum(axis=1) + inside_second.sum(axis=1)
    some = np.maximum(border, 1)
    edge = (here != there).astype(np.float64) @ rank / some
    around = (inside_first @ of_atom[pairs[:, 1]] + inside_second @ of_atom[pairs[:, 0]]) / some[:, None]
    apart = np.linalg.norm(mean - around, axis=1)
    separation = np.where(border > 0, apart / (apart + spread + SPREAD), 0.0)
    return np.where(border > 0, edge, np.nan), separation


def _ranked_steps(lab: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks in 0..1 of the colour step between each pixel and its right and its lower neighbour, (H, W-1) and (H-1, W).

    A step is measured over four pixels, so that a soft or slightly misplaced edge counts in full.
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


def refined_iou(picture: np.ndarray, regions: Regions, radius: int = 4, eps: float = 1e-3) -> np.ndarray:
    """IoU of each mask with its guided filter on the picture, cut at one half; float64 (K,), NaN below ``JUDGED`` pixels.

    picture: uint8 (H, W, 3) of the regions' size.
    """
    from uss_dagster.refine.upsampling import guided_parts

    found = np.full(len(regions), np.nan)
    judged = np.flatnonzero(regions.area >= JUDGED).tolist()
    for start in range(0, len(judged), CHUNK):
        chosen = judged[start : start + CHUNK]
        masks = np.stack([regions.mask(r) for r in chosen])
        for region, mask, (rows, columns, soft) in zip(chosen, masks, guided_parts(masks, picture, radius, eps), strict=True):
            before, after = mask[rows, columns], soft > 0.5
            found[region] = np.count_nonzero(before & after) / np.count_nonzero(before | after)
    return found


def boundary_connectivity(codes: Sequence[bytes], shape: tuple[int, int]) -> np.ndarray:
    """How many pixels of the image's border each mask holds, over the root of its area; float64 (K,). codes: COCO codes over ``shape``.

    Background runs on beyond the image, so it holds much of the border, 1 and more; a thing that the image cuts holds little (Zhu, Liang, Wei & Sun,
    "Saliency optimization from robust background detection", CVPR 2014).
    """
    if not codes:
        return np.zeros(0)
    height, width = shape
    ring = np.zeros(shape, np.uint8, order="F")
    ring[[0, -1]] = ring[:, [0, -1]] = 1
    area = rle.areas(codes, height, width).astype(np.float64)
    coded = [{"size": [height, width], "counts": code} for code in codes]
    share = np.asarray(coco.iou(coded, [coco.encode(ring)], [1]))[:, 0]  # of the mask in the ring
    return share * area / np.sqrt(np.maximum(area, 1))


def _reduced(image: np.ndarray) -> np.ndarray:
    """The picture at no more than about ``MEASURED`` pixels, by averages."""
    from PIL import Image

    height, width = image.shape[:2]
    share = (MEASURED / (height * width)) ** 0.5
    if share >= 1:
        return image
    return np.asarray(Image.fromarray(image).resize((max(1, round(width * share)), max(1, round(height * share))), Image.Resampling.BOX))
