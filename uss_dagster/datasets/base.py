"""What every dataset adapter shares: its spec, its sources, and the example it yields."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from uss_dagster.errors import Unavailable
from uss_dagster.regions import ClassTree, Regions


@dataclass(frozen=True)
class Archive:
    """One file of an official release. urls: where it is to be had without a login, best first; none where terms have to be accepted first.

    size: in bytes, 0 where unknown. md5, sha256: as published, empty where unknown. under: the folder, relative to the dataset's own, in
    which it is extracted (or put, where it is no archive).
    """

    name: str
    urls: tuple[str, ...] = ()
    size: int = 0
    md5: str = ""
    sha256: str = ""
    under: str = "."


@dataclass(frozen=True)
class DatasetSpec:
    """What a dataset is. ``truth`` says how its ground truth is to be read:

    'classes': one tree of regions an image whose labels are nodes of ``classes``;
    'annotators': several flat segmentations an image, told apart by ``Regions.source``;
    'instances': objects, which may overlap, labelled with nodes of ``classes`` where there are classes; source 'crowd' marks a crowd;
    'none': no ground truth.
    """

    name: str
    title: str
    params: type
    truth: str
    licence: str
    citation: str
    homepage: str = ""
    classes: ClassTree | None = None
    counts: dict[str, int] = field(default_factory=dict)
    """Images in the full official split, by split name, where there is one."""
    archives: tuple[Archive, ...] = ()
    """What the official release consists of."""
    instructions: str = ""
    """How to get what cannot be fetched without a login, in a sentence or two."""


@dataclass(frozen=True)
class Example:
    """One image as it came (encoded bytes, never re-compressed) with its ground truth at the decoded size."""

    image_id: str
    image: bytes
    suffix: str
    split: str
    truth: Regions


@dataclass(frozen=True)
class Sample:
    """One image as a method sees it. ``image``: uint8 (H, W, 3), RGB. ``features``: the backbone's facets, or None.
    ``encode``: the backbone itself, for a method whose spec says ``encodes``: list of images → list of their features."""

    image_id: str
    image: np.ndarray
    features: Any = None
    encode: Callable[[list[np.ndarray]], list[Any]] | None = None


SOURCES = Path("data") / "sources"
"""Where datasets are fetched to, below the project, when ``USS_MIRROR`` is not set."""


def source_folder(name: str) -> Path:
    """Where a dataset is put when it is fetched: in ``USS_MIRROR`` where that is set, else in the project."""
    mirror = os.environ.get("USS_MIRROR")
    return Path(mirror) / name if mirror else _project() / SOURCES / name


def mirror_folder(name: str) -> Path | None:
    """The folder of a dataset in the local mirror ``USS_MIRROR``, or where it was fetched to in the project; None where it is in neither."""
    mirror = os.environ.get("USS_MIRROR")
    places = [Path(mirror) / name] if mirror else []
    return next((folder for folder in (*places, _project() / SOURCES / name) if folder.is_dir()), None)


def need_mirror(name: str, get_it: str) -> Path:
    """The folder of a dataset, or one sentence that says how to get the dataset."""
    folder = mirror_folder(name)
    if folder is None:
        where = os.environ.get("USS_MIRROR")
        tried = f"USS_MIRROR={where} has no folder '{name}'" if where else "USS_MIRROR is not set"
        raise Unavailable(f"Dataset '{name}' is not here: {tried}. {get_it} `uss data get {name}` does it where no login is needed.")
    return folder


def _project() -> Path:
    """The nearest folder upwards that holds a project, else this one."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "params.yaml").exists() and (folder / "dvc.yaml").exists()), here)
