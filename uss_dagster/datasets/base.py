"""What every dataset adapter shares: its spec, its parameters, where its files lie, and the example it yields."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from uss_dagster.errors import Unavailable, UsageError
from uss_dagster.files import find_project, parse_yaml
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.registry import build_params


@dataclass(frozen=True)
class Archive:
    """One file of an official release.

    Parameters
    ----------
    name : str
        Its official file name.
    urls : tuple of str
        Where it can be fetched without a login, best first. Default: none, terms have to be accepted first.
    size : int
        Bytes. Default: 0, not known.
    md5, sha256 : str
        Checksums as published. Default: empty, not known.
    under : str
        The folder, relative to the dataset's own, into which it is extracted (or put, where it is no archive). Default: '.'.
    """

    name: str
    urls: tuple[str, ...] = ()
    size: int = 0
    md5: str = ""
    sha256: str = ""
    under: str = "."


@dataclass(frozen=True)
class DatasetSpec:
    """What a dataset is and where it comes from.

    Parameters
    ----------
    name : str
        Its name in profiles, that of the module, and of its folder in the mirror.
    title : str
        Its name for people, also in error messages.
    params : type
        Dataclass of the adapter's parameters.
    truth : str
        How its ground truth is to be read.
        'classes': one tree of regions an image whose labels are nodes of ``classes``.
        'annotators': several flat segmentations an image, told apart by ``Regions.source``.
        'instances': objects, which may overlap, labelled with nodes of ``classes`` where there are classes; source 'crowd' marks a crowd.
        'none': no ground truth.
    licence, citation : str
        As the authors ask for.
    homepage : str
        Default: empty.
    classes : ClassTree, optional
        The class tree with default parameters. Default: None, no classes, or known only from the files.
    counts : dict
        Images in the full official split, by split name. Default: empty.
    archives : tuple of Archive
        What the official release consists of. Default: none.
    instructions : str
        How to get what cannot be fetched without a login, in a sentence or two. Default: empty.
    get_it : str
        What to do where files are missing, in a sentence. Default: empty.
    mirrors : tuple of str
        Folders of the mirror that may hold its files, best first. Default: the one named as the dataset.
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
    archives: tuple[Archive, ...] = ()
    instructions: str = ""
    get_it: str = ""
    mirrors: tuple[str, ...] = ()


def dataset_spec(module_file: str, params: type, classes: ClassTree | None = None, archives: tuple[Archive, ...] = ()) -> DatasetSpec:
    """The spec of an adapter, whose facts are in ``<adapter>_about.yaml`` beside it.

    Parameters
    ----------
    module_file : str
        ``__file__`` of the adapter. The name of the dataset is that of the file, unless the YAML has another.
    params : type
        Dataclass of the adapter's parameters.
    classes : ClassTree, optional
        The class tree with default parameters. Default: None.
    archives : tuple of Archive
        Archives of another dataset that are part of this one; they come before its own. Default: none.

    Raises
    ------
    UsageError
        The file is missing, or a key or value in it is wrong.
    """
    path = Path(module_file).with_name(f"{Path(module_file).stem}_about.yaml")
    try:
        facts = parse_yaml(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(
            f"{path} is missing: the title, licence and archives of a dataset are in a YAML file beside its adapter."
        ) from None
    own = [build_params(Archive, values, f"{path.name}: archive") for values in facts.pop("archives", ())]
    about = {"name": path.stem.removesuffix("_about")} | facts
    return build_params(DatasetSpec, about | {"params": params, "classes": classes, "archives": (*archives, *own)}, path.name)


@dataclass(frozen=True)
class LimitedParams:
    """Base of the parameters of adapters.

    Parameters
    ----------
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    limit: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}, expected at least 1, or null for all images.")


@dataclass(frozen=True)
class Example:
    """One image with its ground truth.

    Parameters
    ----------
    image_id : str
        Unique in the dataset.
    image : bytes
        The encoded picture as released, never compressed again.
    suffix : str
        Of its file, such as '.jpg'.
    split : str
        The split it belongs to.
    truth : Regions
        At the size of the decoded picture.
    """

    image_id: str
    image: bytes
    suffix: str
    split: str
    truth: Regions


@dataclass(frozen=True)
class Sample:
    """One image as a method sees it.

    Parameters
    ----------
    image_id : str
        Unique in the dataset.
    image : ndarray
        uint8 (H, W, 3), RGB.
    features : object, optional
        The backbone's facets. Default: None, for methods that need none.
    encode : callable, optional
        The backbone itself: list of images → list of their features. Default: None; given to methods whose spec says ``encodes``.
    """

    image_id: str
    image: np.ndarray
    features: Any = None
    encode: Callable[[list[np.ndarray]], list[Any]] | None = None


class Adapter(Protocol):
    """The module of a dataset.

    It may also define ``classes(params) -> Classes | None`` and ``truth(params) -> str`` where these depend on the parameters, and
    ``inputs(params) -> list[Path]``, files outside the mirror that it reads.
    """

    SPEC: DatasetSpec

    def examples(self, params: Any) -> Iterator[Example]:
        """The images by ascending id, each with its ground truth."""
        ...


SOURCES = Path("data") / "sources"
"""Where datasets are fetched to, below the project, when ``USS_MIRROR`` is not set."""


def source_folder(name: str) -> Path:
    """Where a dataset is put when it is fetched: in ``USS_MIRROR`` where that is set, else in the project."""
    mirror = os.environ.get("USS_MIRROR")
    return Path(mirror) / name if mirror else (find_project() or Path.cwd()) / SOURCES / name


def mirror_folder(name: str) -> Path | None:
    """The folder of a dataset in the local mirror ``USS_MIRROR``, or where it was fetched to in the project; None where it is in neither."""
    return next((folder for folder in (source_folder(name), (find_project() or Path.cwd()) / SOURCES / name) if folder.is_dir()), None)


def need_mirror(name: str, get_it: str) -> Path:
    """The folder of a dataset.

    Parameters
    ----------
    name : str
        Of the folder.
    get_it : str
        What to do where it is missing, in a sentence; part of the error.

    Raises
    ------
    Unavailable
        There is no such folder.
    """
    folder = mirror_folder(name)
    if folder is None:
        mirror = os.environ.get("USS_MIRROR")
        tried = f"USS_MIRROR={mirror} has no folder '{name}'" if mirror else "USS_MIRROR is not set"
        raise Unavailable(f"Dataset '{name}' is not here: {tried}. {get_it} `uss data get {name}` does it where no login is needed.")
    return folder
