"""YOLO segmentation, as Ultralytics trains on it: a text file an image, a line a region, its class and one polygon in shares of width and height."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from uss_dagster.artifacts.image_files import find_images, open_picture, upright_size
from uss_dagster.artifacts.mask_base import Shape
from uss_dagster.errors import BadData, UsageError
from uss_dagster.files import parse_yaml, write_whole
from uss_dagster.formats.base import Classes, FormatSpec, MaskedImage, MaskSet, inside, labels_of_names, safe_split, write_picture
from uss_dagster.formats.rings import line_of_mask, mask_of_line
from uss_dagster.formats.rows import Names, Row, masked_image, rows_of
from uss_dagster.regions import rle

_ABSENT = "A line has a class and a polygon."
SPEC = FormatSpec(
    name="yolo",
    title="YOLO segmentation (Ultralytics)",
    programs="supervision",
    layout="data.yaml, images/<split>/, labels/<split>/",
    loses=dict.fromkeys(("parent", "level", "score", "quality", "source"), _ABSENT),
    changes={
        "parts": "A region is one polygon: separate parts are joined by lines one pixel wide, as the converter of Ultralytics does it."
    },
    needs_pictures=True,
)
WHOLE = "train"
OFFSET = 0.25
"""Added to the numbers of pixels: they come back both from programs that round and from those that cut off."""


def write(masks: MaskSet, folder: Path) -> None:
    """Pictures and labels by split; without splits, all of them are for training."""
    import yaml

    classes = Classes(masks.categories)
    splits: set[str] = set()
    for image in masks.images():
        split = safe_split(image, WHOLE)
        splits.add(split)
        name = Path(image.file_name)
        flat = MaskedImage(image.image_id, f"{image.image_id}{name.suffix}", image.regions, image.quality, image.split, image.picture)
        if not write_picture(folder / "images" / split, flat):
            raise UsageError(f"YOLO needs the pictures, and that of '{image.image_id}' is not known. Name their folder: --images DIR.")
        lines = [_line(row, image.regions.shape, classes) for row in rows_of(image) if row.area]
        path = inside(folder / "labels" / split, f"{image.image_id}.txt", f"the labels of image '{image.image_id}'")
        write_whole(path, "".join(f"{line}\n" for line in lines))
    places = {"train": "images/train", "val": "images/val" if "val" in splits else "images/train"}
    about = places | {split: f"images/{split}" for split in sorted(splits)} | {"names": dict(enumerate(classes.ordered))}
    write_whole(folder / "data.yaml", yaml.safe_dump(about, sort_keys=False, allow_unicode=True))


def _line(row: Row, shape: Shape, classes: Classes) -> str:
    height, width = shape
    shares = (line_of_mask(rle.decode(row.code, height, width)) + OFFSET) / [width, height]
    return " ".join([str(classes.place(row.label)), *(f"{share:.7f}".rstrip("0") for share in shares.ravel().tolist())])


def read(path: Path) -> MaskSet:
    """A folder of pictures below ``images`` and text files below ``labels``; boxes are left out."""
    folder = path.parent if path.suffix in (".yaml", ".yml") else path
    if not folder.is_dir():
        raise UsageError(f"{path} is no folder. Name the folder that holds data.yaml.")
    names = _names(path if path.is_file() else folder / "data.yaml")
    labels = labels_of_names(names)
    pictures = {picture: label for picture in find_images([folder]) if (label := _label_file(picture, folder)) is not None}
    if not pictures:
        raise UsageError(f"{folder} holds no pictures below a folder 'images'. YOLO's polygons are shares of a picture's size.")
    complaints: list[str] = []

    def images() -> Iterator[MaskedImage]:
        complaints.clear()
        seen = Names(folder)
        for picture, label in sorted(pictures.items(), key=lambda pair: (pair[0].stem, pair[0])):
            image_id = seen.add(picture.stem, picture.relative_to(folder).as_posix())
            with open(picture, "rb") as file, open_picture(file, str(picture)) as opened:
                shape = upright_size(opened)
            lines = label.read_text(encoding="utf-8").splitlines() if label.is_file() else []
            ordered = [labels[name] for name in names]
            read = [
                _row(line, shape, ordered, f"{label}, line {number}", complaints) for number, line in enumerate(lines, 1) if line.strip()
            ]
            rows = [row for row in read if row]
            yield masked_image(rows, shape, picture.name, image_id, _split(picture, folder), str(label), complaints)

    return MaskSet(images, {label: name for name, label in labels.items() if label >= 0}, title=folder.name, complaints=complaints)


def _names(file: Path) -> list[str]:
    """The classes that ``data.yaml`` names, by number."""
    import yaml

    try:
        content = parse_yaml(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}). YOLO's classes stand in data.yaml.") from None
    except yaml.YAMLError:
        raise BadData(f"{file} is not YAML. Export it again.") from None
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict) and all(isinstance(number, int) and 0 <= number < len(names) for number in names):
        names = [names[number] for number in sorted(names)]
    if not isinstance(names, list) or len({str(name) for name in names}) < len(names):
        raise BadData(f"{file}: 'names' is a list of different names, or a mapping from 0, 1, … to names.")
    return [str(name) for name in names]


def _label_file(picture: Path, folder: Path) -> Path | None:
    """The text file of a picture: 'images' in its path becomes 'labels'. None for a picture elsewhere."""
    parts = list(picture.relative_to(folder).parts[:-1])
    if "images" not in parts:
        return None
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return folder.joinpath(*parts, f"{picture.stem}.txt")


def _split(picture: Path, folder: Path) -> str:
    """The folder below 'images', or the one above it."""
    parts = picture.relative_to(folder).parts[:-1]
    place = len(parts) - 1 - parts[::-1].index("images")
    below, above = parts[place + 1 :], parts[:place]
    return below[0] if below else above[-1] if above else ""


def _row(line: str, shape: Shape, labels: list[int], where: str, complaints: list[str]) -> Row | None:
    words = line.split()
    try:
        label, numbers = int(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        raise BadData(f"{where}: a class and a polygon are expected, all of them numbers.") from None
    if not 0 <= label < len(labels):
        raise BadData(f"{where}: class {label} is none of the {len(labels)} in data.yaml.")
    if len(numbers) in (4, 5):
        complaints.append(f"{where}: a box is left out; only polygons are read.")
        return None
    score = numbers.pop() if len(numbers) % 2 else 1.0
    if len(numbers) < 6 or not all(math.isfinite(number) and -1 <= number <= 2 for number in [*numbers, score]):
        raise BadData(f"{where}: a polygon has at least 3 points, as shares of the picture's width and height.")
    height, width = shape
    points = np.round(np.array(numbers).reshape(-1, 2) * [width, height] - 1e-6)  # a half, the centre of a pixel, is of this pixel
    mask = mask_of_line(np.minimum(points, [width - 1, height - 1]), shape)
    return Row(rle.encode(mask[None])[0], label=labels[label], score=score)
