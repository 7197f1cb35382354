"""Fully connected CRF on an image: labels agree between pixels that are near, and near in colour.

References: Krähenbühl & Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials", NIPS 2011; the filter
behind the bilateral term is in ``lattice.py``.

The energy of a labelling is Σ_i U_i(x_i) + Σ_{i<j} [x_i ≠ x_j]·(w_g·g_ij + w_b·b_ij) (Potts), with

    g_ij = exp(-|p_i - p_j|² / 2·gauss_std²)
    b_ij = exp(-|p_i - p_j|² / 2·bilateral_xy² - |c_i - c_j|² / 2·bilateral_rgb²)

for positions p in pixels and colours c in 0..255. Each kernel K is normalised symmetrically, D^-½·K·D^-½ with D = diag(K·1), and keeps
its diagonal, so a pixel also votes for itself; the usual constants were tuned with both. Mean-field inference repeats
Q ← softmax(-U + w_g·g̃·Q + w_b·b̃·Q) for all pixels at once. The Gaussian is exact but for taps beyond four deviations, the bilateral
filter is approximate: on photographs 99 of 100 pixels get the label of the quadratic sum.

Filters and updates are compiled: ``benchmarks/crf.py`` measured 10 iterations at 64×96 pixels 51 times faster than all pairs of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.bounds import Bounds, at_least, check_bounds
from uss_dagster.errors import BadData
from uss_dagster.refine import lattice
from uss_dagster.refine._lanes import LANES, check_image_of_maps, check_maps, from_blocks, thread_count, to_blocks, workers

SMALLEST = 1e-8  # a probability of zero would forbid a label whatever the image says


@dataclass(frozen=True)
class Kernels:
    """The two kernels of the dense CRF; the defaults are those of Krähenbühl and Koltun.

    Parameters
    ----------
    gauss_std : float, default 1
        Standard deviation of the Gaussian kernel, in pixels.
    gauss_weight : float, default 3
        Weight w_g of the Gaussian kernel.
    bilateral_xy : float, default 67
        Standard deviation of the bilateral kernel over positions, in pixels.
    bilateral_rgb : float, default 3
        Standard deviation of the bilateral kernel over colours of 0..255.
    bilateral_weight : float, default 4
        Weight w_b of the bilateral kernel.
    """

    gauss_std: float = 1.0
    gauss_weight: float = 3.0
    bilateral_xy: float = 67.0
    bilateral_rgb: float = 3.0
    bilateral_weight: float = 4.0

    def __post_init__(self) -> None:
        deviation = Bounds("above 0 and finite", lambda value: 0 < value < np.inf)
        weight = Bounds("0 or more and finite", lambda value: 0 <= value < np.inf)
        check_bounds(self, gauss_std=deviation, bilateral_xy=deviation, bilateral_rgb=deviation)
        check_bounds(self, gauss_weight=weight, bilateral_weight=weight)


@dataclass(frozen=True)
class Crf(Kernels):
    """Parameters of the dense CRF.

    Parameters
    ----------
    iterations : int, default 10
        Steps of mean-field inference.
    gauss_std, gauss_weight, bilateral_xy, bilateral_rgb, bilateral_weight
        See ``Kernels``.
    """

    iterations: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, iterations=at_least(0))


def dense_crf(probabilities: np.ndarray, image: np.ndarray, crf: Crf = Crf(), *, threads: int | None = None) -> np.ndarray:
    """Label probabilities after mean-field inference, float32 (L, H, W).

    Memory beside input and output: twice the size of the output, and some 500 bytes a pixel for the filters on a textured
    photograph, for any number of labels.

    Parameters
    ----------
    probabilities : ndarray of float, shape (L, H, W)
        Probabilities of the labels, 0 or more.
    image : ndarray of uint8, shape (H, W, 3)
    crf : Crf, optional
    threads : int, optional
        As many as the process may use where missing. The result is the same for any number.
    """
    check_maps("dense_crf", probabilities)
    if not (np.isfinite(probabilities) & (probabilities >= 0)).all():
        raise BadData("dense_crf: the probabilities hold NaN, infinite or negative values; repair what made them.")
    energies = to_blocks(probabilities, np.inf)
    to_energies(energies, len(probabilities))
    return from_blocks(mean_field(energies, image, crf, threads=threads), *probabilities.shape)


MASKCUT = Crf(gauss_std=3.0, gauss_weight=7.0, bilateral_xy=50.0, bilateral_rgb=5.0, bilateral_weight=10.0)
"""The constants of MaskCut: Wang et al., "Cut and learn for unsupervised object detection and instance segmentation", CVPR 2023."""


def crf_mask(mask: np.ndarray, image: np.ndarray, crf: Crf = MASKCUT) -> np.ndarray:
    """A mask, bool (H, W), with its border moved to that of the image, uint8 (H, W, 3), and its holes filled, as MaskCut does it.

    A pixel of the mask has the probability of a logit of 1 against one of 0: 0.73.
    """
    from scipy import ndimage

    likely = np.where(mask, 1 / (1 + np.exp(-1)), 1 / (1 + np.e)).astype(np.float32)
    after = dense_crf(np.stack([1 - likely, likely]), image, crf)
    return np.asarray(ndimage.binary_fill_holes(after[1] > after[0]))


def to_energies(blocks: np.ndarray, labels: int) -> None:
    """Turn probabilities of so many labels, in blocks, into energies -log p in place; infinite in lanes without a label."""
    for block in blocks:  # one at a time saves memory
        np.negative(np.log(np.maximum(block, SMALLEST, out=block), out=block), out=block)
    blocks[-1, :, (labels - 1) % LANES + 1 :] = np.inf


def mean_field(energies: np.ndarray, image: np.ndarray, crf: Crf = Crf(), *, threads: int | None = None) -> np.ndarray:
    """``dense_crf`` on energies in blocks, float32 (blocks, H·W, 4), infinite in lanes without a label; the result in blocks too."""
    from uss_dagster.refine._field_kernel import settle, smooth

    check_image_of_maps("A dense CRF", image, energies.shape[1])
    height, width = image.shape[:2]
    pixels = height * width
    taps = np.exp(-0.5 * (np.arange(int(np.ceil(4 * crf.gauss_std)) + 1) / crf.gauss_std) ** 2)[: max(height, width)]
    # norm · K · norm with the weight inside: sqrt(w) on either side
    norm = np.sqrt(crf.gauss_weight / np.outer(_tap_sums(taps, height), _tap_sums(taps, width)).ravel()).astype(np.float32)
    grid = None
    if crf.bilateral_weight > 0 and crf.iterations > 0:
        grid = lattice.build(_points(image, crf.bilateral_xy, crf.bilateral_rgb))
        grid = grid.weighted(np.sqrt(crf.bilateral_weight / grid.sums()))
    count = max(1, min(thread_count() if threads is None else threads, pixels))
    field = np.zeros_like(energies)
    cuts = np.linspace(0, pixels, count + 1).astype(int)
    share = min(count, len(field))  # workers that filter blocks, each with its own room
    rooms = [
        (np.empty((pixels, LANES), np.float32), np.zeros((pixels, LANES), np.float32), None if grid is None else grid.scratch())
        for _ in range(share)
    ]

    def pass_messages(worker: int) -> None:
        if worker >= share:
            return
        spare, smoothed, scratch = rooms[worker]
        for block in field[worker::share]:
            if crf.gauss_weight > 0:
                smooth(block, norm, taps.astype(np.float32), height, width, spare, smoothed)
            if grid is not None and scratch is not None:
                grid.add_filtered(block, smoothed, scratch)
            else:
                block[:] = smoothed

    def update(worker: int) -> None:
        settle(field, energies, cuts[worker], cuts[worker + 1])

    with workers(count) as run:
        run(update)
        for _ in range(crf.iterations):
            run(pass_messages)
            run(update)
    return field


def _points(image: np.ndarray, xy: float, rgb: float) -> np.ndarray:
    """(x, y, r, g, b) of each pixel in units of the deviations, float64 (n, 5)."""
    height, width = image.shape[:2]
    points = np.empty((height, width, 5))
    points[..., 0] = np.arange(width) / xy
    points[..., 1] = np.arange(height)[:, None] / xy
    points[..., 2:] = image / rgb
    return points.reshape(-1, 5)


def _tap_sums(taps: np.ndarray, size: int) -> np.ndarray:
    """Sum of the symmetric kernel's taps that fall inside a line of ``size`` pixels, at each of them."""
    cumulated = np.concatenate([[0.0], np.cumsum(taps)])
    place = np.arange(size)
    reach = len(taps)
    return cumulated[np.minimum(place + 1, reach)] + cumulated[np.minimum(size - place, reach)] - taps[0]
