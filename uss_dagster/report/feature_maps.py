"""What features look like: their first three principal components as red, green and blue, beside the pictures they are of."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from uss_dagster.artifacts.features import FeatureShards
from uss_dagster.artifacts.images import Images, evenly_spaced
from uss_dagster.drawing import montage, shrunk
from uss_dagster.planning.layout import Layout

FACETS = ("tokens", "keys")
SAMPLES = 4
LONGEST = 240


def features_picture(root: Path, backbone: str, dataset: str) -> bytes | None:
    """A JPEG of evenly spaced images of a dataset, and below each its features.

    The components are those of the images in the picture, all together, so that one colour means one thing in all of them.

    Parameters
    ----------
    root : Path
        The project.
    backbone, dataset : str
        Names.

    Returns
    -------
    bytes or None
        None where the backbone writes no map of vectors.
    """
    layout = Layout(root)
    images = Images(layout.images(dataset))
    shards = FeatureShards(layout.features(backbone, dataset))
    ids = evenly_spaced(images.ids, SAMPLES)
    maps = []
    for image_id in ids:
        tensors = shards.tensors(image_id)
        facet = next((name for name in FACETS if name in tensors), None)
        if facet is None:
            return None
        maps.append(np.asarray(tensors[facet], np.float32))
    pictures = [shrunk(images.pixels(image_id), LONGEST) for image_id in ids]
    coloured = [_enlarged(colours, picture.shape[:2]) for colours, picture in zip(principal_colours(maps), pictures, strict=True)]
    target = io.BytesIO()
    drawn = montage([*pictures, *coloured], [*ids, *("features" for _ in ids)], columns=len(ids))
    Image.fromarray(drawn).save(target, "JPEG", quality=88)  # a fifth of a PNG's size; Dagster's event log stores it
    return target.getvalue()


def principal_colours(maps: list[np.ndarray]) -> list[np.ndarray]:
    """The first three principal components of feature maps as red, green and blue.

    Each component is stretched between its 1st and 99th percentile, over all maps. Its sign is that of its largest weight; missing
    components (C < 3) are mid-grey.

    Parameters
    ----------
    maps : list of numpy.ndarray
        (h, w, C); h and w may differ.

    Returns
    -------
    list of numpy.ndarray
        uint8 (h, w, 3).
    """
    rows = np.concatenate([one.reshape(-1, one.shape[-1]) for one in maps]).astype(np.float64)
    rows -= rows.mean(axis=0)
    _, vectors = np.linalg.eigh(rows.T @ rows)
    first = vectors[:, ::-1][:, :3]
    first = first * np.where(first[np.abs(first).argmax(axis=0), np.arange(first.shape[1])] < 0, -1.0, 1.0)
    scores = rows @ first
    low, high = np.percentile(scores, [1, 99], axis=0)
    colours = np.full((len(rows), 3), 0.5)
    colours[:, : first.shape[1]] = np.clip((scores - low) / np.where(high > low, high - low, 1.0), 0, 1)
    ends = np.cumsum([one.shape[0] * one.shape[1] for one in maps])[:-1]
    parts = np.split(np.round(255 * colours).astype(np.uint8), ends)
    return [part.reshape(*one.shape[:2], 3) for part, one in zip(parts, maps, strict=True)]


def _enlarged(small: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Each cell as a block of equal pixels: features are shown at their own resolution."""
    rows, columns = (np.arange(size) * cells // size for size, cells in zip(shape, small.shape[:2], strict=True))
    return small[rows][:, columns]
