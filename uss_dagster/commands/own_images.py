"""A person's own pictures: which files, under which names, and what a method sees of each.

Belongs here: what every command that takes pictures does alike. Does not belong here: what is made of them.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from uss_dagster import registry
from uss_dagster.artifacts.image_files import decode, find_images
from uss_dagster.artifacts.shards import worker_count
from uss_dagster.backbones.base import Encoder
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData, UsageError
from uss_dagster.report.explorer import FOLDER, PAGE, is_page

SIGNATURE = "uss segment"
"""The PNG text ``Software`` of every overlay: by it an overlay is known, and never taken for one of the pictures to segment."""
FEW = 4
"""Up to so many pictures are segmented in this process: starting workers would take longer."""


def pictures(paths: list[Path]) -> list[Path]:
    """The pictures given and those in the folders given, but for what earlier runs drew, which may lie in the same folders."""
    given = {p for p in paths if p.is_file()}
    found = find_images(paths)
    explorers = {folder for folder in {p.parent for p in found} if folder.name == FOLDER and is_page(folder.parent / PAGE)}
    files = [p for p in found if p in given or not (p.parent in explorers or is_overlay(p))]
    if not files:
        raise UsageError(
            f"All {len(found)} pictures in {', '.join(map(str, paths))} are overlays that `{SIGNATURE}` drew, or an explorer's; "
            f"there is nothing to segment."
        )
    return files


def is_overlay(path: Path) -> bool:
    if path.suffix.lower() != ".png":
        return False
    try:
        with Image.open(path) as picture:
            return bool(picture.info.get("Software") == SIGNATURE)
    except (OSError, SyntaxError, ValueError):
        return False


def ids_of(files: list[Path]) -> list[str]:
    """File stems, with a number where files share one (also when they differ in case only: not every disk tells 'A' from 'a')."""
    taken: set[str] = set()
    ids = []
    for path in files:
        stem = os.fsencode(path.stem).decode("utf-8", "replace")
        image_id, number = stem, 1
        while unicodedata.normalize("NFC", image_id).casefold() in taken:
            number += 1
            image_id = f"{stem}-{number}"
        taken.add(unicodedata.normalize("NFC", image_id).casefold())
        ids.append(image_id)
    return ids


def common_folder(files: list[Path]) -> Path:
    return Path(os.path.commonpath([p.absolute().parent for p in files]))


def relative_name(path: Path, folder: Path) -> str:
    """A file below a folder, with slashes; a name that is no text is made one."""
    return os.fsencode(os.path.relpath(path.absolute(), folder)).decode("utf-8", "replace").replace(os.sep, "/")


@dataclass(frozen=True)
class Reader:
    """What a method sees of a picture. Pickles, so that workers can be told. long_side: pixels that a picture is reduced to, 0 for none."""

    method: str
    encoder: Encoder | None
    long_side: int

    def read(self, path: Path) -> np.ndarray:
        """uint8 (H, W, 3), in its own size."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BadData(f"{path} cannot be read ({error.strerror}).") from None
        return decode(data, str(path))

    def sample(self, image_id: str, image: np.ndarray) -> Sample:
        """The picture reduced to the long side, with its features."""
        from uss_dagster.drawing import shrunk

        small = shrunk(image, self.long_side) if self.long_side else image
        needed = self.encoder is not None and registry.load("method", self.method).SPEC.needs
        return Sample(image_id, small, self.encoder([small])[0] if self.encoder and needed else None, self.encoder)

    def workers(self, pictures: int, jobs: int) -> int:
        """How many processes: one where there are few pictures, or where the backbone holds a device."""
        on_device = self.encoder is not None and registry.load("backbone", self.encoder.kind).SPEC.device
        return 1 if on_device or pictures <= FEW else worker_count(jobs)


@dataclass(frozen=True)
class Readable:
    """Samples of the pictures that can be read, for a method that looks at all of them first, as often as it wants."""

    named: list[tuple[str, Path]]
    reader: Reader

    def __len__(self) -> int:
        return len(self.named)

    def __iter__(self) -> Iterator[Sample]:
        for image_id, path in self.named:
            try:
                yield self.reader.sample(image_id, self.reader.read(path))
            except BadData:
                continue  # said when its turn comes
