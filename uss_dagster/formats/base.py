"""What all formats share: the masks of an image, a set of them, what a format says of itself, and files inside one folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from uss_dagster.errors import BadData
from uss_dagster.files import write_whole
from uss_dagster.regions import Regions

UNLABELLED = "region"
"""Name of the class of regions that have none."""
_NUMBERED = re.compile(r"class_(0|[1-9]\d{0,8})")

ASPECTS = {
    "masks": "the pixels of each mask",
    "overlap": "masks that share pixels",
    "holes": "holes in a mask",
    "parts": "masks of several separate parts",
    "parent": "which region lies above each",
    "level": "the height at which each forms",
    "score": "the confidence of each",
    "quality": "the quality that curation measured",
    "label": "the class of each",
    "source": "the view, scale or annotator of each",
    "split": "train, val or test",
}
"""What a set of masks holds, and in words."""


@dataclass(frozen=True)
class FormatSpec:
    """What a format is, and what it cannot hold. What stands neither in ``loses`` nor in ``changes`` comes back exactly.

    Parameters
    ----------
    name : str
        Of the module.
    title : str
    programs : str
        The programs with which export and import are tested.
    layout : str
        The files that are written.
    loses : mapping of str to str
        Aspect (a key of ``ASPECTS``) → why it is not kept.
    changes : mapping of str to str
        Aspect → how what comes back differs.
    needs_pictures : bool, default False
        Nothing can be written or read without the pictures.
    """

    name: str
    title: str
    programs: str
    layout: str
    loses: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, str] = field(default_factory=dict)
    needs_pictures: bool = False

    @property
    def facts(self) -> dict[str, object]:
        """What it says of itself, for programs."""
        kept = {aspect: self.keeps(aspect) for aspect in ASPECTS}
        return {"name": self.name, "title": self.title, "programs": self.programs, "layout": self.layout, "keeps": kept}

    def keeps(self, aspect: str) -> str:
        """'yes', 'no' or 'changed'."""
        return "no" if aspect in self.loses else "changed" if aspect in self.changes else "yes"


@dataclass(frozen=True)
class MaskedImage:
    """The masks of one image, with what is known beside them.

    Parameters
    ----------
    image_id : str
        The file name without folders and ending, as a rule.
    file_name : str
        Of the picture, with slashes, below the folder of pictures.
    regions : Regions
        K regions.
    quality : ndarray
        float32 (K,), NaN where it is not known.
    split : str, default ""
        Empty where it is not known.
    picture : callable, optional
        Reads the encoded picture. None where it is not known.
    """

    image_id: str
    file_name: str
    regions: Regions
    quality: np.ndarray
    split: str = ""
    picture: Callable[[], bytes] | None = None


@dataclass(frozen=True)
class MaskSet:
    """The masks of many images, read one image at a time.

    Parameters
    ----------
    images : callable
        Iterates over the images, in order of their ids.
    categories : mapping of int to str
        Label → name of its class; without -1.
    title, licence : str
        For formats that state them.
    complaints : list of str
        What was left out while images were read, a sentence each; complete after an iteration.
    """

    images: Callable[[], Iterator[MaskedImage]]
    categories: Mapping[int, str] = field(default_factory=dict)
    title: str = "Regions"
    licence: str = "not stated"
    complaints: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Classes:
    """Numbers and names of the classes in a file; regions without a class have a class of their own, ``UNLABELLED``.

    Parameters
    ----------
    names : mapping of int to str
        Label → name, without -1.
    """

    names: Mapping[int, str]

    @property
    def unlabelled(self) -> int:
        """The number that stands for no class: 1, or the one above all others."""
        return max(self.names, default=0) + 1

    @property
    def numbered(self) -> dict[int, str]:
        """All of them by ascending number."""
        return {**dict(sorted(self.names.items())), self.unlabelled: UNLABELLED}

    @property
    def ordered(self) -> list[str]:
        """Their names, for formats that count classes from 0."""
        return list(self.numbered.values())

    def number(self, label: int) -> int:
        """The number of a region's class in the file."""
        return label if label >= 0 else self.unlabelled

    def name(self, label: int) -> str:
        """The name of a region's class."""
        return self.numbered[self.number(label)]

    def place(self, label: int) -> int:
        """The place of a region's class among ``ordered``."""
        return list(self.numbered).index(self.number(label))


def class_name(label: int, names: Mapping[int, str]) -> str:
    """The name of a label; 'class_3' where it has none."""
    return names.get(label, f"class_{label}")


def labels_of_names(names: list[str]) -> dict[str, int]:
    """Name of a class → label: -1 for ``UNLABELLED``, 3 for 'class_3', otherwise numbers from 1 in the order given."""
    labels = {name: int(match[1]) for name in names if (match := _NUMBERED.fullmatch(name))}
    taken, following = set(labels.values()), 1
    for name in names:
        if name == UNLABELLED:
            labels[name] = -1
        elif name not in labels:
            while following in taken:
                following += 1
            labels[name] = following
            taken.add(following)
    return labels


def inside(folder: Path, name: str, what: str) -> Path:
    """The path of a file below a folder; a name that leads out of it is refused. what: names the file in the error."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or any(part in ("..", "/") or ":" in part or "\0" in part for part in parts):
        raise BadData(f"{what} is named {name!a:.100}, which leads out of its folder. Rename it.")
    path = folder.joinpath(*parts)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BadData(f"{what} is named {name!a:.100}, which leads out of its folder by a link. Copy the file instead.")
    return path


def write_picture(folder: Path, image: MaskedImage) -> bool:
    """Write the picture below a folder, by its file name; False where there is none."""
    if image.picture is None:
        return False
    write_whole(inside(folder, image.file_name, f"the picture of image '{image.image_id}'"), image.picture())
    return True


def stem_of(file_name: str) -> str:
    """The id of an image: its file name without folders and ending."""
    return PurePosixPath(file_name.replace("\\", "/")).stem


def safe_split(image: MaskedImage, default: str) -> str:
    """The split of an image as part of a file's name."""
    inside(Path(), image.split or default, f"the split of image '{image.image_id}'")
    if "/" in image.split or "\\" in image.split:
        raise BadData(f"Image '{image.image_id}' is of the split {image.split!r}. Rename it without slashes.")
    return image.split or default
