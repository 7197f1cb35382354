"""What the page of ``uss annotate`` shows and changes: images by number, their candidates, their instances, and the ranking.

Masks travel as run lengths (off, on, off, …) down the columns, at the size at which an image is shown. A mask that the page did not change comes back by
its name alone, and keeps every pixel of the image's own size.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypedDict

import numpy as np
from PIL import Image

from uss_dagster.annotation.document import Document, Draft, Picture
from uss_dagster.annotation.entries import Entries
from uss_dagster.annotation.order import Order
from uss_dagster.annotation.pool import MOST_ENTRIES, Pool, pool_of
from uss_dagster.annotation.progress import Progress, Ranking
from uss_dagster.artifacts.image_files import read_picture, shrunk
from uss_dagster.errors import UsageError
from uss_dagster.hashing import sha256_of
from uss_dagster.pixels import nearest
from uss_dagster.regions import rle

LONGEST = 1600
"""Greatest number of pixels on the longer side of images, as shown and worked on."""
POOLS = 8
"""How many images' candidates are in memory at most."""
MOST_INSTANCES = 2000
"""In one image."""


class ShownMask(TypedDict):
    """A mask of the page. mask: its name. runs: its run lengths."""

    mask: str
    runs: list[int]


class ShownInstance(ShownMask):
    """An instance. id: of its annotation. name: of its class."""

    id: int
    name: str


class ShownImage(TypedDict):
    """An image in the list of the page."""

    number: int
    name: str
    done: bool
    instances: int
    size: list[int]


@dataclass
class Workbench:
    """The images of the page by number, in the order in which they are asked for.

    Parameters
    ----------
    document : Document
        The annotations.
    entries : Entries
        The regions that are offered and ranked.
    order : Order
        Which image comes next.
    progress : Progress
        The ranking so far.
    """

    document: Document
    entries: Entries
    order: Order
    progress: Progress
    pictures: list[Picture] = field(init=False)
    _pools: OrderedDict[int, Pool] = field(default_factory=OrderedDict)
    _codes: dict[str, bytes] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.pictures = [self.document.pictures[image_id] for image_id in self.order.ids]

    def listing(self) -> dict[str, object]:
        """All images in their order, the names of classes, and the name of the file."""
        images: list[ShownImage] = []
        for number, picture in enumerate(self.pictures):
            done, count = picture.image_id in self.document.done, len(self.document.sheets[picture.image_id].instances)
            images.append({"number": number, "name": picture.name, "done": done, "instances": count, "size": list(picture.shape[::-1])})
        return {"images": images, "names": self.document.names, "file": self.document.path.name, "entries": list(self.entries.names)}

    def jpeg(self, number: int, side: int) -> bytes:
        """An image as JPEG, its longer side at most ``side`` and ``LONGEST`` pixels."""
        picture, stream = self._picture(number), io.BytesIO()
        image = shrunk(read_picture(picture.path, picture.name), max(16, min(side, LONGEST)))
        Image.fromarray(image).save(stream, "JPEG", quality=90)
        return stream.getvalue()

    def sheet(self, number: int) -> dict[str, object]:
        """The instances of an image."""
        picture = self._picture(number)
        sheet = self.document.sheets[picture.image_id]
        height, width = shown_shape(picture.shape)
        instances: list[ShownInstance] = [
            {"id": instance.id, "name": instance.name, **self._shown(instance.code, picture)} for instance in sheet.instances
        ]
        draft = sheet.draft and {"instance": sheet.draft.instance, **self._shown(sheet.draft.code, picture)}
        done = picture.image_id in self.document.done
        return {"width": width, "height": height, "revision": sheet.revision, "done": done, "instances": instances, "draft": draft}

    def pool(self, number: int) -> bytes:
        """The candidates of an image, see ``packed``."""
        with self._lock:
            if number not in self._pools:
                picture = self._picture(number)
                families = [self.entries.regions(entry, picture.image_id, picture.shape) for entry in self.entries.names[:MOST_ENTRIES]]
                self._pools[number] = pool_of([family for family in families if len(family)], shown_shape(picture.shape))
                while len(self._pools) > POOLS:
                    self._pools.popitem(last=False)
            self._pools.move_to_end(number)
            return packed(self._pools[number])

    def change(self, number: int, value: object) -> dict[str, object]:
        """Save what the page says of an image; returns its revision, and the id and the name of the mask of each instance."""
        picture = self._picture(number)
        change = _mapping(value)
        revision, done = change.get("revision"), change.get("done")
        rows = change.get("instances")
        if not isinstance(revision, int) or not isinstance(done, bool) or not isinstance(rows, list) or len(rows) > MOST_INSTANCES:
            raise UsageError(f"A change has a revision, 'done', and at most {MOST_INSTANCES} instances.")
        instances = []
        for row in map(_mapping, rows):
            name = row.get("name")
            if not isinstance(name, str):
                raise UsageError("An instance has a name.")
            code = self._code(row, picture)
            if not rle.areas([code], *picture.shape)[0]:
                raise UsageError("An instance has at least one pixel.")
            instances.append((_id_of(row.get("id")), name, code))
        draft = change.get("draft")
        masked = None if draft is None else Draft(self._code(_mapping(draft), picture), _id_of(_mapping(draft).get("instance")))
        sheet = self.document.change(picture.image_id, revision, instances, masked, done)
        named = [{"id": instance.id, "mask": self._named(instance.code)} for instance in sheet.instances]
        return {"revision": sheet.revision, "instances": named, "names": self.document.names}

    def ranking(self) -> dict[str, object]:
        """The ranking after each image that is done."""
        pictures, sheets = self.document.pictures, dict(self.document.sheets)
        done = [(i, sheets[i], pictures[i].shape) for i in list(self.document.done) if i in sheets]
        history = self.progress.history(done, len(sheets) - len(done))
        return {"now": _plain(history[-1]), "history": [_plain(ranking) for ranking in history], "margin": self.progress.margin}

    def _picture(self, number: int) -> Picture:
        if not 0 <= number < len(self.pictures):
            raise KeyError(number)
        return self.pictures[number]

    def _named(self, code: bytes) -> str:
        name = sha256_of(code)[:16]
        self._codes[name] = code
        return name

    def _shown(self, code: bytes, picture: Picture) -> ShownMask:
        shape = shown_shape(picture.shape)
        runs = rle.runs(code if shape == picture.shape else rle.encode(nearest(rle.decode(code, *picture.shape), *shape)[None])[0])
        return {"mask": self._named(code), "runs": runs.tolist()}

    def _code(self, row: Mapping[str, object], picture: Picture) -> bytes:
        """The code of a mask, by its name, or from its run lengths."""
        name, runs, shape = row.get("mask"), row.get("runs"), shown_shape(picture.shape)
        if isinstance(name, str):
            if name not in self._codes or rle.code_length(self._codes[name]) != picture.shape[0] * picture.shape[1]:
                raise UsageError("That mask is not known here. Load the page again.")
            return self._codes[name]
        pixels = shape[0] * shape[1]
        if not isinstance(runs, list) or not all(type(run) is int and 0 <= run <= pixels for run in runs) or sum(runs) != pixels:
            raise UsageError(f"A mask has run lengths that add up to {pixels} pixels.")
        code = rle.encode_runs(np.array(runs, np.int64))
        return code if shape == picture.shape else rle.encode(nearest(rle.decode(code, *shape), *picture.shape)[None])[0]


def shown_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """(height, width) at which an image of ``shape`` is shown; that of ``shrunk``."""
    scale = min(1.0, LONGEST / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def packed(pool: Pool) -> bytes:
    """Candidates for the page, in words of four bytes, the lowest byte first.

    Width, height, number of atoms A, of candidates K, and of places in chains N; the atom of each pixel row by row; A + 1 starts of chains; N candidates
    of the chains one after the other; A places at which a click begins; K qualities (float32).
    """
    height, width = pool.regions.shape
    count, atoms = pool.regions.members.shape
    atom, candidate = np.nonzero(pool.regions.members.T)
    starts = np.searchsorted(atom, np.arange(atoms + 1))
    whole = [np.array([width, height, atoms, count, len(atom)]), pool.regions.atoms.ravel(), starts, candidate, pool.start]
    return b"".join(part.astype("<i4").tobytes() for part in whole) + pool.quality.astype("<f4").tobytes()


def _plain(ranking: Ranking) -> dict[str, object]:
    """For JSON, which has no NaN."""
    plain: Sequence[dict[str, object]] = [asdict(ranking), *map(asdict, ranking.standings)]
    for values in plain:
        values.update({name: None for name, value in values.items() if value != value})
    return {**plain[0], "standings": plain[1:]}


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise UsageError("A JSON object is expected.")
    return value


def _id_of(value: object) -> int | None:
    if value is not None and (type(value) is not int or not 0 < value < 2**31):
        raise UsageError(f"The id of an instance is a whole number above 0, got {value!r:.40}.")
    return value
