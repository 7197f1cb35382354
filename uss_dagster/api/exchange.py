"""``uss.export`` and ``uss.load_regions``: regions in the formats of other programs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from uss_dagster.api.regions import Regions
from uss_dagster.artifacts.image_files import encode_png
from uss_dagster.errors import UsageError
from uss_dagster.formats import catalogue
from uss_dagster.formats.base import MaskedImage, MaskSet, class_name
from uss_dagster.formats.sources import open_source
from uss_dagster.formats.transfer import export_masks
from uss_dagster.regions.regions import Regions as RegionFamily

Source = str | os.PathLike[str] | RegionFamily | Sequence[RegionFamily] | Mapping[str, RegionFamily]


def export(
    source: Source,
    folder: str | os.PathLike[str],
    format: str,
    *,
    images: str | os.PathLike[str] | None = None,
    classes: Mapping[int, str] | None = None,
) -> Path:
    """Write regions so that another program opens them; ``uss export --list`` says what each format keeps.

    Parameters
    ----------
    source : Regions, sequence of Regions, mapping of str to Regions, or path
        Regions of pictures, by their own names or by those of the mapping; their pictures are written with them, as PNG. A path: a folder that
        ``uss segment`` wrote, an entry's segments, a curated set, a COCO file.
    folder : path
        A folder that is empty or not there.
    format : str
        Such as "coco", "label_studio", "cvat" or "yolo".
    images : path, optional
        Of a path: the folder of the pictures, or a dataset of a project. Default: None, those beside the masks, if any.
    classes : mapping of int to str, optional
        Names of labels. Default: None, those that are known; 'class_3' where none is.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    UsageError
        There is no such format, the folder is not empty, or the format needs pictures that are not known.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import uss_dagster as uss
    >>> regions = uss.regions(np.array([[0, 0, 1], [0, 2, 1]]))
    >>> folder = uss.export(regions, tempfile.mkdtemp(), "sa1b")
    >>> [regions.area.tolist() for regions in uss.load_regions(folder, "sa1b").values()]
    [[3, 2, 1]]
    """
    if isinstance(source, str | os.PathLike):
        masks = open_source(Path(source), Path(images) if images is not None else None)
    else:
        masks = _in_memory(source)
    if classes is not None:
        masks = replace(masks, categories={**masks.categories, **classes})
    export_masks(masks, format, Path(folder))
    return Path(folder)


def load_regions(path: str | os.PathLike[str], format: str) -> dict[str, Regions]:
    """Read masks that another program wrote.

    Parameters
    ----------
    path : path
        The file or folder.
    format : str
        Such as "coco", "label_studio", "cvat" or "yolo".

    Returns
    -------
    dict of str to Regions
        By the name of the picture: its file name without the ending. Parents come before their children.

    Raises
    ------
    UsageError
        There is no such format, or nothing of it at the path.
    BadData
        The file is damaged; the sentence says where.

    Examples
    --------
    >>> import uss_dagster as uss
    >>> uss.load_regions("annotations.xml", "cvat")  # doctest: +SKIP
    {'street': Regions(12 over 480×640, 31 atoms, depth 2)}
    """
    if not Path(path).exists():
        raise UsageError(f"{path} does not exist. Name the file or folder that another program wrote.")
    masks = catalogue.load(format).read(Path(path))
    return {image.image_id: Regions.of(image.regions, file_name=image.file_name) for image in masks.images()}


def _in_memory(source: RegionFamily | Sequence[RegionFamily] | Mapping[str, RegionFamily]) -> MaskSet:
    """Regions with the pictures that they have."""
    if isinstance(source, RegionFamily):
        source = [source]
    named = dict(source) if isinstance(source, Mapping) else {getattr(one, "name", "image"): one for one in source}
    if len(named) < len(source):
        raise UsageError("Two of the regions have the same name. Pass a mapping from names to regions.")
    labels = sorted({int(label) for regions in named.values() for label in np.unique(regions.label) if label >= 0})

    def images() -> Iterator[MaskedImage]:
        for name, regions in sorted(named.items()):
            picture = getattr(regions, "image", None)
            reader = None if picture is None else lambda picture=picture: encode_png(picture)
            yield MaskedImage(name, f"{name}.png", regions, np.full(len(regions), np.nan, np.float32), picture=reader)

    return MaskSet(images, {label: class_name(label, {}) for label in labels})
