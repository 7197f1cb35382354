"""The COCO file that ``uss annotate`` writes: instances with names, saved as a whole after each change, and read again by the next call.

Its ``images`` are those that are done or have an instance. What readers of COCO do not know lies below ``uss_annotate``: which images are done, in
their order, and masks that are not accepted yet. Images of the file that a later call does not name stay in it as they are.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from pycocotools import mask as coco

from uss_dagster.artifacts.mask_base import checked_json
from uss_dagster.errors import BadData, UsageError, UssError
from uss_dagster.files import write_whole
from uss_dagster.regions import rle
from uss_dagster.regions.coco import CocoAnnotation, CocoCategory, CocoImage, RunLengths, code_of

OWN_KEY, VERSION = "uss_annotate", 1
DESCRIPTION = "Instances that a person made with `uss annotate`."
LONGEST_NAME = 100
"""Characters of the name of a class."""


class Conflict(UssError):
    """A change is based on something that has changed since."""


@dataclass(frozen=True)
class Picture:
    """One image file.

    Parameters
    ----------
    image_id : str
        Its id, unique in this call.
    name : str
        Its path below the folder of the images: 'file_name' in the document.
    path : Path
        Its path.
    shape : tuple of int
        (height, width), upright.
    """

    image_id: str
    name: str
    path: Path
    shape: tuple[int, int]


@dataclass(frozen=True)
class Instance:
    """One instance. id: of its annotation. name: of its class. code: COCO run-length code, of the image's own size."""

    id: int
    name: str
    code: bytes


@dataclass(frozen=True)
class Draft:
    """A mask that is not accepted yet. instance: the id of the instance that it will replace, None for a new one."""

    code: bytes
    instance: int | None = None


@dataclass(frozen=True)
class Sheet:
    """All about one image.

    Parameters
    ----------
    instances : tuple of Instance
        In the order in which they were made.
    draft : Draft, optional
        A mask that is not accepted yet.
    revision : int
        Counts the changes of this call.
    """

    instances: tuple[Instance, ...] = ()
    draft: Draft | None = None
    revision: int = 0


class DraftRecord(TypedDict):
    """A draft in the file."""

    instance: int | None
    segmentation: RunLengths


class OwnRecord(TypedDict):
    """What lies below ``uss_annotate``. done: ids of the images that are done, in order. drafts: by image id."""

    version: int
    done: list[str]
    drafts: dict[str, DraftRecord]


class Document:
    """The annotations of some images. Every change is in the file when the method that makes it returns.

    Parameters
    ----------
    path : Path
        The file; it may not be there yet.
    pictures : sequence of Picture
        The images.
    classes : sequence of str
        Names that are offered before any is used. Default: none.

    Raises
    ------
    UsageError
        There is a file that `uss annotate` did not write.
    BadData
        The file is damaged, or of images of other sizes.
    """

    def __init__(self, path: Path, pictures: Sequence[Picture], classes: Sequence[str] = ()) -> None:
        self.path = path
        self.pictures = {picture.image_id: picture for picture in pictures}
        self.sheets = {picture.image_id: Sheet() for picture in pictures}
        self.done: list[str] = []
        self._images: dict[str, CocoImage] = {}
        self._others: list[CocoAnnotation] = []
        self._other_drafts: dict[str, DraftRecord] = {}
        self._categories: dict[str, int] = {}
        self._lock = threading.RLock()
        if path.exists():
            self._read()
        for name in classes:
            self._category(check_name(name))
        self._stamp = _stamp(path)

    @property
    def names(self) -> list[str]:
        """Names of classes, in the order of their ids."""
        return sorted(self._categories, key=lambda name: self._categories[name])

    def change(
        self,
        image_id: str,
        revision: int,
        instances: Iterable[tuple[int | None, str, bytes]],
        draft: Draft | None = None,
        done: bool = False,
    ) -> Sheet:
        """Replace the instances of an image.

        Parameters
        ----------
        image_id : str
            The image.
        revision : int
            The revision that the change is based on.
        instances : iterable
            Id (None for a new one), name and code of each.
        draft : Draft, optional
            A mask that is not accepted yet. Default: none.
        done : bool
            The image is finished. Default: False.

        Raises
        ------
        Conflict
            The image has changed since, or something else changed the file.
        """
        with self._lock:
            before = self.sheets[image_id]
            if revision != before.revision:
                raise Conflict("This image was changed in another window. Load the page again to go on from there.")
            if _stamp(self.path) != self._stamp:
                raise Conflict(f"{self.path} was changed by something else. Nothing was saved; start `uss annotate` again.")
            sheets, finished = dict(self.sheets), list(self.done)
            sheets[image_id] = Sheet(self._with_ids(image_id, instances), draft, revision + 1)
            if done != (image_id in finished):
                finished = [*finished, image_id] if done else [other for other in finished if other != image_id]
            self._write(sheets, finished)
            self.sheets, self.done = sheets, finished
            return sheets[image_id]

    def _with_ids(self, image_id: str, instances: Iterable[tuple[int | None, str, bytes]]) -> tuple[Instance, ...]:
        """The instances with ids that no other image uses."""
        rows = list(instances)
        taken = {instance.id for other, sheet in self.sheets.items() if other != image_id for instance in sheet.instances}
        taken |= {record["id"] for record in self._others}
        following = max((*taken, *(number for number, _, _ in rows if number)), default=0) + 1
        numbered: list[Instance] = []
        for number, name, code in rows:
            if number is None or number < 1 or number in taken:
                number, following = following, following + 1
            taken.add(number)
            numbered.append(Instance(number, check_name(name), code))
        return tuple(numbered)

    # -- the file -------------------------------------------------------------------------------------------------

    def _write(self, sheets: dict[str, Sheet], done: Sequence[str]) -> None:
        for image_id, sheet in sheets.items():
            if (sheet.instances or image_id in done) and image_id not in self._images:
                number = max((int(image["id"]) for image in self._images.values()), default=0) + 1
                self._images[image_id] = _image_record(self.pictures[image_id], number)
        listed = [self._images[i] for i in self._images if i not in sheets or sheets[i].instances or i in done]
        annotations = list(self._others)
        for image_id, sheet in sheets.items():
            annotations += [self._annotation(instance, image_id) for instance in sheet.instances]
        categories: list[CocoCategory] = [{"id": number, "name": name} for name, number in self._categories.items()]
        drafts = self._other_drafts | {i: self._draft_record(sheet.draft, i) for i, sheet in sheets.items() if sheet.draft}
        content = {
            "info": {"description": DESCRIPTION},
            "images": listed,
            "annotations": sorted(annotations, key=lambda record: record["id"]),
            "categories": sorted(categories, key=lambda record: record["id"]),
            OWN_KEY: OwnRecord(version=VERSION, done=list(done), drafts=drafts),
        }
        write_whole(self.path, json.dumps(content, ensure_ascii=False) + "\n")
        self._stamp = _stamp(self.path)

    def _annotation(self, instance: Instance, image_id: str) -> CocoAnnotation:
        height, width = self.pictures[image_id].shape
        coded = rle.coco_codes([instance.code], (height, width))[0]
        segmentation: RunLengths = {"size": [height, width], "counts": instance.code.decode("ascii")}
        return {
            "id": instance.id,
            "image_id": int(self._images[image_id]["id"]),
            "category_id": self._category(instance.name),
            "iscrowd": 0,
            "area": int(coco.area(coded)),
            "bbox": coco.toBbox(coded).astype(int).tolist(),
            "segmentation": segmentation,
        }

    def _draft_record(self, draft: Draft, image_id: str) -> DraftRecord:
        return {
            "instance": draft.instance,
            "segmentation": {"size": [*self.pictures[image_id].shape], "counts": draft.code.decode("ascii")},
        }

    def _category(self, name: str) -> int:
        """The id of a class, a new one where the name is new."""
        return self._categories.setdefault(name, max(self._categories.values(), default=0) + 1)

    def _read(self) -> None:
        content = checked_json(self.path)
        if not isinstance(content, dict) or not isinstance(content.get(OWN_KEY), dict):
            raise UsageError(f"{self.path} is there already, and `uss annotate` did not write it. Choose another file with --out.")
        try:
            own: OwnRecord = content[OWN_KEY]
            self._categories = {str(category["name"]): int(category["id"]) for category in content["categories"]}
            self._images = {str(image["image_id"]): image for image in content["images"]}
            self.done = [str(image_id) for image_id in own["done"]]
            self._read_annotations(content["annotations"])
            for image_id, draft in own["drafts"].items():
                if image_id in self.sheets:
                    code = self._code(draft["segmentation"], image_id, "the mask that is not accepted yet")
                    self.sheets[image_id] = replace(self.sheets[image_id], draft=Draft(code, draft["instance"]))
                else:
                    self._other_drafts[image_id] = draft
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadData(
                f"{self.path} is damaged ({type(error).__name__}: {error}). Take an earlier copy, or another file with --out."
            ) from error

    def _read_annotations(self, records: Sequence[CocoAnnotation]) -> None:
        image_of = {image["id"]: image_id for image_id, image in self._images.items()}
        name_of = {number: name for name, number in self._categories.items()}
        for image_id, image in self._images.items():
            if image_id in self.pictures and (image["height"], image["width"]) != self.pictures[image_id].shape:
                height, width = self.pictures[image_id].shape
                raise BadData(
                    f"{self.path}: image '{image_id}' is {image['height']}×{image['width']} there, and {height}×{width} now "
                    "(height×width). Choose another file with --out."
                )
        for record in records:
            image_id = image_of[int(record["image_id"])]
            if image_id not in self.sheets:
                self._others.append(record)
                continue
            code = self._code(record["segmentation"], image_id, f"annotation {record['id']}")
            instance = Instance(int(record["id"]), name_of[record["category_id"]], code)
            self.sheets[image_id] = replace(self.sheets[image_id], instances=(*self.sheets[image_id].instances, instance))

    def _code(self, segmentation: RunLengths | list[list[float]], image_id: str, what: str) -> bytes:
        height, width = self.pictures[image_id].shape
        code = code_of(segmentation, height, width, f"{self.path}: image '{image_id}', {what}")
        rle.decode(code, height, width)  # refuses what does not cover the image
        return code


def check_name(name: str) -> str:
    """The name of a class without spaces at its ends; refused where it is empty, too long, or does not print."""
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise UsageError(f"The name of a class has 1 to {LONGEST_NAME} characters that print, got {name[:LONGEST_NAME]!r}.")
    return name


def _image_record(picture: Picture, number: int) -> CocoImage:
    height, width = picture.shape
    return {"id": number, "file_name": picture.name, "height": height, "width": width, "image_id": picture.image_id}


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
