"""Masks made elsewhere: COCO json, label pictures or tables of regions, one file or folder for a dataset.

They are read as ``uss score`` reads them, and images are matched as there: by file name without its ending, or by COCO number. An image without
a mask counts as predicting nothing. Scores stay the scores of regions; a mask without one has 1.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from uss_dagster.artifacts.mask_base import Masks, pair_up
from uss_dagster.artifacts.mask_readers import FORMATS, Format, format_of, open_masks
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import ParameterError, UsageError
from uss_dagster.methods.base import MethodSpec, Samples
from uss_dagster.regions import Regions

_SLOT = "{dataset}"


@dataclass(frozen=True)
class Params:
    """All parameters.

    Parameters
    ----------
    path : str
        The file or folder, from the project folder or absolute; {dataset} in it stands for the name of the dataset.
    format : {'auto', 'coco', 'labels', 'parquet'}
        COCO json, a folder of label PNGs, or tables of regions. Default 'auto', what is there.
    void : tuple of int or None
        Values of label PNGs that are no region. Default None, the greatest of the picture's bits, 255 or 65535.
    same_labels : bool
        Values of label PNGs, categories of COCO json, or the column 'label' mean the same in all images, so that they need not be grouped
        before classes are compared over the dataset. Default False.
    supervised : bool
        They were made by something that has learnt from labels of people, and are marked so. Default False.
    """

    path: str = ""
    format: Literal["auto", "coco", "labels", "parquet"] = "auto"
    void: tuple[int, ...] | None = None
    same_labels: bool = False
    supervised: bool = False


SPEC = MethodSpec(
    name="masks",
    title="Masks made elsewhere",
    params=Params,
    paper="",
    licence="that of the masks",
    overlap=True,
    supervised=("supervised", True),
    imported=True,
    reads="path",
    labels=("same_labels", True),
    segmentation=("format", "labels"),
    reimplementation=False,
    summary="Masks that another program wrote: COCO json, label PNGs or Parquet.",
)


def for_dataset(params: Params, dataset: str, root: Path) -> Params:
    """The parameters for one dataset: its file or folder, and the format that is there.

    Raises
    ------
    ParameterError
        There is nothing, or nothing in that format.
    """
    path = params.path.replace(_SLOT, dataset)
    if not path:
        raise ParameterError(f"it names no masks. Give it 'path', {FORMATS}.", ("path",))
    if not (root / path).exists():
        raise ParameterError(
            f"there are no masks for dataset '{dataset}': {path} does not exist. Put them there ({FORMATS}), correct 'path' (from the "
            f"project folder, or absolute), or give the entry only the datasets that have masks, 'datasets: […]'.",
            ("path",),
        )
    try:
        return replace(params, path=path, format=format_of(root / path, _stated(params)))
    except UsageError as error:
        raise ParameterError(str(error), ("path",)) from None


def fit(samples: Samples, params: Params) -> dict[str, str]:
    """Image id → id in the masks, of the images that have masks."""
    masks = _open(params)
    return pair_up(Masks(Path("the dataset"), samples.ids), masks)[0]


def segment(sample: Sample, params: Params, state: dict[str, str]) -> Regions:
    """The masks of the image, perhaps none."""
    shape = sample.image.shape[:2]
    if sample.image_id not in state:
        return Regions.from_masks([], shape=shape)
    return _open(params).regions(state[sample.image_id], shape)


def _stated(params: Params) -> Format | None:
    return None if params.format == "auto" else params.format


@functools.lru_cache(maxsize=4)
def _open(params: Params) -> Masks:
    """The reader of the masks, opened once a process."""
    return open_masks(Path(params.path), None if params.void is None else frozenset(params.void), _stated(params))
