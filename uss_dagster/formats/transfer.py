"""Export of a set of masks to a format, and import from one into ``regions.parquet`` and ``regions.json``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from uss_dagster.artifacts.tables import regions_to_table
from uss_dagster.errors import BadData, UsageError
from uss_dagster.files import make_folder, remove, write_whole
from uss_dagster.formats import catalogue
from uss_dagster.formats.base import ASPECTS, FormatSpec, MaskedImage, MaskSet
from uss_dagster.own_images.files import check_out_folder
from uss_dagster.own_images.region_files import RegionFiles
from uss_dagster.regions.classes import FOREGROUND, INNER, ClassTree

CLASSES = "classes.json"
MOST_CLASSES = 100_000
"""A greater label is taken for the number of a segment."""


@dataclass
class Transfer:
    """What was written.

    Parameters
    ----------
    images, regions, pictures : int
        Their numbers.
    notes : list of str
        What was lost or left out, a sentence each.
    """

    images: int = 0
    regions: int = 0
    pictures: int = 0
    notes: list[str] = field(default_factory=list)


def export_masks(masks: MaskSet, name: str, out: Path) -> Transfer:
    """Write a set in a format.

    Parameters
    ----------
    masks : MaskSet
    name : str
        Of the format.
    out : Path
        A folder that is empty or not there.

    Raises
    ------
    UsageError
        There is no such format, the folder is not empty, or the format needs pictures and they are not known.
    BadData
        There is no region to write.
    """
    module = catalogue.load(name)
    done, present = Transfer(), set[str]()

    def images() -> Iterator[MaskedImage]:
        for image in masks.images():
            done.images += 1
            done.regions += len(image.regions)
            done.pictures += image.picture is not None
            present.update(_aspects_of(image, module.SPEC))
            yield image

    with _new_folder(out):
        module.write(replace(masks, images=images), out)
        if not done.regions:
            raise BadData("There is no region to export.")
    if 0 < done.pictures < done.images:
        done.notes.append(f"the pictures of {done.images - done.pictures} images are not known, and not copied.")
    done.notes += [*masks.complaints, *catalogue.remarks(module.SPEC, present)]
    return done


def import_masks(path: Path, name: str, out: Path) -> Transfer:
    """Read masks of a format and write ``regions.parquet``, ``regions.json`` and, where regions have classes, ``classes.json``.

    Parameters
    ----------
    path : Path
        The file or folder of that format.
    name : str
        Of the format.
    out : Path
        A folder that is empty or not there.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist. Name what is to be imported.")
    masks = catalogue.load(name).read(path)
    done, without, measured, splits = Transfer(), 0, 0, set[str]()
    with _new_folder(out):
        with RegionFiles(out, ".import") as files:
            for image in masks.images():
                if not len(image.regions):
                    without += 1
                    continue
                files.add(image.image_id, image.file_name, regions_to_table(image.image_id, image.regions))
                done.images += 1
                done.regions += len(image.regions)
                measured += int(np.isfinite(image.quality).sum())
                splits.add(image.split)
        if not done.regions:
            raise BadData(f"{path}: there is no region to import.")
        done.notes += masks.complaints
        _write_classes(out, masks, done)
    if without:
        done.notes.append(f"{without} images without a region are left out.")
    if measured:
        done.notes.append(f"the quality of {measured} regions is left out: regions.parquet has no column for it.")
    if splits - {""}:
        done.notes.append(f"splits are left out ({', '.join(sorted(splits - {''}))}): regions.parquet has no column for them.")
    return done


def _write_classes(out: Path, masks: MaskSet, done: Transfer) -> None:
    """The names of classes by label, as a class tree without groups, which ``uss score --classes`` and ``uss export`` read."""
    labels = sorted(masks.categories)
    if not labels:
        return
    if labels[0] < 1 or labels[-1] > MOST_CLASSES:
        done.notes.append(f"the names of classes are left out: their numbers, {labels[0]} to {labels[-1]}, are not 1 to {MOST_CLASSES}.")
        return
    count = labels[-1]
    names = tuple(masks.categories.get(label, f"class_{label}") for label in range(1, count + 1))
    tree = ClassTree(("scene", *names), (-1, *(0,) * count), (INNER, *(FOREGROUND,) * count))
    write_whole(out / CLASSES, tree.to_json())


@contextmanager
def _new_folder(out: Path) -> Iterator[None]:
    """A folder that is empty at the start, and again if what is done in it fails."""
    check_out_folder(out)
    was_there = out.is_dir()
    if was_there and any(out.iterdir()):
        raise UsageError(f"--out {out}: the folder is not empty. Name a new one.")
    make_folder(out)
    try:
        yield
    except BaseException:
        for path in [*out.iterdir()] if was_there else [out]:
            remove(path)
        raise


def _aspects_of(image: MaskedImage, spec: FormatSpec) -> Iterator[str]:
    """The aspects that an image has; of holes, and of separate parts, every image may have some."""
    regions = image.regions
    known = {
        "overlap": spec.keeps("overlap") == "yes" or int(regions.members.sum(axis=0).max(initial=0)) > 1,
        "parent": bool((regions.parent >= 0).any()),
        "level": bool(np.isfinite(regions.level).any()),
        "score": bool((regions.score != 1).any()),
        "quality": bool(np.isfinite(image.quality).any()),
        "label": bool((regions.label >= 0).any()),
        "source": any(regions.source),
        "split": bool(image.split),
    }
    return (aspect for aspect in ASPECTS if known.get(aspect, True))
