"""Embedded backbone: colour and texture filters whitened per image, and a patch dictionary learnt on the image itself.

Nothing is downloaded and nothing is trained beforehand. Two parts:

- *bankZCA*, 18 channels z: Lab colour and pooled responses of a small filter bank at three scales, whitened over the image
  (zero-phase component analysis, Bell and Sejnowski 1997), so that every image uses all its directions of variation.
- *dictionary*, 32 channels: 6×6 colour patches with contrast normalisation, 96 spherical k-means centres and the triangle
  code of Coates, Lee and Ng (AISTATS 2011; Coates and Ng 2012), pooled, square-rooted and partly whitened.

Facets on a grid of h = ceil(H / stride) by w = ceil(W / stride) cells. A cell is H/h by W/w pixels, a little less than ``stride``
where that does not divide the side: cells tile the image exactly, none at the border sees fewer pixels, and z is averaged over
a cell's exact area.

- tokens (h, w, 50): [0.8 z, 0.6 dictionary] (or (h, w, 18), z alone, without the dictionary). Whitened per image: tokens of
  two images live in different spaces and must not be compared. Euclidean distance.
- keys (h, w, 18): z alone, of length 3, for methods that use cosines. Also one space an image.
- cls (100,): comparable across images: means and deviations of the unwhitened bank (36) and the square root of a soft 4×4×4 Lab
  histogram (64), each of length 1 before they are joined, the whole of length 1.
- cls_attention (h, w): a stand-in for saliency, not attention: the Mahalanobis distance of a cell's z from the cells along the image
  border, less its smallest value, scaled to sum to 1 (uniform on an image of one colour).
- attention: a local, edge-aware random walk in the sparse form. Neighbours j within ``radius`` cells of i, itself included, weigh
  exp(-(0.3 |z_i - z_j| + b_ij) / temperature), b_ij the strongest edge on the straight line between the two centres. Rows sum to 1;
  neighbours outside the image point to i with weight 0.

Images whose long side exceeds 640 pixels (4/3 of ``long_side``) are area-averaged down to a long side of 480, the size the filter scales
were chosen for; smaller ones keep their size. An image's facets depend on that image and the parameters alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from uss_dagster.backbones.base import BackboneSpec, check_facets
from uss_dagster.graphs.appearance import USUAL_BANK, bank_features, colour_histograms
from uss_dagster.pixels import check_image, shrink_long_side, to_lab


@dataclass(frozen=True)
class Params:
    """Parameters of ``patches``.

    Parameters
    ----------
    facets : tuple of str, default ("tokens", "keys", "cls", "cls_attention")
        Facets to write; see the module.
    stride : int, default 4
        Size of a cell, in pixels.
    dictionary : bool, default True
        Append the code of the patch dictionary to the tokens (50 channels instead of 18).
    long_side : int or None, default 480
        A larger image is reduced to this long side, in pixels, see ``pixels.shrink_long_side``. None never reduces.
    seed : int, default 0
        Of the patches that the dictionary is learnt on, and of its first centres.
    radius : int, default 2
        Reach of ``attention``, in cells.
    temperature : float, default 0.2
        Of ``attention``. On seven photographs a cell kept nearly all weight to itself at 0.1, and the walk leaked through edges
        at 0.5.
    """

    facets: tuple[str, ...] = ("tokens", "keys", "cls", "cls_attention")
    stride: int = 4
    dictionary: bool = True
    long_side: int | None = 480
    seed: int = 0
    radius: int = 2
    temperature: float = 0.2

    def __post_init__(self) -> None:
        if self.stride < 1 or self.radius < 1:
            raise ValueError(f"stride is {self.stride} and radius is {self.radius}, expected 1 or more.")
        if self.long_side is not None and self.long_side < 8:
            raise ValueError(f"long_side is {self.long_side}, expected 8 or more, or null for never resizing.")
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}, expected more than 0.")


SPEC = BackboneSpec(
    name="patches",
    title="Embedded filters and patch dictionary",
    params=Params,
    facets=("tokens", "keys", "cls", "cls_attention", "attention"),
    licence="MIT (this project; no weights)",
    paper="Coates, Lee and Ng, An Analysis of Single-Layer Networks in Unsupervised Feature Learning, AISTATS 2011; "
    "Bell and Sejnowski, The Independent Components of Natural Scenes are Edge Filters, Vision Research 1997.",
)

DICTIONARY_CHANNELS = 32
_TINY = 1e-12
"""Variance below which an image has no variation: channels are of order 1, so this is rounding error."""


def load(params: Params, device: str = "auto") -> Callable[[list[np.ndarray]], list[dict[str, np.ndarray]]]:
    """A callable from uint8 RGB images of any sizes to their facets in float32. ``device`` is not used: everything runs on the CPU."""
    facets = check_facets(SPEC, params.facets)

    def extract(images: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
        return [_facets(check_image(image), params, facets) for image in images]

    return extract


def _facets(image: np.ndarray, params: Params, facets: frozenset[str]) -> dict[str, np.ndarray]:
    lab = to_lab(shrink_long_side(image, params.long_side))
    bank = bank_features(lab)
    H, W = lab.shape[:2]
    h, w = -(-H // params.stride), -(-W // params.stride)
    # the image's vector alone, of which methods ask many crops, needs no whitening
    z = _to_grid(whiten(bank), h, w) if facets != {"cls"} else np.zeros((h, w, 0), np.float32)

    arrays: dict[str, np.ndarray] = {}
    if "tokens" in facets:
        parts = [z]
        if params.dictionary:
            parts = [0.8 * z, 0.6 * _to_grid(dictionary_features(lab, params.seed), h, w)]
        arrays["tokens"] = np.concatenate(parts, axis=2)
    if "keys" in facets:
        length = np.linalg.norm(z, axis=2, keepdims=True)
        arrays["keys"] = 3 * z / np.maximum(length, 1e-6)
    if "cls" in facets:
        arrays["cls"] = image_vector(bank, _to_grid(lab, h, w))
    if "cls_attention" in facets:
        arrays["cls_attention"] = border_contrast(z)
    if "attention" in facets:
        index, weight = local_walk(z, edge_strength(lab), params.radius, params.temperature)
        arrays["attention.index"], arrays["attention.weight"] = index, weight
    return {name: np.ascontiguousarray(a, dtype=np.int32 if name.endswith(".index") else np.float32) for name, a in arrays.items()}


def whiten(features: np.ndarray, ridge: float = 0.05) -> np.ndarray:
    """Zero-phase whitening over all pixels of one image: z = V diag((l + ridge l_max)^(-1/2)) V' (f - mean). features: (H, W, C).

    The covariance of z has eigenvalues l / (l + ridge l_max). Without any variation z is 0.
    """
    flat = features.reshape(-1, features.shape[2])
    flat = flat - flat.mean(axis=0, dtype=np.float64).astype(np.float32)
    values, vectors = np.linalg.eigh(_second_moments(flat))
    top = values[-1]
    if top < _TINY:
        return np.zeros(features.shape, np.float32)
    matrix = (vectors * (np.maximum(values, 0) + ridge * top) ** -0.5) @ vectors.T
    return (flat @ matrix.astype(np.float32)).reshape(features.shape)


def dictionary_features(lab: np.ndarray, seed: int = 0) -> np.ndarray:
    """Codes of 6×6 half-size colour patches in a dictionary learnt on this image, (rows, columns, 32), one cell every 4 pixels.

    The half-size image is mirrored by 2 pixels so that cells are centred 2, 6, 10, … pixels from the border and cover the image.
    The mean squared length is 15, about that of z. Fewer components than 32 (a tiny or plain image) leave zeros.
    """
    from scipy import ndimage

    patches, shape = _patches(lab)  # float32; the eigenproblems below are solved in float64
    rng = np.random.default_rng(seed)
    sample = rng.permutation(len(patches))[:5000]
    mean, matrix = _patch_whitening(patches[np.sort(sample)])
    white = (patches - mean) @ matrix
    centres = _spherical_kmeans(white[sample], k=96)

    squared = (white**2).sum(1, keepdims=True) - 2 * white @ centres.T + (centres**2).sum(1)
    distance = np.sqrt(np.maximum(squared, 0))
    code = np.maximum(0, distance.mean(1, keepdims=True) - distance).reshape(*shape, -1)
    pooled = np.sqrt(np.maximum(ndimage.gaussian_filter(code, (1.5, 1.5, 0)), 0)).reshape(len(white), -1)
    pooled -= pooled.mean(0)
    values, vectors = np.linalg.eigh(_second_moments(pooled))
    values, vectors = np.maximum(values[::-1], 0)[:DICTIONARY_CHANNELS], vectors[:, ::-1][:, :DICTIONARY_CHANNELS]
    features = np.zeros((len(white), DICTIONARY_CHANNELS), np.float32)
    if values[0] >= _TINY:
        # Eigenvectors have no sign of their own: the largest entry is made positive.
        vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(vectors.shape[1])])
        features[:, : len(values)] = pooled @ (vectors / (values + 0.02 * values[0]) ** 0.35).astype(np.float32)
        features *= np.sqrt(15 / (features**2).sum(1).mean())
    return features.reshape(*shape, -1)


def _patches(lab: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """6×6×3 patches every second pixel of the half-size image, contrast-normalised: (rows · columns, 108), and (rows, columns)."""
    scaled = lab / np.array([25, 12, 12], np.float32)
    half = _to_grid(scaled, -(-lab.shape[0] // 2), -(-lab.shape[1] // 2))
    rows, columns = -(-half.shape[0] // 2), -(-half.shape[1] // 2)
    right, below = 2 * columns + 4 - half.shape[1] - 2, 2 * rows + 4 - half.shape[0] - 2
    padded = np.pad(half, ((2, below), (2, right), (0, 0)), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (6, 6), axis=(0, 1))[::2, ::2]  # (rows, columns, 3, 6, 6)
    patches = windows.reshape(rows * columns, 3, 36)
    patches = (patches - patches.mean(2, keepdims=True)).reshape(rows * columns, 108)
    patches /= np.sqrt((patches**2).mean(1, keepdims=True) + np.float32(0.02))
    return patches, (rows, columns)


def _patch_whitening(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and matrix of V diag((l + 0.1 mean l)^(-1/2)) V'; the matrix is 0 where all patches are alike."""
    mean = sample.mean(0)
    values, vectors = np.linalg.eigh(_second_moments(sample - mean))
    ridge = 0.1 * values.mean()
    if ridge < _TINY:
        return mean, np.zeros((len(mean), len(mean)), np.float32)
    return mean, ((vectors * (np.maximum(values, 0) + ridge) ** -0.5) @ vectors.T).astype(np.float32)


def _second_moments(rows: np.ndarray) -> np.ndarray:
    """x' x / n in float64."""
    rows = rows.astype(np.float64)
    return rows.T @ rows / len(rows)


def _spherical_kmeans(x: np.ndarray, k: int, rounds: int = 8) -> np.ndarray:
    """Unit centres (k, d) of x (n, d), started at the first k rows, which the caller has shuffled.

    Each round assigns a row to the centre of largest product and sets centre <- normalise(sum of (x . centre) x + 0.1 centre).
    """
    from scipy import sparse

    centres = _unit(x[:k])
    for _ in range(rounds):
        products = x @ centres.T
        nearest = products.argmax(1)
        strength = products[np.arange(len(x)), nearest]
        assign = sparse.csr_array((strength, (nearest, np.arange(len(x)))), shape=(len(centres), len(x)))
        centres = _unit(assign @ x + 0.1 * centres)
    return centres


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def image_vector(bank: np.ndarray, lab_cells: np.ndarray) -> np.ndarray:
    """One vector an image (100,), comparable across images: moments of the unwhitened bank and a soft colour histogram.

    bank: (H, W, 18). lab_cells: (h, w, 3). L is centred on mid-grey and texture on its usual strength before the moments are
    scaled to length 1, so that their direction tells images apart.
    """
    flat = bank.reshape(-1, bank.shape[2])
    mean = flat.mean(0, dtype=np.float64)
    deviation = np.sqrt(np.maximum(np.diag(_second_moments(flat - mean.astype(np.float32))), 0))
    moments = np.concatenate([mean - USUAL_BANK, deviation])
    colours = colour_histograms(lab_cells.reshape(-1, 3))[0]
    joined = np.concatenate([moments / max(float(np.linalg.norm(moments)), 1e-9), np.sqrt(colours / colours.sum())])
    return joined / np.linalg.norm(joined)


def border_contrast(z: np.ndarray) -> np.ndarray:
    """How unlike the image border each cell is, (h, w), summing to 1: Mahalanobis distance from the cells of the border.

    The border is 1/16 of the shorter side wide, at least one cell; its covariance is shrunk towards a multiple of the identity,
    since there may be fewer border cells than channels.
    """
    h, w, channels = z.shape
    wide = max(1, round(min(h, w) / 16))
    border = np.ones((h, w), bool)
    border[wide : h - wide, wide : w - wide] = False
    cells = z.reshape(-1, channels).astype(np.float64)
    edge = cells[border.ravel()]
    centred = cells - edge.mean(0)
    spread = (edge - edge.mean(0)).T @ (edge - edge.mean(0)) / len(edge)
    spread += (0.1 * np.trace(spread) / channels + 1e-3) * np.eye(channels)
    distance = np.sqrt(np.maximum((centred * np.linalg.solve(spread, centred.T).T).sum(1), 0))
    distance -= distance.min()
    total = distance.sum()
    weight = distance / total if total > 1e-6 else np.full(h * w, 1 / (h * w))
    return weight.reshape(h, w)


def edge_strength(lab: np.ndarray, usual: float = 5.0) -> np.ndarray:
    """Plain boundary strength (H, W) in 0..1: g² / (g² + usual²), g the Lab gradient in units a pixel after a Gaussian of sigma 1."""
    from scipy import ndimage

    squared = np.zeros(lab.shape[:2], np.float32)
    for c in range(3):
        smooth = ndimage.gaussian_filter(lab[:, :, c], 1.0)
        for axis in (0, 1):
            squared += (ndimage.sobel(smooth, axis=axis) / 8) ** 2
    return squared / (squared + np.float32(usual**2))


def local_walk(z: np.ndarray, edge: np.ndarray, radius: int = 2, temperature: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Neighbour indices (n, m) and row-stochastic weights (n, m), m = (2 radius + 1)², in row-major order of the offsets.

    z: (h, w, C), edge: (H, W) boundary strength of the same image.
    """
    h, w, _ = z.shape
    cell = edge.shape[0] / h, edge.shape[1] / w
    rows, columns = np.mgrid[:h, :w]
    own = rows * w + columns
    span = 2 * radius + 1
    index = np.repeat(own[:, :, None], span**2, axis=2).astype(np.int32)
    weight = np.zeros((h, w, span**2))
    for slot, (down, right) in enumerate((d, r) for d in range(-radius, radius + 1) for r in range(-radius, radius + 1)):
        if (down, right) < (0, 0) or abs(down) >= h or abs(right) >= w:
            continue  # the mirrored half is filled along with this one
        near = np.s_[: h - down, max(0, -right) : w - max(0, right)]
        far = np.s_[down:, max(0, right) : w + min(0, right)]
        barrier = _strongest_between(edge, rows[near], columns[near], (down, right), cell)
        cost = 0.3 * np.linalg.norm(z[near] - z[far], axis=2) + barrier
        value = np.exp(-cost / temperature)
        for cells, neighbours, position in ((near, far, slot), (far, near, span**2 - 1 - slot)):
            index[*cells, position] = own[neighbours]
            weight[*cells, position] = value
    weight /= weight.sum(axis=2, keepdims=True)
    return index.reshape(h * w, -1), weight.reshape(h * w, -1)


def _strongest_between(
    edge: np.ndarray, rows: np.ndarray, columns: np.ndarray, offset: tuple[int, int], cell: tuple[float, float]
) -> np.ndarray:
    """The largest edge strength on the line from each cell's centre to the cell at ``offset``, sampled at every pixel step."""
    steps = int(np.ceil(max(abs(offset[0]) * cell[0], abs(offset[1]) * cell[1])))
    strongest = np.zeros(rows.shape, edge.dtype)
    for step in range(steps + 1 if steps else 0):
        y = ((rows + 0.5 + offset[0] * step / steps) * cell[0]).astype(np.int64)
        x = ((columns + 0.5 + offset[1] * step / steps) * cell[1]).astype(np.int64)
        np.maximum(strongest, edge[y, x], out=strongest)
    return strongest


def _to_grid(features: np.ndarray, h: int, w: int) -> np.ndarray:
    """Features (H, W, C) on a grid (h, w, C) over the same image: exact area average where it is coarser, linear where it is finer."""
    down, across = _resampling(features.shape[0], h), _resampling(features.shape[1], w)
    rows = np.tensordot(down, features, axes=(1, 0))  # (h, W, C)
    return np.matmul(across, rows)


def _resampling(length: int, cells: int) -> np.ndarray:
    """Matrix (cells, length) of one axis, rows summing to 1."""
    if cells <= length:
        edges = np.arange(cells + 1) * (length / cells)
        pixel = np.arange(length)
        overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
        matrix = np.maximum(overlap, 0)
    else:
        centre = np.clip((np.arange(cells) + 0.5) * (length / cells) - 0.5, 0, length - 1)
        matrix = np.maximum(1 - np.abs(centre[:, None] - np.arange(length)), 0)
    return (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)
