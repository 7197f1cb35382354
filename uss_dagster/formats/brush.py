"""Label Studio's code of brush masks: bits of runs over the red, green, blue and alpha of each pixel, row by row.

A code begins with the number of values (32 bits), the bits of a value less 1 (5), and four sizes of counts in bits, less 1 (4 each). Then comes,
until all values are there: a bit that says whether one value is repeated, the number of a size (2), the count less 1 in that size, and the value,
or as many values as the count says. Label Studio took it from the package ``rle-pack`` of thi.ng/umbrella.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uss_dagster.artifacts.image_files import MAX_PIXELS
from uss_dagster.errors import BadData

CHANNELS = 4
OPAQUE = 255
_SIZES = (3, 4, 8, 16)
_MOST = 1 << _SIZES[-1]


def encode_brush(mask: np.ndarray) -> list[int]:
    """The bytes of a mask, bool (H, W); its pixels are 255 in all four channels."""
    flat = mask.ravel()
    start = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    lengths = np.diff(start, append=flat.size) * CHANNELS
    words = [f"{flat.size * CHANNELS:032b}{7:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for inside, length in zip(flat[start].tolist(), lengths.tolist(), strict=True):
        value = f"{OPAQUE if inside else 0:08b}"
        while length > _MOST:
            words.append(_count(_MOST) + value)
            length -= _MOST
        words.append(_count(length) + value)
    bits = "".join(words)
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8, "big"))


def _count(length: int) -> str:
    """The bits of a repetition, without its value."""
    place = next(place for place, size in enumerate(_SIZES) if length <= 1 << size)
    return f"1{place:02b}{length - 1:0{_SIZES[place]}b}"


def decode_brush(code: Sequence[int], height: int, width: int, what: str) -> np.ndarray:
    """The mask of a code, bool (H, W): where alpha is above 0. what: names the region in errors."""
    try:
        data = bytes(code)
    except (TypeError, ValueError):
        raise BadData(f"{what}: its brush mask is no list of bytes.") from None
    if height * width > MAX_PIXELS:
        raise BadData(f"{what}: its image has {height}×{width} pixels, more than {MAX_PIXELS:,}. Scale it down first.")
    bits = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}" if data else ""
    try:
        values = _values(bits, height * width * CHANNELS)
    except ValueError as error:
        raise BadData(f"{what}: its brush mask cannot be read ({error}).") from None
    return values.reshape(height, width, CHANNELS)[:, :, -1] > 0


def _values(bits: str, expected: int) -> np.ndarray:
    number, bits_of_value = int(bits[:32], 2), int(bits[32:37], 2) + 1
    if number != expected:
        raise ValueError(f"it has {number} values, its image {expected}")
    if bits_of_value != 8:
        raise ValueError(f"a value has {bits_of_value} bits, 8 are expected")
    sizes = [int(bits[i : i + 4], 2) + 1 for i in range(37, 53, 4)]
    values = np.zeros(number, np.uint8)
    at, place = 53, 0
    while place < number:
        size = sizes[int(bits[at + 1 : at + 3], 2)]
        count = int(bits[at + 3 : at + 3 + size], 2) + 1
        repeated = bits[at] == "1"
        at += 3 + size
        end = at + 8 * (1 if repeated else count)
        if place + count > number or end > len(bits):
            raise ValueError("it ends too early, or holds too many values")
        values[place : place + count] = np.frombuffer(int(bits[at:end], 2).to_bytes((end - at) // 8, "big"), np.uint8)
        at, place = end, place + count
    return values
