"""Examples at the size that training needs: a reduced image, and its masks as atoms (see ``regions``), so that a window of any number of masks is one
indexing operation. And the row of a table that stores one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from uss_dagster.artifacts.reduced_pictures import decode_reduced, reduce_picture, reduced_size
from uss_dagster.regions import Regions
from uss_dagster.student.data import Example, Source

SCHEMA = pa.schema(
    [
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("atoms", pa.binary(), nullable=False),
        pa.field("members", pa.binary(), nullable=False),
        pa.field("human", pa.binary(), nullable=False),
    ]
)
"""One row an example. image: uint8, row by row. atoms: uint16, or int32 if they do not fit. members: bits, each mask
from a new byte on. human: a byte a mask."""


@dataclass(frozen=True)
class ReducedExample:
    """An example at reduced size, with its masks as atoms.

    Parameters
    ----------
    image : uint8 array of shape (h, w, 3)
    atoms : uint16 or int32 array of shape (h, w)
        The atom of each pixel.
    members : bool array of shape (K, A)
        Which atoms each mask has.
    human : bool array of shape (K,)
        Which masks a person drew.
    """

    image: np.ndarray
    atoms: np.ndarray
    members: np.ndarray
    human: np.ndarray

    @property
    def bytes(self) -> int:
        return self.image.nbytes + self.atoms.nbytes + self.members.nbytes


def reduce_example(example: Example, long: int) -> ReducedExample:
    """An example whose longer side has at most ``long`` pixels; masks are sampled at pixel centres, and those without a pixel are left out."""
    return _with_masks(reduce_picture(example.image, long), example.codes, example.human, example.shape, long)


def read_reduced(source: Source, index: int, long: int) -> ReducedExample:
    """``reduce_example`` of an example of a source. A file is decoded at the reduced scale, so its pixels differ a little."""
    if source.pictures is None:
        return reduce_example(source[index], long)
    image_id = source.ids[index]
    codes, human = source.masks(image_id)
    image, shape = decode_reduced(source.pictures.encoded(image_id), source.pictures.name(image_id), long)
    return _with_masks(image, tuple(codes), human, shape, long)


def _with_masks(image: np.ndarray, codes: tuple[bytes, ...], human: np.ndarray, shape: tuple[int, int], long: int) -> ReducedExample:
    regions = Regions.from_codes(codes, shape, size=reduced_size(shape, long))
    visible = regions.area > 0
    atoms = regions.atoms.astype(np.uint16) if regions.members.shape[1] <= 2**16 else regions.atoms
    return ReducedExample(np.ascontiguousarray(image), atoms, regions.members[visible], human[visible])


def to_row(example: ReducedExample) -> pa.Table:
    """A table of schema ``SCHEMA`` with one row."""
    arrays = (example.image, example.atoms, np.packbits(example.members, axis=1), example.human)
    values = [*example.atoms.shape, *(np.ascontiguousarray(array).tobytes() for array in arrays)]
    return pa.table([pa.array([value], field.type) for value, field in zip(values, SCHEMA, strict=True)], SCHEMA)


def from_row(table: pa.Table) -> ReducedExample:
    """The example in a table that ``to_row`` made."""
    height, width = (table[name][0].as_py() for name in SCHEMA.names[:2])
    image, atoms, members, human = (np.frombuffer(table[name][0].as_buffer(), np.uint8) for name in SCHEMA.names[2:])
    of_pixels = atoms.view(np.uint16 if atoms.size == 2 * height * width else np.int32).reshape(height, width)
    count = int(of_pixels.max()) + 1
    bits = np.unpackbits(members.reshape(len(human), -(-count // 8)), axis=1, count=count)
    return ReducedExample(image.reshape(height, width, 3), of_pixels, bits.view(bool), human.view(bool))
