"""Masks made elsewhere, read one image at a time: tables of regions, COCO JSON, folders of label pictures.

A reader knows which images a file or folder holds, and reads the regions of one of them. What cannot be meant is refused with a sentence
that names image and region.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uss_dagster.artifacts.gate import valid_regions
from uss_dagster.artifacts.image_files import PNG, open_picture
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import check_schema, readable, regions_from_table, runs_of_images
from uss_dagster.errors import BadData, UsageError
from uss_dagster.regions import Regions, rle
from uss_dagster.regions.coco import CocoAnnotation, CocoCategory, CocoImage, Segmentation, code_of
from uss_dagster.text import few

Shape = tuple[int, int]
"""(height, width) in pixels."""
Named = tuple[str, CocoAnnotation]
"""An annotation with the words that name it in errors."""
FORMATS = "a regions.parquet (or a folder of shard-*.parquet), a COCO .json, or a folder of label .png pictures"
COPY = "Copy or make it again."
SLACK = 1.0
"""Pixels that a polygon may reach beyond the image: annotation tools round."""
MOST_LABELS = 10_000
"""Regions of one label picture; a photograph has more values."""


class Masks:
    """Masks of many images.

    Parameters
    ----------
    path : Path
        Where they are, for errors.
    ids : iterable of str
        The images.
    named : bool
        Ids are file stems; otherwise they are the numbers of a COCO file as text. Default: True.
    labelled : bool, optional
        Regions carry labels that mean the same in all images; None where that cannot be known. Default: False.
    """

    def __init__(self, path: Path, ids: Iterable[str], *, named: bool = True, labelled: bool | None = False) -> None:
        self.path, self.ids, self.named, self.labelled = path, sorted(ids), named, labelled

    def number(self, image_id: str) -> int | None:
        """The COCO number of an image, for partners that know numbers only."""
        return int(image_id) if image_id.isascii() and image_id.isdecimal() else None

    def regions(self, image_id: str, shape: Shape | None = None) -> Regions:
        """The regions of one image; shape: (height, width) where the masks do not say it themselves."""
        raise NotImplementedError

    def shape(self, image_id: str) -> Shape:
        """(height, width) of one image."""
        return self.regions(image_id).shape


def open_masks(path: Path) -> Masks:
    """The reader of a file or folder, chosen by what is there.

    Raises
    ------
    UsageError
        There is nothing that could be masks.
    BadData
        The file is damaged.
    """
    if path.is_dir():
        tables = [path / "regions.parquet"] if (path / "regions.parquet").is_file() else sorted(path.glob("shard-*.parquet"))
        tables = tables or sorted(path.glob("*.parquet"))
        if tables:
            return RegionTables(path, tables)
        pictures = files_below(path, ".png")
        if pictures:
            return LabelPictures(path, pictures)
        raise UsageError(f"Folder {path} holds no masks. Pass {FORMATS}.")
    if not path.exists():
        raise UsageError(f"{path} does not exist. Pass {FORMATS}.")
    if path.suffix.lower() == ".parquet":
        return RegionTables(path, [path])
    if path.suffix.lower() == ".json":
        return CocoMasks(path)
    raise UsageError(f"{path} is not a file of masks by its ending. Pass {FORMATS}.")


def pair_up(truth: Masks, prediction: Masks) -> tuple[dict[str, str], list[str]]:
    """Match images by file stem where both sides have names, else by COCO number.

    Returns
    -------
    pairs : dict
        Id in the ground truth → id in the prediction.
    strangers : list of str
        Predicted images without ground truth.

    Raises
    ------
    BadData
        The two have no image in common.
    """
    if truth.named and prediction.named:
        ids = set(truth.ids)
        pairs = {i: i for i in prediction.ids if i in ids}
    else:
        true, predicted = _by_number(truth), _by_number(prediction)
        pairs = {true[number]: predicted[number] for number in true if number in predicted}
    if not pairs:
        raise BadData(
            f"None of the {len(prediction.ids)} images of {prediction.path} ({_examples(prediction.ids)}) is in {truth.path} "
            f"({_examples(truth.ids)}). Images are matched by file name without its ending, or by COCO number."
        )
    used = set(pairs.values())
    return dict(sorted(pairs.items())), [i for i in prediction.ids if i not in used]


def files_below(folder: Path, suffix: str) -> dict[str, Path]:
    """Stem → file, of the visible files with an ending in a folder and below it, sorted; a stem that two files share is refused."""
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.suffix.lower() != suffix or any(part.startswith(".") for part in inside.parts) or not path.is_file():
            continue
        if path.stem in files:
            raise BadData(
                f"{files[path.stem]} and {path} are both image '{path.stem}': images go by file name. Rename one, or pass its folder."
            )
        files[path.stem] = path
    return files


def _by_number(masks: Masks) -> dict[int, str]:
    ids: dict[int, str] = {}
    for image_id in masks.ids:
        number = masks.number(image_id)
        if number is None:
            continue
        if number in ids:
            raise BadData(f"{masks.path}: images '{ids[number]}' and '{image_id}' are both number {number}. Rename one of them.")
        ids[number] = image_id
    return ids


def _examples(ids: Sequence[str]) -> str:
    return few([f"'{i}'" for i in ids], 3) if ids else "it has none"


# -- tables of regions --------------------------------------------------------------------------------------------------------


class RegionTables(Masks):
    """Regions as rows (schema ``REGIONS``) in one file or several; one row group is in memory at a time."""

    def __init__(self, path: Path, files: Sequence[Path], listed: Mapping[str, Shape] | None = None) -> None:
        """listed: image id → (height, width) of images that are there even if no region is."""
        self._listed = dict(listed or {})
        self._places: dict[str, tuple[Path, int, int, int]] = {}
        self._group: tuple[Path, int, pa.Table] | None = None
        labelled = False
        for file in files:
            with readable(file, COPY):
                opened = pq.ParquetFile(file)
            with opened:
                check_schema(opened.schema_arrow, REGIONS, str(file))
                for group in range(opened.num_row_groups):
                    with readable(file, COPY):
                        rows = opened.read_row_group(group, columns=["image_id", "label"])
                    labelled |= bool((rows["label"].to_numpy() >= 0).any())
                    for image_id, start, stop in runs_of_images(rows):
                        if image_id in self._places:
                            raise BadData(
                                f"{file}: image '{image_id}' stands twice; the rows of an image lie together, in one file and row group."
                            )
                        self._places[image_id] = (file, group, start, stop)
        super().__init__(path, {*self._places, *self._listed}, labelled=labelled)

    def regions(self, image_id: str, shape: Shape | None = None) -> Regions:
        if image_id not in self._places:
            return empty(self._listed.get(image_id) or shape, image_id)
        file, group, start, stop = self._places[image_id]
        if self._group is None or self._group[:2] != (file, group):
            with readable(file, COPY), pq.ParquetFile(file) as opened:
                self._group = file, group, opened.read_row_group(group)
        rows = self._group[2].slice(start, stop - start)
        for column in rows.column_names:
            if rows[column].null_count:
                raise BadData(f"{file}: image '{image_id}' has an empty cell in column '{column}'; every region needs a value there.")
        numbers = rows["region"].to_numpy()
        values, counts = np.unique(numbers, return_counts=True)
        if (counts > 1).any():
            raise BadData(f"{file}: image '{image_id}', region {values[counts > 1][0]} stands twice.")
        for problem in valid_regions([rows], overlap=True):
            raise BadData(f"{file}: {problem}")
        regions = regions_from_table(rows)
        bad = np.flatnonzero(~np.isfinite(regions.score))
        if len(bad):
            raise BadData(f"Image '{image_id}', region {numbers[bad[0]]}: its score is {regions.score[bad[0]]}; a number is expected.")
        return regions


# -- COCO ---------------------------------------------------------------------------------------------------------------------


class CocoMasks(Masks):
    """COCO json: a dataset with 'images' and 'annotations', or a list of results. The file is in memory, masks are decoded an image at a time.

    ``Regions.label`` is the category_id, ``source`` is 'crowd' where iscrowd is set. A key 'parent' (an annotation id, as our own files
    have it) makes a hierarchy. 'area' and 'bbox' are not read: both follow from the mask.
    """

    def __init__(self, path: Path) -> None:
        data = read_json(path)
        whole = isinstance(data, Mapping)
        annotations = data.get("annotations") if whole else data
        if not isinstance(annotations, list) or not all(isinstance(a, Mapping) for a in annotations):
            raise BadData(f"{path} is not COCO json: a list of results, or an object with 'annotations' (and 'images'), is expected.")
        self.categories: list[CocoCategory] = list(data.get("categories") or []) if whole else []
        images: list[CocoImage] = list(data.get("images") or []) if whole else []
        if not all(isinstance(entry, Mapping) for entry in (*images, *self.categories)):
            raise BadData(f"{path} is not COCO json: 'images' and 'categories' are lists of objects.")
        names: dict[int | str, str | None] = {image["id"]: _stem(image) for image in images}
        if len(names) < len(images):
            raise BadData(f"{path}: two of its images have the same id.")
        named = all(names.values()) if images else all(isinstance(a.get("image_id"), str) for a in annotations)
        self._shapes: dict[str, Shape] = {}
        self._numbers: dict[str, int] = {}
        self._annotations: dict[str, list[Named]] = {}
        for image in images:
            image_id = str(names[image["id"]]) if named else str(image["id"])
            if image_id in self._annotations:
                raise BadData(f"{path}: two of its images are named '{image_id}'; images go by file name without folder and ending.")
            self._annotations[image_id] = []
            if "height" in image and "width" in image:
                self._shapes[image_id] = int(image["height"]), int(image["width"])
            if isinstance(image["id"], int):
                self._numbers[image_id] = image["id"]
        names_of_annotations = set()
        for place, annotation in enumerate(annotations):
            what = f"annotation {annotation['id']}" if "id" in annotation else f"result {place}"
            if what in names_of_annotations:
                raise BadData(f"{path}: image '{annotation.get('image_id')}', {what} stands twice; ids of annotations are unique.")
            names_of_annotations.add(what)
            if "image_id" not in annotation or "segmentation" not in annotation:
                lacks = "image_id" if "image_id" not in annotation else "segmentation"
                raise BadData(f"{path}: image '{annotation.get('image_id', '?')}', {what} has no '{lacks}'; boxes alone cannot be scored.")
            owner = annotation["image_id"]
            if isinstance(owner, bool) or not isinstance(owner, int | str):
                raise BadData(f"{path}: {what} has image_id {owner!r}; a whole number or a name is expected.")
            if images and owner not in names:
                raise BadData(f"{path}: {what} is of image {owner!r}, which is not among its 'images'.")
            image_id = str(names[owner]) if images and named else str(owner)
            self._annotations.setdefault(image_id, []).append((what, annotation))
        kinds = {str(a.get("category_id")) for a in annotations}
        super().__init__(path, self._annotations, named=named, labelled=len(kinds) > 1 and "None" not in kinds)

    def number(self, image_id: str) -> int | None:
        return self._numbers.get(image_id, super().number(image_id))

    def regions(self, image_id: str, shape: Shape | None = None) -> Regions:
        named = self._annotations[image_id]
        shape = self._shapes.get(image_id) or shape or _shape_of_codes(named)
        if not named:
            return empty(shape, image_id)
        named, parent = _in_preorder(named, f"{self.path}: image '{image_id}'")
        masks, scores, labels = [], [], []
        for what, annotation in named:
            where = f"{self.path}: image '{image_id}', {what}"
            masks.append(decode_segmentation(annotation["segmentation"], shape, where))
            scores.append(_number(annotation.get("score", 1.0), f"{where}: its score"))
            labels.append(int(_number(annotation.get("category_id", -1), f"{where}: its category_id", most=2**31 - 1)))
        source = ["crowd" if annotation.get("iscrowd") else "" for _, annotation in named]
        return Regions.from_masks(masks, parent, score=scores, label=labels, source=source)


def decode_segmentation(segmentation: Segmentation, shape: Shape | None, where: str) -> np.ndarray:
    """Bool (H, W) of a COCO segmentation: a run-length code (counts as text, or as a list of numbers) or polygons."""
    if isinstance(segmentation, Mapping):
        try:
            height, width = (int(v) for v in segmentation["size"])
            counts = segmentation["counts"]
            code = rle.encode_runs(_counts(counts)) if isinstance(counts, list) else str.encode(counts, "ascii", "replace")  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise BadData(
                f"{where}: its run-length code needs 'size' [height, width] and 'counts', text or a list of whole numbers."
            ) from None
        if shape is not None and (height, width) != shape:
            raise BadData(f"{where}: its mask is {height}×{width}, the image is {shape[0]}×{shape[1]} (height×width).")
        try:
            return rle.decode(code, height, width)
        except BadData as error:
            raise BadData(f"{where}: {error}") from None
    if shape is None:
        raise BadData(f"{where}: it is a polygon, and the size of its image is not known. Give 'height' and 'width' in 'images'.")
    return _filled(segmentation, shape, where)


def _counts(counts: list[Any]) -> np.ndarray:
    runs = np.asarray(counts, np.int64)
    if runs.ndim != 1 or not len(runs) or (runs < 0).any() or (runs != np.asarray(counts, np.float64)).any():
        raise ValueError(counts)
    return runs


def _filled(polygons: Any, shape: Shape, where: str) -> np.ndarray:
    height, width = shape
    rings = []
    for ring in polygons if isinstance(polygons, list) else [None]:
        try:
            points = np.asarray(ring, np.float64).reshape(-1, 2)
        except (TypeError, ValueError):
            points = np.zeros((0, 2))
        if len(points) < 3 or not np.isfinite(points).all():
            raise BadData(f"{where}: a polygon is a list x1, y1, x2, y2, … of at least 3 points, all of them numbers.")
        beyond = (points < -SLACK) | (points > np.array([width, height]) + SLACK)
        if beyond.any():
            x, y = points[beyond.any(axis=1)][0]
            raise BadData(f"{where}: its polygon reaches x={x:g}, y={y:g}, outside the image of {width}×{height} pixels (width×height).")
        rings.append(points.ravel().tolist())
    return rle.decode(code_of(rings, *shape, where), *shape) if rings else np.zeros(shape, bool)


def _in_preorder(named: list[Named], where: str) -> tuple[list[Named], list[int]]:
    """The annotations with parents before their children, otherwise in the order given, and the parent of each."""
    above = [None if annotation.get("parent") is None else str(annotation["parent"]) for _, annotation in named]
    place = {str(annotation["id"]): i for i, (_, annotation) in enumerate(named) if "id" in annotation}
    order: list[int] = []
    rank: dict[int, int] = {}
    for first in range(len(named)):
        line: list[int] = []
        current: int | None = first
        while current is not None and current not in rank:
            if current in line:
                raise BadData(f"{where}, {named[current][0]} lies below itself: following 'parent' leads in a circle.")
            line.append(current)
            parent = above[current]
            if parent is not None and parent not in place:
                raise BadData(f"{where}, {named[current][0]} has parent {parent}, which is no annotation of this image.")
            current = None if parent is None else place[parent]
        for index in reversed(line):
            rank[index] = len(order)
            order.append(index)
    return [named[i] for i in order], [-1 if (parent := above[i]) is None else rank[place[parent]] for i in order]


def _shape_of_codes(named: list[Named]) -> Shape | None:
    for _, annotation in named:
        size = annotation["segmentation"].get("size") if isinstance(annotation["segmentation"], Mapping) else None
        if isinstance(size, list) and len(size) == 2:
            return int(size[0]), int(size[1])
    return None


def _stem(image: CocoImage) -> str | None:
    if "id" not in image:
        raise BadData(f"An entry of 'images' has no 'id': {dict(image)!r:.100}.")
    name = image.get("image_id") or image.get("file_name")
    return None if name is None else str(name) if "image_id" in image else Path(str(name)).stem


# -- label pictures -----------------------------------------------------------------------------------------------------------


class LabelPictures(Masks):
    """PNG pictures whose pixel values are labels: 8- or 16-bit grey, or indices into a palette. Every value is one region."""

    def __init__(self, path: Path, files: Mapping[str, Path]) -> None:
        self.files = dict(files)
        super().__init__(path, self.files, labelled=None)

    def values(self, image_id: str) -> np.ndarray:
        """Int32 (H, W), as stored."""
        values = read_label_picture(self.files[image_id])
        count = np.count_nonzero(np.bincount(values.ravel()))
        if count > MOST_LABELS:
            raise BadData(f"{self.files[image_id]} holds {count:,} different values, more than {MOST_LABELS:,}; is it a label picture?")
        return values

    def regions(self, image_id: str, shape: Shape | None = None) -> Regions:
        return Regions.from_label_map(self.values(image_id), use_labels=True)


def read_label_picture(path: Path) -> np.ndarray:
    """Int32 (H, W) of a label PNG: numbers of a grey picture, indices of one with a palette (never its colours)."""
    data = path.read_bytes()
    if not data.startswith(PNG):
        raise BadData(f"{path} is not a PNG picture. Remove it, or write it again.")
    with open_picture(data, str(path)) as picture:
        mode, values = picture.mode, np.asarray(picture)
    if mode not in ("1", "L", "P", "I") and not mode.startswith("I;16"):
        raise BadData(f"{path} is a colour picture ({mode}); a label picture has one number a pixel: 8- or 16-bit grey, or a palette.")
    depth, numbers = data[24], values.astype(np.int32)  # the PNG header's bits a sample
    return numbers // (255 // (2**depth - 1)) if mode == "L" and depth < 8 else numbers  # Pillow spreads grey of few bits over 0..255


# -- shared -------------------------------------------------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadData(f"{path} cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise BadData(f"{path} is not JSON ({error}). Copy or make it again.") from None


def empty(shape: Shape | None, image_id: str) -> Regions:
    """No region over an image of this shape."""
    if shape is None:
        raise BadData(f"Image '{image_id}' has no regions, and its size is not known. Give 'height' and 'width' in 'images'.")
    return Regions.from_masks([], shape=shape)


def _number(value: Any, what: str, most: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value > most:
        raise BadData(f"{what} is {value!r}; a number is expected.")
    return value
