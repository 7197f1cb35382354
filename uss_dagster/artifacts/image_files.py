"""Encoded pictures as arrays, arrays reduced in size, and folders of pictures as lists of files."""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from uss_dagster.errors import BadData, UsageError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_ORIENTATION = 0x0112
_FILTERS = threading.Lock()
PNG = b"\x89PNG\r\n\x1a\n"
"""How a PNG file begins."""
MAX_PIXELS = 178_956_970
"""Pillow takes a picture that declares more pixels for a decompression bomb: 540 MB as an array."""
NOT_READ = (".avif", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".svg", ".psd", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".raf", ".raw")
"""Endings of picture files that folders are not searched for."""


def decode(data: bytes, name: str, most: int = MAX_PIXELS) -> np.ndarray:
    """uint8 (H, W, 3), RGB, upright, of any encoded picture; ``name`` is the file that an error speaks of. most: pixels that it may have.

    Transparency is laid on white, 16-bit grey is scaled to 8 bits, and the EXIF orientation is applied. The first
    frame stands for an animation.
    """
    with open_picture(data, name) as picture:
        if picture.width * picture.height > most:
            raise BadData(f"{name} has {picture.width}×{picture.height} pixels, more than {most:,}. Scale it down first.")
        picture.load()
        return upright_rgb(picture, name)


def upright_rgb(picture: Image.Image, name: str) -> np.ndarray:
    """What ``decode`` gives for a picture that Pillow has loaded."""
    upright = ImageOps.exif_transpose(picture)
    if 0 in upright.size:
        raise BadData(f"{name} has no pixels ({upright.width}×{upright.height}). Remove it.")
    return np.ascontiguousarray(np.asarray(to_rgb(upright)))


def read_picture(path: Path, name: str | None = None) -> np.ndarray:
    """``decode`` of a file; name: what an error calls it, its path by default."""
    return decode(read_file(path, name), name or str(path))


def read_file(path: Path, name: str | None = None) -> bytes:
    """The bytes of a file; name: what an error calls it, its path by default."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadData(f"{name or path} cannot be read ({error.strerror}).") from None


def written_by(path: Path) -> str:
    """The program that a PNG file names (the text ``Software``); empty where it names none, or cannot be read."""
    if path.suffix.lower() != ".png":
        return ""
    try:
        with open(path, "rb") as file, open_picture(file, str(path)) as picture:
            return str(picture.info.get("Software", ""))
    except (OSError, BadData):
        return ""


def measure(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) that ``decode`` will give, after reading the file to its end: what would not decode is refused here.

    A JPEG is read at an eighth of its size, which takes every code in it but only one in 64 inverse transforms: less than half the time.
    """
    with open_picture(data, name) as picture:
        height, width = upright_size(picture)
        picture.draft(None, (1, 1))
        picture.load()
    if 0 in (height, width):
        raise BadData(f"{name} has no pixels ({width}×{height}). Remove it.")
    return height, width


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """(height, width) of an open picture, turned as its EXIF orientation says. Pillow turns a TIFF file itself."""
    turned = picture.format != "TIFF" and picture.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    return picture.size if turned else picture.size[::-1]


@contextmanager
def open_picture(data: bytes | BinaryIO, name: str) -> Iterator[Image.Image]:
    """An open picture of reasonable size; what Pillow raises, here or while it is read, becomes one sentence."""
    if not data:
        raise BadData(f"{name} is empty (0 bytes); a picture was expected. Copy or download it again.")
    try:
        with _FILTERS, warnings.catch_warnings():  # the list of filters belongs to all threads
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of half the limit
            opened = Image.open(io.BytesIO(data) if isinstance(data, bytes) else data)
        with opened as picture:
            yield picture
    except Image.DecompressionBombError as error:
        raise BadData(f"{name} declares more than {MAX_PIXELS:,} pixels. Scale it down first.") from error
    except Image.UnidentifiedImageError as error:
        raise BadData(f"{name} is not a picture that Pillow can read. Remove it, or convert it to PNG or JPEG.") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError) as error:  # what Pillow raises on broken files
        raise BadData(f"{name} is truncated or damaged ({error}). Copy or download it again.") from error


def to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        values = np.asarray(picture).astype(np.float64)
        # 16-bit files span 0..65535; a file of small values in a wide mode is already on the 8-bit scale.
        wide = picture.mode.startswith("I;16") or values.max() > 255
        grey = np.clip(np.round(values / 257 if wide else values), 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if picture.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info:
        above = picture.convert("RGBA")
        white = Image.new("RGBA", above.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, above).convert("RGB")
    return picture.convert("RGB")


def encode_png(rgb: np.ndarray) -> bytes:
    """PNG bytes of uint8 (H, W, 3); the same array gives the same bytes."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise BadData(f"encode_png takes uint8 (H, W, 3), got {rgb.dtype} {rgb.shape}.")
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "PNG", compress_level=6)
    return out.getvalue()


def shrunk(image: np.ndarray, longest: int) -> np.ndarray:
    """The image with its longer side at most ``longest`` pixels."""
    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """The picture files among ``paths`` and below the folders among them, each once, in natural order (2 before 10).

    Links to files that are not there are among them, so that who reads them says so.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(_files_of(path, SUFFIXES), key=_natural)
            if not inside:
                raise UsageError(f"Folder {path} holds no images. These suffixes count: {', '.join(SUFFIXES)}.")
            found.update(dict.fromkeys(inside))
        elif path.is_file():
            found[path] = None
        else:
            raise UsageError(f"{path} does not exist. Pass image files, or folders that hold some.")
    if not found:
        raise UsageError("No images were given. Pass image files, or folders that hold some.")
    return sorted(found, key=_natural)


def images_not_read(paths: Iterable[str | Path]) -> list[Path]:
    """The picture files below the folders among ``paths`` that ``find_images`` leaves out for their format."""
    return sorted((file for path in map(Path, paths) if path.is_dir() for file in _files_of(path, NOT_READ)), key=_natural)


def _files_of(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.suffix.lower() in suffixes and (path.is_file() or (path.is_symlink() and not path.exists())) and not _hidden(path, folder):
            yield path


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _natural(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Runs of digits compare as numbers; the plain text breaks ties."""
    text = path.as_posix()
    pieces = re.findall(r"\d+|\D+", text)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in pieces], text
