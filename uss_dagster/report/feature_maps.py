"""What features look like: their first three principal components as red, green and blue, beside the pictures they are of."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from uss_dagster.artifacts.features import FeatureShards
from uss_dagster.artifacts.images import Images, evenly_spaced
from uss_dagster.drawing import montage, shrunk

FACETS = ("tokens", "keys")
SHOWN = 4
LONGEST = 240


def features_picture(root: Path, backbone: str, dataset: str) -> bytes | None:
    """A JPEG: evenly spaced pictures of a dataset, and below each its features; None where the backbone writes no map of vectors.

    The components are those of the pictures shown, all together, so that one colour means one thing in all of them.
    """
    images = Images(root / "data" / "datasets" / dataset / "images")
    shards = FeatureShards(root / "data" / "features" / backbone / dataset)
    shown = evenly_spaced(images.ids, SHOWN)
    maps = []
    for image_id in shown:
        tensors = shards.tensors(image_id)
        facet = next((name for name in FACETS if name in tensors), None)
        if facet is None:
            return None
        maps.append(np.asarray(tensors[facet], np.float32))
    pictures = [shrunk(images.pixels(image_id), LONGEST) for image_id in shown]
    coloured = [_enlarged(found, picture.shape[:2]) for found, picture in zip(principal_colours(maps), pictures, strict=True)]
    target = io.BytesIO()
    drawn = montage([*pictures, *coloured], [*shown, *("features" for _ in shown)], columns=len(shown))
    Image.fromarray(drawn).save(target, "JPEG", quality=88)  # a fifth of a PNG, and it is kept in Dagster's event log
    return target.getvalue()


def principal_colours(maps: list[np.ndarray]) -> list[np.ndarray]:
    """Maps of h×w×C (h and w may differ) → h×w×3, uint8: the first three principal components of all together, each stretched between
    its 1st and 99th percentile. Components' signs are fixed by their largest weight; missing ones (C < 3) are mid-grey."""
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
    rows, columns = (np.arange(wanted) * have // wanted for wanted, have in zip(shape, small.shape[:2], strict=True))
    return small[rows][:, columns]
