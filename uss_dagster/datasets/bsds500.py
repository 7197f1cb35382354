"""BSDS500: 500 photographs, each segmented by 4 to 9 people; class-free, the usual test bed for region hierarchies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from uss_dagster.artifacts.image_files import decode
from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec, need_mirror
from uss_dagster.errors import BadData
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which images.

    Parameters
    ----------
    split : str
        train, val or test. Default: test.
    limit : int, optional
        Only the first so many images by number. Default: None, all of them.
    """

    split: Literal["train", "val", "test"] = "test"


SPEC = dataset_spec(__file__, Params)


def examples(params: Params) -> Iterator[Example]:
    """Photographs as released (``limit``: the lowest numbers), by ascending id as text; truth is the flat regions of every annotator, in file order."""
    data = _data_folder(need_mirror(SPEC.name, SPEC.get_it))
    pictures = {p.stem: p for p in (data / "images" / params.split).glob("*.jpg") if p.stem.isdecimal()}
    if not pictures:
        raise BadData(f"{data / 'images' / params.split} holds no <number>.jpg. {SPEC.get_it}")
    for image_id in sorted(sorted(pictures, key=int)[: params.limit]):
        picture = pictures[image_id].read_bytes()
        labels = read_annotators(data / "groundTruth" / params.split / f"{image_id}.mat", image_id)
        size = decode(picture, str(pictures[image_id])).shape[:2]
        for number, annotated in enumerate(labels):
            if annotated.shape != size:
                raise BadData(
                    f"BSDS500 image {image_id} is {size[1]}×{size[0]} pixels, but its annotator {number} drew on "
                    f"{annotated.shape[1]}×{annotated.shape[0]}. Extract the archive again."
                )
        yield Example(image_id, picture, ".jpg", params.split, regions_of_annotators(labels))


def regions_of_annotators(labels: list[np.ndarray]) -> Regions:
    """Flat regions of S label maps, integer (H, W), in one family: annotator by annotator, labels ascending, 0 for none.

    Atoms are the distinct columns of the S stacked maps, so no mask is ever drawn.
    """
    height, width = labels[0].shape
    rank = np.zeros(height * width, np.int64)
    atoms = np.zeros(1, np.int64)
    for annotated in labels:  # refine the atoms by one map at a time: sorting one integer is far faster than sorting columns
        key = rank * (int(annotated.max()) + 1) + annotated.ravel()
        atoms, rank = _compact(key)
    first = np.empty(len(atoms), np.int64)
    first[rank[::-1]] = np.arange(rank.size - 1, -1, -1)  # the first pixel of each atom
    members, source = [], []
    for number, annotated in enumerate(labels):
        values = annotated.ravel()[first]
        for value in np.unique(values[values > 0]):
            members.append(values == value)
            source.append(f"annotator{number:02d}")
    held = np.stack(members) if members else np.zeros((0, len(atoms)), bool)
    return Regions(rank.reshape(height, width), held, source=source)


def _compact(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distinct values ascending, index of each key's value), by counting: keys stay below atoms × labels."""
    used = np.bincount(key) > 0
    return np.flatnonzero(used), (np.cumsum(used) - 1)[key]


def _data_folder(mirror: Path) -> Path:
    """The folder that holds ``images`` and ``groundTruth``: the mirror's ``data``, or deeper in an extracted archive."""
    places = [mirror / sub for sub in ("data", "BSR/BSDS500/data", "BSDS500/data", ".")]
    for place in places:
        if (place / "images").is_dir() and (place / "groundTruth").is_dir():
            return place
    raise BadData(f"{mirror} has neither data/images with data/groundTruth nor BSR/BSDS500/data. {SPEC.get_it}")


def read_annotators(path: Path, image_id: str) -> list[np.ndarray]:
    """The label maps of one file, int64 (H, W) each, in file order."""
    from scipy.io import loadmat

    if not path.is_file():
        raise BadData(f"BSDS500 image {image_id} has no ground truth: {path} does not exist. Extract the archive again.")
    try:
        cells = loadmat(path)["groundTruth"].ravel()
        labels = [np.asarray(cell["Segmentation"][0, 0]).astype(np.int64) for cell in cells]
    except Exception as error:  # scipy raises a different type for every way in which a .mat can be broken
        raise BadData(f"{path} is not a BSDS500 ground truth file ({type(error).__name__}: {error}). Extract the archive again.") from error
    if not labels or any(m.ndim != 2 or not m.size or m.min() < 0 for m in labels):
        raise BadData(f"{path} must hold at least one two-dimensional label map with labels from 0 up. Extract the archive again.")
    return labels
