"""COCO 2017 panoptic: every pixel belongs to one segment, an object of 80 thing classes or a region of 53 stuff classes."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict, cast

import numpy as np

from uss_dagster.datasets import coco
from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.class_trees import load_classes
from uss_dagster.datasets.formats.coco_json import CROWD, find_coco
from uss_dagster.datasets.formats.files import find, read_picture
from uss_dagster.datasets.formats.label_maps import decode_rgb_png
from uss_dagster.errors import BadData
from uss_dagster.regions import Regions


class Segment(TypedDict, total=False):
    """An entry of 'segments_info'."""

    id: int
    category_id: int
    iscrowd: int


class Record(TypedDict):
    """An annotation: all segments of one image."""

    file_name: str
    segments_info: list[Segment]


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which images and what of them.

    Parameters
    ----------
    split : str
        val2017 or train2017. Default: val2017.
    truth : str
        'classes': super-category, class and object, nested. 'instances': the segments alone. Default: classes.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    split: Literal["val2017", "train2017"] = "val2017"
    truth: Literal["classes", "instances"] = "classes"


CLASSES = load_classes("coco_panoptic")

SPEC = dataset_spec(__file__, Params, CLASSES.tree, archives=coco.IMAGE_ARCHIVES)


def examples(params: Params) -> Iterator[Example]:
    """Images of the split by ascending id, as released; truth is their segments, nested in their classes or alone."""
    split = params.split
    file = find_coco(SPEC, (f"annotations/panoptic_{split}.json", f"panoptic_{split}.json"))
    maps = find(SPEC, [f"{folder}panoptic_{split}{end}" for end in ("", ".zip") for folder in ("annotations/", "")])
    folder = coco.image_folder(split, SPEC)
    for picture in file.pictures[: params.limit]:
        what = f"COCO panoptic image {picture.id}"
        records = cast(list[Record], file.annotations(picture.id))
        if len(records) != 1:
            raise BadData(f"{what} has {len(records)} annotations, expected one. {SPEC.get_it}")
        number = read_segment_png(maps, records[0]["file_name"])
        if number.shape != (picture.height, picture.width):
            raise BadData(
                f"{what} is {picture.height}×{picture.width}, its segments {number.shape[0]}×{number.shape[1]} (height×width). {SPEC.get_it}"
            )
        regions = regions_of_segments(number, records[0]["segments_info"], what, nested=params.truth == "classes")
        path = folder / picture.file
        yield Example(path.stem, read_picture(path, SPEC), path.suffix, split, regions)


def read_segment_png(maps: Path, name: str) -> np.ndarray:
    """Int32 (H, W): R + 256 G + 65536 B of an RGB PNG, 0 for void. maps: the folder of these files, or the ZIP file that the release has."""
    try:
        root = zipfile.Path(maps, f"{maps.stem}/") if maps.suffix == ".zip" else maps
        data = (root / name).read_bytes()
    except (FileNotFoundError, KeyError):
        raise BadData(f"{maps / name} is missing, though the dataset lists it. {SPEC.get_it}") from None
    except zipfile.BadZipFile as error:
        raise BadData(f"{maps} is truncated or damaged ({error}). {SPEC.get_it}") from error
    colour = decode_rgb_png(data, maps / name).astype(np.int32)
    return colour[..., 0] + 256 * colour[..., 1] + 65536 * colour[..., 2]


def regions_of_segments(number: np.ndarray, segments: list[Segment], what: str, nested: bool) -> Regions:
    """The segments of one image as regions.

    Parameters
    ----------
    number : ndarray
        Integer (H, W), the segment of each pixel, 0 for void.
    segments : list of dict
        'segments_info' of the image.
    what : str
        Names the image in errors.
    nested : bool
        Put segments below their classes and super-categories; a stuff segment is its class's only region.
    """
    record = {int(segment["id"]): segment for segment in segments}
    ids, place = np.unique(number, return_inverse=True)
    if set(ids.tolist()) - {0} != record.keys():
        raise BadData(
            f"{what}: its PNG holds {np.count_nonzero(ids)} segments, its record lists {len(record)}, and they differ. {SPEC.get_it}"
        )
    strangers = sorted({segment["category_id"] for segment in segments} - CLASSES.node.keys())
    if strangers:
        raise BadData(f"{what} has a segment of category {strangers[0]}, which COCO does not know. {SPEC.get_it}")
    tree = CLASSES.tree
    node = np.array([CLASSES.node[record[i]["category_id"] if i else 0] for i in ids.tolist()], np.int64)
    crowd = [CROWD if i and record[i].get("iscrowd") else "" for i in ids.tolist()]
    things = tree.ancestors[tree.names.index("things")]
    own = (ids != 0) & (things[node] | (not nested))
    present = tree.ancestors[:, node].any(axis=1) & nested
    # Classes first, in the order of their tree, then the segments that are regions of their own.
    nodes, first = np.flatnonzero(present), int(present.sum())
    rank = np.where(present, np.cumsum(present) - 1, -1)
    above = rank[np.asarray(tree.parent)[nodes]]
    above[:1] = -1  # the scene; absent where nothing is nested
    region = np.where(own, first + np.cumsum(own) - 1, rank[node])
    return Regions.from_tree(
        region.astype(np.int32)[place].reshape(number.shape),
        np.concatenate([above, rank[node[own]]]),
        label=np.concatenate([nodes, node[own]]),
        source=[""] * first + [c for c, mine in zip(crowd, own, strict=True) if mine],
    )
