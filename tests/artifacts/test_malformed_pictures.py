"""Malformed picture files: each is read, or refused in one sentence that names it."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from projects import SOURCE, Project

from uss_dagster.artifacts.image_files import PNG, decode
from uss_dagster.errors import BadData

FORMATS = {"bmp": "BMP", "jpg": "JPEG", "png": "PNG", "tif": "TIFF", "webp": "WEBP"}
SIZE = (40, 60)
"""Height and width of the whole picture that is damaged."""


def whole(kind: str) -> bytes:
    """A picture of noise in this format: damage at any place hits what was drawn."""
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(picture).save(out, FORMATS[kind], **({"compression": "tiff_lzw"} if kind == "tif" else {}))
    return out.getvalue()


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) if crc is None else crc)


def png(width: int, height: int, depth: int = 8, colours: int = 2, data: bytes = b"", more: bytes = b"") -> bytes:
    """A PNG file with this header, whatever its pixels are."""
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def damaged() -> Iterator[tuple[str, bytes]]:
    """Each format cut short, with bytes changed at the start, in the middle and at the end, with zeros inside, and after other bytes."""
    for kind in FORMATS:
        data = whole(kind)
        for share in (0.02, 0.1, 0.5, 0.9, 0.999):
            yield f"cut_{share}.{kind}", data[: int(share * len(data))]
        for place in (0, 5, 17, len(data) // 3, len(data) - 9):
            yield f"flipped_{place}.{kind}", data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :]
        middle = len(data) // 2
        yield f"zeros.{kind}", data[:middle] + bytes(400) + data[middle + 400 :]
        yield f"late_start.{kind}", b"\n\n" + data
        yield f"header_of_ones.{kind}", data[:4] + b"\xff" * 24 + data[28:]


def crafted() -> Iterator[tuple[str, bytes]]:
    """Files that somebody wrote by hand: false sizes, bombs, loops, other formats under this name."""
    row = b"\0" + bytes(30)
    yield "empty.png", b""
    yield "text.jpg", b"not a picture"
    yield "web_page.png", b"<!DOCTYPE html><html>Sign in</html>"
    yield "only_a_signature.png", PNG
    yield "no_pixels.png", png(0, 0)
    yield "no_rows.png", png(10, 0)
    yield "two_billion_wide.png", png(2**31 - 1, 1)
    yield "bomb.png", png(100_000, 100_000)
    yield "at_the_limit.png", png(13_377, 13_377, data=bytes(1000))
    yield "bit_depth_3.png", png(10, 10, depth=3)
    yield "unknown_colours.png", png(10, 10, colours=5)
    yield "palette_without_colours.png", png(30, 10, colours=3, data=row * 10)
    yield "too_few_rows.png", png(10, 10, data=row * 3)
    yield "too_many_rows.png", png(10, 10, data=row * 300)
    yield "wrong_filter.png", png(10, 10, data=(b"\x09" + bytes(30)) * 10)
    yield "wrong_checksum.png", PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 10, 8, 2, 0, 0, 0), crc=1)
    yield "text_bomb.png", png(10, 10, data=row * 10, more=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000))))
    yield "profile_of_noise.png", png(10, 10, data=row * 10, more=chunk(b"iCCP", b"a\0\0" + zlib.compress(b"noise" * 100)))
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01"
    for name, orientation in {"orientation_0": 0, "orientation_9": 9, "orientation_65535": 65535}.items():
        block = exif + struct.pack(">HH", orientation, 0) + bytes(4)
        yield f"{name}.jpg", b"\xff\xd8\xff\xe1" + struct.pack(">H", len(block) + 2) + block + whole("jpg")[2:]
    yield "exif_cut.jpg", b"\xff\xd8\xff\xe1\x00\x20Exif\0\0MM\0*" + whole("jpg")[2:]
    yield "false_segment_length.jpg", b"\xff\xd8\xff\xe0\xff\xff" + whole("jpg")[4:]
    yield "loop_of_directories.tif", b"II*\0\x08\0\0\0\0\0\x08\0\0\0"
    yield "directory_far_away.tif", b"II*\0\xff\xff\xff\x7f"
    yield "million_tags.tif", b"II*\0\x08\0\0\0\xff\xff" + bytes(100)
    yield "negative_height.bmp", whole("bmp")[:22] + struct.pack("<i", -(2**31)) + whole("bmp")[26:]
    yield "false_offset.bmp", whole("bmp")[:10] + struct.pack("<I", 2**31) + whole("bmp")[14:]
    yield "riff_only.webp", b"RIFF\xff\xff\xff\xffWEBPVP8 "


FILES = dict([*damaged(), *crafted()])


def is_read(name: str) -> bool:
    """Whether a file decodes; otherwise one printable sentence names it."""
    try:
        picture = decode(FILES[name], name)
    except BadData as error:
        said = str(error)
        assert said.startswith(name)
        assert said.isprintable()
        assert said.endswith(".")
        return False
    assert picture.dtype == np.uint8
    assert picture.shape[2:] == (3,)
    assert picture.size
    return True


def test_there_are_more_than_eighty():
    assert len(FILES) > 80


@pytest.mark.parametrize("name", FILES)
def test_read_or_refused(name: str):
    tracemalloc.start()
    try:
        is_read(name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60_000_000, "what Python allocates; Pillow itself is held to MAX_PIXELS"
    if name.startswith(("cut_0.02", "cut_0.1.", "late_start")):
        assert not is_read(name), "a picture that is not there"


@pytest.mark.slow
def test_a_folder_of_them(tmp_path):
    """One run of the program names each that it cannot read and segments the rest."""
    folder = tmp_path / "p"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    readable = {name for name in FILES if is_read(name)}
    done = Project(tmp_path, {"PYTHONPATH": str(SOURCE)}).uss("segment", "p", "-m", "felzenszwalb", "--param", "scales=1", code=65)
    lines = done.stderr.splitlines()
    assert lines[-1].startswith(f"error: {len(FILES) - len(readable)} of {len(FILES)} pictures could not be used")
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    left_out = Counter(name for line in lines for name in FILES if f"left out: p/{name} " in line)
    assert left_out == Counter(set(FILES) - readable)
