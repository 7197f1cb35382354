"""A person's own images: finding the files, naming them, reading them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from uss_dagster.artifacts.image_files import SUFFIXES, find_images, images_not_read, read_picture, written_by
from uss_dagster.artifacts.shards import worker_count
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData, UsageError
from uss_dagster.report.explorer import FOLDER, PAGE, is_page
from uss_dagster.segmenter import Segmenter
from uss_dagster.text import few

SIGNATURE = "uss segment"
"""The PNG text ``Software`` of every overlay: it tells overlays from the images to segment."""
FEW = 4
"""Up to this number of images are segmented in this process: starting workers would take longer."""


def pictures(paths: list[Path]) -> list[Path]:
    """The image files named, and those in the folders named except what earlier runs drew, which can lie in the same folders."""
    named = {path for path in paths if path.is_file()}
    files = find_images(paths)
    explorers = {folder for folder in {path.parent for path in files} if folder.name == FOLDER and is_page(folder.parent / PAGE)}
    own = [path for path in files if path in named or not (path.parent in explorers or is_overlay(path))]
    if not own:
        raise UsageError(
            f"All {len(files)} pictures in {', '.join(map(str, paths))} are overlays that `{SIGNATURE}` drew, or an explorer's; "
            f"there is nothing to segment."
        )
    return own


def report_not_read(paths: list[Path], report_failure: Callable[[str], None]) -> None:
    """Name the picture files in folders whose format is not read."""
    if names := [str(path) for path in images_not_read(paths)]:
        report_failure(f"not read: {few(names)}; of folders, only {', '.join(SUFFIXES)} are read. Convert them to PNG or JPEG.")


def is_overlay(path: Path, program: str = SIGNATURE) -> bool:
    """Whether ``uss segment``, or another program of this package, drew an image."""
    return written_by(path) == program


def ids_of(files: list[Path]) -> list[str]:
    """File stems; with the ending where files of one stem have several, and a number where files share both.

    Names that differ in case only count as one: some disks do not tell 'A' from 'a'.
    """
    endings: dict[str, set[str]] = {}
    for path in files:
        endings.setdefault(_folded(_text(path.stem)), set()).add(_folded(path.suffix))
    taken: set[str] = set()
    ids = []
    for path in files:
        stem, number = _text(path.stem), 1
        ending = path.suffix if len(endings[_folded(stem)]) > 1 else ""
        image_id = stem + ending
        while _folded(image_id) in taken:
            number += 1
            image_id = f"{stem}-{number}{ending}"
        taken.add(_folded(image_id))
        ids.append(image_id)
    return ids


def _text(name: str) -> str:
    """A file's name; bytes that are no UTF-8 are replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def common_folder(files: list[Path]) -> Path:
    return Path(os.path.commonpath([path.absolute().parent for path in files]))


def relative_name(path: Path, folder: Path) -> str:
    """The path below a folder, with slashes; bytes that are no UTF-8 are replaced."""
    return _text(os.path.relpath(path.absolute(), folder)).replace(os.sep, "/")


def check_out_folder(out: Path) -> None:
    """Refuse an output path that is, or lies below, a file."""
    existing = next(path for path in (out, *out.absolute().parents) if path.exists() or path.is_symlink())
    if not existing.is_dir():
        raise UsageError(f"--out {out}: {existing} is a file. Name a folder; it is made if it is not there.")


def process_count(segmenter: Segmenter, images: int) -> int:
    """Worker processes to use: one for few images, or where the backbone runs on a device."""
    return 1 if segmenter.on_device or images <= FEW else worker_count(images)


@dataclass(frozen=True)
class ReadableSamples:
    """Samples of all images that can be read, for ``Segmenter.fit``. named: (id, file) of each image."""

    named: list[tuple[str, Path]]
    segmenter: Segmenter

    @property
    def ids(self) -> list[str]:
        return [image_id for image_id, _ in self.named]

    def __len__(self) -> int:
        return len(self.named)

    def __iter__(self) -> Iterator[Sample]:
        for image_id, path in self.named:
            try:
                image = read_picture(path)
            except BadData:
                continue  # reported when this image is segmented
            yield self.segmenter.sample(image_id, image)
