"""FiftyOne: the layout of its ``COCODetectionDataset``, with parent, level, score, quality and source as keys of the annotations.

``fiftyone.Dataset.from_dir(folder, fiftyone.types.COCODetectionDataset, label_types="segmentations", extra_attrs=True)`` opens it.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from uss_dagster.formats.base import FormatSpec, MaskSet, write_picture
from uss_dagster.formats.kinds import coco
from uss_dagster.formats.kinds.coco import CocoWriter

SPEC = FormatSpec(
    name="fiftyone",
    title="FiftyOne (COCODetectionDataset)",
    programs="fiftyone (its importer, without its database)",
    layout="labels.json, data/",
)


def write(masks: MaskSet, folder: Path) -> None:
    """One COCO file, with all splits, beside the pictures."""
    with ExitStack() as stack:
        file = CocoWriter(stack, folder / "labels.json", masks, flat=True)
        for image in masks.images():
            write_picture(folder / "data", image)
            file.add(image)


def read(path: Path) -> MaskSet:
    """See ``coco.read``."""
    return coco.read(path)
