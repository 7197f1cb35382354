"""Folders of label pictures: PNG files whose pixel values are labels, and what in them speaks against reading them so."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from uss_dagster.artifacts.image_files import PNG, open_picture
from uss_dagster.artifacts.mask_base import Masks, Shape
from uss_dagster.errors import BadData
from uss_dagster.pixels import distinct_values
from uss_dagster.regions import Regions
from uss_dagster.text import few

MOST_LABELS = 10_000
"""Regions of one label picture; a photograph has more values."""
BYTE, WORD = 255, 65535
"""The greatest values of pictures of 8 and of 16 bits, which often mean 'no label'."""
FEWEST_MIXED = 5
"""Values from which a picture can be told to be interpolated."""


@dataclass
class Seen:
    """What the pictures read so far hold.

    Parameters
    ----------
    interpolated : set of str
        Images whose values are mostly mixtures of others, see ``interpolated``.
    binary : set of str
        Images with 255 and no other value but 0.
    both : set of str
        Images with 254 beside 255, so that 255 is probably a label like any other.
    wide : set of str
        Images of 16 bits with 255 but not 254.
    zero : set of str
        Images with 0.
    most : int
        The greatest value that any picture can hold, 255 or 65535.
    """

    interpolated: set[str] = field(default_factory=set)
    binary: set[str] = field(default_factory=set)
    both: set[str] = field(default_factory=set)
    wide: set[str] = field(default_factory=set)
    zero: set[str] = field(default_factory=set)
    most: int = BYTE


class LabelPictures(Masks):
    """PNG pictures whose pixel values are labels: 8- or 16-bit grey, or indices into a palette. Every value but a void one is a region.

    Parameters
    ----------
    path : Path
        The folder.
    files : mapping
        Image id → file.
    void : collection of int, optional
        Values of no region. Default: None, the greatest that the picture's bits can hold, 255 or 65535.
    """

    def __init__(self, path: Path, files: Mapping[str, Path], void: Collection[int] | None = None) -> None:
        self.files, self.void, self.seen = dict(files), void, Seen()
        super().__init__(path, self.files, labelled=None)

    def values(self, image_id: str) -> tuple[np.ndarray, int]:
        """(int (H, W), as stored; the greatest value that its bits can hold, 255 or 65535)."""
        values, most = read_label_picture(self.files[image_id])
        present, _ = distinct_values(values)
        if len(present) > MOST_LABELS:
            raise BadData(
                f"{self.files[image_id]} holds {len(present):,} different values, more than {MOST_LABELS:,}; is it a label picture?"
            )
        labels = set(present.tolist())
        self.seen.most = max(self.seen.most, most)
        for images, holds in (
            (self.seen.interpolated, len(labels) >= FEWEST_MIXED and interpolated(values)),
            (self.seen.binary, BYTE in labels and labels <= {0, BYTE}),
            (self.seen.both, BYTE in labels and BYTE - 1 in labels),
            (self.seen.wide, most == WORD and BYTE in labels and BYTE - 1 not in labels),
            (self.seen.zero, 0 in labels),
        ):
            if holds:
                images.add(image_id)
        return values, most

    def regions(self, image_id: str, shape: Shape | None = None) -> Regions:
        values, most = self.values(image_id)
        return Regions.from_label_map(values, ignore=[most] if self.void is None else self.void, use_labels=True)

    def shape(self, image_id: str) -> Shape:
        with open_picture(self.files[image_id].read_bytes(), str(self.files[image_id])) as picture:
            return picture.height, picture.width

    def rules(self) -> Iterator[str]:
        void = self.greatest() if self.void is None else few(sorted(self.void))
        yield f"labels of {self.path}: {void + ' is no region; every other value is one' if void else 'every value is a region'}."

    def greatest(self) -> str:
        """The greatest value of the pictures read so far, in words."""
        return f"{BYTE} ({WORD} in 16-bit pictures)" if self.seen.most == WORD else str(BYTE)

    def complaints(self) -> Iterator[str]:
        yield from self.damaged()
        if self.void is not None:
            return
        if self.seen.binary:
            yield (
                f"{_pictures(self.seen.binary, self.path)} no value but 0 and 255, of which 255 was taken as no region. "
                "If 255 is the object, pass --pred-void none."
            )
        elif self.seen.both:
            yield f"{_pictures(self.seen.both, self.path)} 254 as well as 255, which was taken as no region. If it is one, pass --pred-void none."

    def damaged(self) -> Iterator[str]:
        """A sentence where pictures were interpolated or compressed with loss."""
        if self.seen.interpolated:
            yield (
                f"{_pictures(self.seen.interpolated, self.path)} mostly values that fill no square of 3 × 3 pixels, as resizing "
                "by interpolation or a JPEG leaves them. Make the labels again: resize by nearest neighbour, and write PNG."
            )


def _pictures(images: Collection[str], path: Path) -> str:
    return f"{len(images)} label pictures of {path} hold" if len(images) > 1 else f"Label picture '{next(iter(images))}' of {path} holds"


def interpolated(values: np.ndarray) -> bool:
    """Whether most values of a label map fill no square of 3 × 3 pixels: true labels do, mixtures of them where they meet seldom do."""
    if min(values.shape) < 3:
        return False
    low, high = values, values
    for _ in range(2):  # along columns, then rows
        low = np.minimum(np.minimum(low[2:], low[1:-1]), low[:-2]).T
        high = np.maximum(np.maximum(high[2:], high[1:-1]), high[:-2]).T
    return 2 * len(distinct_values(low[low == high])[0]) < len(distinct_values(values)[0])


def read_label_picture(path: Path) -> tuple[np.ndarray, int]:
    """(int (H, W), 255 or 65535 by its bits) of a label PNG: numbers of a grey picture, indices of one with a palette (never its colours)."""
    data = path.read_bytes()
    if not data.startswith(PNG):
        raise BadData(f"{path} is not a PNG picture. Remove it, or write it again.")
    with open_picture(data, str(path)) as picture:
        mode, values = picture.mode, np.asarray(picture)
    if mode not in ("1", "L", "P", "I") and not mode.startswith("I;16"):
        raise BadData(f"{path} is a colour picture ({mode}); a label picture has one number a pixel: 8- or 16-bit grey, or a palette.")
    depth = data[24]  # the PNG header's bits a sample
    numbers = values.astype(np.uint8 if values.dtype == bool else values.dtype.newbyteorder("="), copy=False)
    if mode == "L" and depth < 8:
        numbers = numbers // (BYTE // (2**depth - 1))  # Pillow spreads grey of few bits over 0..255
    return numbers, WORD if depth == 16 else BYTE
