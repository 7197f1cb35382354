"""SA-1B: masks of everything in an image, about a hundred each, one JSON file an image, in shards; class-free."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec, need_mirror
from uss_dagster.datasets.formats.coco_json import regions_of_annotations
from uss_dagster.errors import BadData
from uss_dagster.regions.coco import CocoAnnotation, CocoImage

_NAME = re.compile(r"sa_(\d+)\.(json|jpg)")


class Record(TypedDict):
    """The JSON file of one image."""

    image: CocoImage
    annotations: list[CocoAnnotation]


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which images.

    Parameters
    ----------
    sample : int, optional
        So many of the images that ``limit`` leaves, drawn at random. Default: None, all of them.
    seed : int
        Of the sample. Default: 0.
    limit : int, optional
        Only the first so many images by number. Default: None, all of them.
    """

    sample: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sample is not None and self.sample < 1:
            raise ValueError(f"sample is {self.sample}, expected at least 1, or null for all images.")


SPEC = dataset_spec(__file__, Params)


@dataclass(frozen=True)
class Place:
    """Where a file lies: a file of its own, or ``size`` bytes at ``offset`` of a tar shard."""

    path: Path
    offset: int = 0
    size: int = -1

    def read(self) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def examples(params: Params) -> Iterator[Example]:
    """Images by ascending id as text, as released; truth is their masks, in the order of the file."""
    places = _places(need_mirror(SPEC.name, SPEC.get_it))
    numbers = sorted(places)[: params.limit]
    if params.sample is not None:
        if params.sample > len(numbers):
            raise BadData(
                f"sample is {params.sample}, but there are {len(numbers)} images of SA-1B here. Ask for fewer, or fetch more shards."
            )
        numbers = np.random.default_rng(params.seed).choice(numbers, params.sample, replace=False).tolist()
    for number in sorted(numbers, key=str):
        what = f"SA-1B image sa_{number}"
        if set(places[number]) != {"json", "jpg"}:
            raise BadData(f"{what} has a {'picture' if 'jpg' in places[number] else 'JSON file'} alone; each needs both. {SPEC.get_it}")
        record = read_record(places[number]["json"].read(), what)
        truth = regions_of_annotations(record["annotations"], record["image"]["height"], record["image"]["width"], None, what)
        yield Example(f"sa_{number}", places[number]["jpg"].read(), ".jpg", "all", truth)


def read_record(data: bytes, what: str) -> Record:
    """One JSON file. what: names the image in an error."""
    try:
        record = json.loads(data)
        if not all(isinstance(record["image"][side], int) for side in ("height", "width")) or not isinstance(record["annotations"], list):
            raise TypeError("'height' and 'width' must be numbers, 'annotations' a list")
    except (ValueError, KeyError, TypeError) as error:
        raise BadData(f"{what}: its JSON file is truncated, or has no 'image' with a size and 'annotations' ({error!r}).") from error
    return record


def _places(mirror: Path) -> dict[int, dict[str, Place]]:
    """Number of an image → 'json' and 'jpg' → where it lies, over extracted shards and tar files (an extracted file comes first)."""
    places: dict[int, dict[str, Place]] = {}
    paths = sorted(path for path in mirror.rglob("*") if path.is_file())
    for path in paths:
        if match := _NAME.fullmatch(path.name):
            places.setdefault(int(match[1]), {})[match[2]] = Place(path)
    for path in paths:
        if path.suffix == ".tar":
            for name, place in _members(path):
                if match := _NAME.fullmatch(name):
                    places.setdefault(int(match[1]), {}).setdefault(match[2], place)
    if not places:
        raise BadData(f"{mirror} holds neither sa_<number>.json with sa_<number>.jpg nor tar files of them. {SPEC.get_it}")
    return places


def _members(path: Path) -> Iterator[tuple[str, Place]]:
    """Plain files of a tar file: name without folders, and place. Nothing is extracted."""
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                if member.isreg():
                    yield member.name.rpartition("/")[2], Place(path, member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise BadData(f"{path} is truncated or no tar file ({error}). Fetch the shard again.") from error
