"""Over-segmentations: SLIC superpixels, connected parts, and small parts merged into their neighbours.

Reference: Achanta et al., "SLIC superpixels compared to state-of-the-art superpixel methods", TPAMI 34(11), 2012.
"""

from __future__ import annotations

import numpy as np

from uss_dagster.graphs.region_graph import region_graph
from uss_dagster.pixels import numbered_by_first


def slic(image: np.ndarray, n: int, compactness: float) -> np.ndarray:
    """Connected superpixels, int64 (H, W), labels 0.. in raster order.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    n : int
        About so many; an image with fewer than four pixels a superpixel gets proportionally fewer.
    compactness : float
        Weight of distance against colour.
    """
    from skimage.segmentation import slic as skimage_slic

    n = max(1, min(n, image.shape[0] * image.shape[1] // 4))
    if n == 1:
        return np.zeros(image.shape[:2], np.int64)
    return connected_parts(skimage_slic(image, n_segments=n, compactness=compactness, start_label=0, channel_axis=-1))


def pixel_parts(image: np.ndarray, kind: str, n: int) -> np.ndarray:
    """Parts of an image, int (H, W), by one of the segmentations that the program of the hierarchy-agnostic method over-clusters with, and its values.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    kind : {"felzenszwalb", "slic", "quickshift", "watershed"}
    n : int
        About kind many, of "slic" and "watershed".
    """
    from skimage import color, filters, segmentation

    if kind == "felzenszwalb":
        return np.asarray(segmentation.felzenszwalb(image, scale=100, sigma=0.5, min_size=50))
    if kind == "slic":
        return np.asarray(segmentation.slic(image, n_segments=n, compactness=2, sigma=5, start_label=0))
    if kind == "quickshift":
        return np.asarray(segmentation.quickshift(image, kernel_size=3, max_dist=6, ratio=0.5))
    return np.asarray(segmentation.watershed(filters.sobel(color.rgb2gray(image)), markers=n, compactness=1e-3))


def connected_parts(labels: np.ndarray) -> np.ndarray:
    """4-connected parts of equal label, int64 (H, W), numbered 0.. by their first pixel in raster order."""
    from skimage.measure import label

    return label(labels - labels.min() + 1, connectivity=1, background=0).astype(np.int64) - 1


def absorb_small(labels: np.ndarray, min_area: float) -> np.ndarray:
    """Merge every small part into the part with which it has its longest border, smallest first.

    Parameters
    ----------
    labels : ndarray of int, shape (H, W)
        0.., each connected and present.
    min_area : float
        Parts of fewer pixels are merged.

    Returns
    -------
    ndarray of int64, shape (H, W)
        Numbered by first pixel.
    """
    graph = region_graph(labels)
    area = np.bincount(labels.ravel())
    borders: list[dict[int, float]] = [{} for _ in area]
    for (i, j), length in zip(graph.pairs.tolist(), graph.length.tolist(), strict=True):
        borders[i][j] = borders[j][i] = length
    into = np.arange(len(area))
    for part in np.argsort(area, kind="stable").tolist():
        if area[part] >= min_area or not borders[part]:
            continue
        host = min(borders[part], key=lambda other: (-borders[part][other], other))
        for other, length in borders[part].items():
            del borders[other][part]
            if other != host:
                borders[host][other] = borders[other][host] = borders[host].get(other, 0.0) + length
        area[host] += area[part]
        into[part] = host
    while not np.array_equal(into, into[into]):
        into = into[into]
    return numbered_by_first(into[labels])[0]
