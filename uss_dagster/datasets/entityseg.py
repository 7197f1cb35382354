"""EntitySeg: everything that a person would call an entity, thing or stuff, in images of many sources; class-free here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.coco_json import Picture, examples_of, find_coco
from uss_dagster.datasets.formats.files import find
from uss_dagster.errors import BadData


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which images, at which size.

    Parameters
    ----------
    split : str
        'val' or 'train'; at full resolution train comes in three parts, 'train_01' to 'train_03'. Default: val.
    resolution : str
        'low': annotations and images scaled down, which methods are compared on. 'full': as they are. Default: low.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    split: Literal["val", "train", "train_01", "train_02", "train_03"] = "val"
    resolution: Literal["low", "full"] = "low"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.split != "val" and (self.split == "train") != (self.resolution == "low"):
            raise ValueError(
                f"split is '{self.split}': at low resolution there is one 'train', at full resolution 'train_01' to 'train_03'."
            )


SPEC = dataset_spec(__file__, Params)


def examples(params: Params) -> Iterator[Example]:
    """Images of the split by ascending id, as they are; truth is their entities, in the order of the file."""
    low = params.resolution == "low"
    name = f"entityseg_{params.split}{'_lr' if low else ''}.json"
    file = find_coco(SPEC, (name, f"annotations/{name}"))
    files = _files_below(find(SPEC, ("images_lr", "images", ".") if low else ("images", ".")))

    def place(picture: Picture) -> Path:
        for name in (picture.file, picture.file.rpartition("/")[2]):
            if name in files:
                return files[name]
        raise BadData(f"EntitySeg image {picture.id}, file '{picture.file}', is missing, though the dataset lists it. {SPEC.get_it}")

    # Ids are numbers: names of files may be anything.
    return examples_of(file, place, SPEC, params.split, params.limit, name=lambda picture, _: f"entity{picture.id:09d}")


def _files_below(folder: Path) -> dict[str, Path]:
    """Every file below a folder by its path there, and by its name alone where no other file is called so."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    alone: dict[str, list[Path]] = {}
    for path in paths:
        alone.setdefault(path.name, []).append(path)
    unique = {name: same[0] for name, same in alone.items() if len(same) == 1}
    return unique | {path.relative_to(folder).as_posix(): path for path in paths}
