"""Small masks in every form that `uss score` reads, and the command itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco
from scipy.io import savemat

from uss_dagster.artifacts.tables import RowsWriter, regions_to_table
from uss_dagster.regions import ClassTree, Regions

Run = Callable[..., tuple[dict[str, dict[str, Any]], str]]
"""`uss score`: words → (rows by metric, what it said on standard error)."""

HEIGHT, WIDTH = 24, 36
IDS = ("a", "b", "c")
TREE = ClassTree.from_nested({"thing": {"cat": "foreground", "dog": "foreground"}, "sky": "background", "void": "ignore"})
CAT, DOG, SKY, VOID = 2, 3, 4, 5
"""Nodes of ``TREE``; node 1 is 'thing'."""


def blocks(seed: int, values: list[int], size: int = 6) -> np.ndarray:
    """A map of square blocks, each of one of the values; int64 (HEIGHT, WIDTH)."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.choice(values, (HEIGHT // size, WIDTH // size)), np.ones((size, size), np.int64))


TRUTH = {image_id: blocks(i, [CAT, DOG, SKY, VOID]) for i, image_id in enumerate(IDS)}
FOUND = {
    image_id: np.where(blocks(10 + i, [0, 1], 3) == 0, TRUTH[image_id], blocks(20 + i, [1, 2, 3, 4], 3)) for i, image_id in enumerate(IDS)
}
"""Predicted segments: the truth, with other numbers in half of its blocks."""


def save_png(path: Path, values: np.ndarray, mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "P":
        picture = Image.fromarray(values.astype(np.uint8), "P")
        picture.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    else:
        picture = Image.fromarray(values.astype(np.uint16 if mode == "I;16" else np.uint8))
    picture.save(path)
    return path


def pictures(folder: Path, maps: dict[str, np.ndarray], mode: str = "L") -> Path:
    for image_id, values in maps.items():
        save_png(folder / f"{image_id}.png", values, mode)
    return folder


def table(path: Path, regions: dict[str, Regions]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = RowsWriter(path)
    for image_id in sorted(regions):
        writer.add(regions_to_table(image_id, regions[image_id]))
    writer.close()
    return path


def code(mask: np.ndarray) -> dict[str, Any]:
    found = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": found["counts"].decode()}


def plain_code(mask: np.ndarray) -> dict[str, Any]:
    """The same, uncompressed."""
    flat = mask.ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0] if flat[0] == 0 else [0, 0], edges, [flat.size]]))
    return {"size": list(mask.shape), "counts": runs.tolist()}


def objects(seed: int, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        y, x, h, w = rng.integers(0, 12), rng.integers(0, 24), rng.integers(3, 12), rng.integers(3, 12)
        masks.append(np.zeros((HEIGHT, WIDTH), bool))
        masks[-1][y : y + h, x : x + w] = True
    return masks


def coco_truth(path: Path, count: int = 5) -> dict[str, Any]:
    """Rectangles in three images; the last of each is a crowd. 'area' is that of the mask."""
    annotations = []
    for number, image in enumerate((7, 8, 9)):
        for place, mask in enumerate(objects(number, count)):
            annotation = {"id": len(annotations) + 1, "image_id": image, "category_id": 1 + place % 2, "iscrowd": int(place == count - 1)}
            annotations.append({**annotation, "area": int(mask.sum()), "segmentation": code(mask)})
    images = [{"id": i, "file_name": f"photos/{n}.jpg", "height": HEIGHT, "width": WIDTH} for i, n in zip((7, 8, 9), IDS, strict=True)]
    categories = [{"id": 1, "name": "cat", "supercategory": "animal"}, {"id": 2, "name": "cup"}]
    data = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(data))
    return data


def coco_results(path: Path) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    results = []
    for number, image in enumerate((7, 8, 9)):
        for place, mask in enumerate(objects(number, 4) + objects(40 + number, 6)):
            how = plain_code if place % 2 else code
            results.append({"image_id": image, "category_id": 1, "segmentation": how(mask), "score": round(float(rng.random()), 3)})
    path.write_text(json.dumps(results))
    return results


def annotators(folder: Path, maps: dict[str, list[np.ndarray]]) -> Path:
    folder.mkdir(parents=True)
    for image_id, drawn in maps.items():
        cell = np.empty((1, len(drawn)), object)
        for number, values in enumerate(drawn):
            cell[0, number] = {"Segmentation": values.astype(np.uint16), "Boundaries": values > 0}
        savemat(folder / f"{image_id}.mat", {"groundTruth": cell})
    return folder
