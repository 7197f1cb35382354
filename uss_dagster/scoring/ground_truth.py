"""Ground truth from files of any supported form: dataset artefacts, tables of regions, COCO JSON, label pictures, BSDS500 files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.mask_readers import (
    CocoMasks,
    LabelPictures,
    Masks,
    RegionTables,
    Shape,
    files_below,
    open_masks,
    read_json,
)
from uss_dagster.artifacts.staging import MANIFEST, read_manifest
from uss_dagster.datasets.bsds500 import read_annotators, regions_of_annotators
from uss_dagster.datasets.formats.class_trees import classes_in_groups
from uss_dagster.errors import BadData, UsageError, did_you_mean
from uss_dagster.metrics.base import Truth
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.text import few

KINDS = ("classes", "annotators", "instances")
IGNORE = 255
"""The value of label pictures that is ignored where they hold classes."""
MOST_CLASSES = 2000
"""Label pictures with more values than this hold segment ids, not classes."""


@dataclass
class GroundTruth:
    """Ground truth of many images.

    Parameters
    ----------
    kind : str
        One of ``KINDS``, see ``DatasetSpec.truth``.
    masks : Masks
        Reads the regions of an image.
    classes : ClassTree, optional
        The class tree. Default: None, for masks without classes.
    nodes : mapping, optional
        Label in the files → node of the class tree. Default: None, labels are nodes.
    ignore : int, optional
        Value of label pictures that belongs to no region. Default: None.

    Attributes
    ----------
    unknown : Counter
        Labels that are no class → pixels (of label pictures) or regions that have them.
    unknown_images : int
        Images with such labels.
    """

    kind: str
    masks: Masks
    classes: ClassTree | None = None
    nodes: Mapping[int, int] | None = None
    ignore: int | None = None
    unknown: Counter[int] = field(default_factory=Counter)
    unknown_images: int = 0

    def read(self, image_id: str) -> Truth:
        """The ground truth of one image; labels that are no class are counted and ignored."""
        if isinstance(self.masks, LabelPictures):
            return Truth(self.kind, self._of_picture(self.masks.values(image_id)), self.classes)
        regions = self.masks.regions(image_id)
        if self.kind == "annotators" or self.classes is None:
            return Truth(self.kind, regions, self.classes)
        values, place = np.unique(regions.label, return_inverse=True)
        node = self._nodes(values, np.bincount(place, minlength=len(values)))
        return Truth(self.kind, regions.labelled(np.arange(len(regions)), node[place]), self.classes)

    def complaints(self) -> Iterator[str]:
        """A sentence on what was ignored."""
        if self.unknown:
            unit = "pixels" if isinstance(self.masks, LabelPictures) else "regions"
            yield (
                f"{self.unknown.total()} {unit} in {self.unknown_images} images have a label that is no class "
                f"({few(sorted(self.unknown))}) and are ignored."
            )

    def _of_picture(self, values: np.ndarray) -> Regions:
        present, place = np.unique(values, return_inverse=True)
        void = np.zeros(len(present), bool) if self.ignore is None else present == self.ignore
        if self.kind != "classes":
            void |= (present == 0) & (self.kind == "instances")
            node = np.where(void, -1, present)
            source = "annotator00" if self.kind == "annotators" else ""
            return Regions.from_label_map(node[place].reshape(values.shape), ignore=-1, source=source)
        node = np.full(len(present), -1)
        node[~void] = self._nodes(present[~void], np.bincount(place.ravel(), minlength=len(present))[~void])
        return Regions.from_label_map(node[place].reshape(values.shape), ignore=-1, use_labels=True)

    def _nodes(self, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Class-tree node of each label, -1 (so, ignored) for those that are none. Label -1 is no label."""
        assert self.classes is not None
        if self.nodes is None:
            node = np.where((labels > 0) & (labels < len(self.classes)), labels, -1)
        else:
            node = np.array([self.nodes.get(label, -1) for label in labels.tolist()], np.int64)
        strange = (node < 0) & (labels >= 0)
        self.unknown.update(dict(zip(labels[strange].tolist(), counts[strange].tolist(), strict=True)))
        self.unknown_images += bool(strange.any())
        return node


class AnnotatorFiles(Masks):
    """A folder of BSDS500 ``.mat`` files."""

    def __init__(self, path: Path, files: Mapping[str, Path]) -> None:
        self.files = dict(files)
        super().__init__(path, self.files)

    def regions(self, image_id: str, shape: Shape | None = None) -> Regions:
        """The regions of all annotators of one image."""
        labels = read_annotators(self.files[image_id], image_id)
        sizes = {annotated.shape for annotated in labels}
        if len(sizes) > 1:
            raise BadData(f"{self.files[image_id]}: annotators drew on pictures of several sizes: {sorted(sizes)} (height, width).")
        return regions_of_annotators(labels)


USUAL_KIND = {RegionTables: "", CocoMasks: "instances", LabelPictures: "classes", AnnotatorFiles: "annotators"}
"""Reader → the kind of ground truth that its form usually holds; empty where it may be any."""


def read_truth(path: Path, kind: str | None = None, classes_file: Path | None = None, ignore: int | None = None) -> GroundTruth:
    """Open ground truth of any supported form.

    Parameters
    ----------
    path : Path
        A dataset artefact, or anything that ``open_masks`` reads, or a folder of BSDS500 ``.mat`` files.
    kind : str, optional
        One of ``KINDS``. Default: what the form itself says or usually means.
    classes_file : Path, optional
        The class tree as ``classes.json``. Default: the one beside the masks, or what the masks themselves say.
    ignore : int, optional
        Value of label pictures that is not counted. Default: 255 for classes, none otherwise.

    Raises
    ------
    UsageError
        The arguments contradict each other or the files, or say too little.
    BadData
        A file cannot be read.
    """
    if kind is not None and kind not in KINDS:
        raise UsageError(f"Unknown kind of ground truth '{kind}'.{did_you_mean(kind, KINDS)}")
    masks, stated = _open_truth(path)
    if stated == "none":
        raise UsageError(f"Dataset {path} has no ground truth. Choose another one.")
    if stated and kind and stated != kind:
        raise UsageError(f"--truth {kind}: the ground truth of {path} is of kind {stated}.")
    beside = (path if path.is_dir() else path.parent) / "classes.json"
    if classes_file is None and stated is None and beside.is_file() and isinstance(masks, RegionTables | LabelPictures):
        classes_file = beside
    kind = kind or stated or USUAL_KIND[type(masks)] or ("classes" if classes_file else "")
    if not kind:
        raise UsageError(
            f"What {path} is cannot be told: say --truth annotators or --truth instances, or name its class tree with --classes."
        )
    if isinstance(masks, AnnotatorFiles) and kind != "annotators":
        raise UsageError(f"--truth {kind}: {path} holds segmentations of annotators (.mat), which have no classes.")
    if ignore is not None and not isinstance(masks, LabelPictures):
        raise UsageError(f"--ignore {ignore}: only label pictures have a value to ignore; {path} holds none.")
    truth = GroundTruth(kind, masks, ignore=IGNORE if ignore is None and kind == "classes" else ignore)
    if kind == "annotators":
        if classes_file and classes_file != beside:
            raise UsageError(f"--classes {classes_file}: segmentations of annotators have no classes. Leave it out.")
        return truth
    if stated:
        classes_file = classes_file or next((p for p in (path / "truth/classes.json", beside) if p.is_file()), None)
    _set_classes(truth, classes_file)
    return truth


def _set_classes(truth: GroundTruth, classes_file: Path | None) -> None:
    """Give the ground truth its class tree: that of a file, else that of the masks themselves."""
    masks = truth.masks
    if classes_file:
        truth.classes, values = read_classes(classes_file)
        truth.nodes = values or (_by_name(masks, truth.classes) if isinstance(masks, CocoMasks) else None)
    elif isinstance(masks, CocoMasks) and masks.categories:
        truth.classes, truth.nodes = _category_tree(masks)
    elif isinstance(masks, LabelPictures) and truth.kind == "classes":
        truth.classes, truth.nodes = _class_of_each_value(masks, truth.ignore)
    elif truth.kind == "classes":
        raise UsageError(f"{masks.path} names no classes. Pass its class tree with --classes FILE.json.")


def _open_truth(path: Path) -> tuple[Masks, str | None]:
    """(masks, kind of truth that the manifest of a dataset artefact states, or None)."""
    for folder in (path, path.parent, path.parent.parent):
        tables = folder / "truth" / "regions.parquet"
        if path in (folder, tables.parent, tables) and tables.is_file() and (folder / MANIFEST).is_file():
            images = Images(folder / "images")
            return RegionTables(path, [tables], {i: images.shape(i) for i in images.ids}), str(read_manifest(folder)["truth"])
    if path.is_dir() and not any(path.glob("*.parquet")):
        annotated = files_below(path, ".mat")
        if annotated:
            return AnnotatorFiles(path, annotated), None
    return open_masks(path), None


def read_classes(path: Path) -> tuple[ClassTree, dict[int, int]]:
    """Read a class tree as ``classes.json`` has it.

    Returns
    -------
    tree : ClassTree
    nodes : dict
        Label in the files → node, of the classes that have a key 'value'; empty where no class has one, and labels are the ids.
    """
    data = read_json(path)
    try:
        tree = ClassTree.from_json(json.dumps(data))
        values = {row["value"]: row["id"] for row in data["classes"] if "value" in row}
    except (KeyError, TypeError, AttributeError) as error:
        raise BadData(
            f'{path} is not a class tree: {{"classes": [{{"id": 0, "name": "scene", "parent": -1, "kind": "inner"}}, …]}} is expected '
            f"({type(error).__name__}: {error})."
        ) from None
    except BadData as error:
        raise BadData(f"{path}: {error}") from None
    wrong = [v for v in values if not isinstance(v, int)]
    if wrong:
        raise BadData(f"{path}: the value {wrong[0]!r} of a class is not a whole number.")
    return tree, values


def _class_of_each_value(masks: LabelPictures, ignore: int | None) -> tuple[ClassTree, dict[int, int]]:
    """A foreground class for every value that any picture holds; all pictures are read for it."""
    values: set[int] = set()
    for image_id in masks.ids:
        values |= set(np.unique(masks.values(image_id)).tolist()) - {ignore}
        if len(values) > MOST_CLASSES:
            raise BadData(
                f"{masks.path} holds more than {MOST_CLASSES} different values, so they are segments of single images rather than classes. "
                "Pass --truth instances or --truth annotators, or the class tree with --classes."
            )
    if not values:
        raise BadData(f"Every pixel of {masks.path} has the ignored value {ignore}; there is nothing to score against.")
    ascending = sorted(values)
    tree = ClassTree.from_nested({f"value {value}": "foreground" for value in ascending})
    return tree, {value: node for node, value in enumerate(ascending, start=1)}


def _category_tree(masks: CocoMasks) -> tuple[ClassTree, Mapping[int, int]]:
    """COCO categories below their supercategories, those without one last; all are foreground."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for category in masks.categories:
        member = int(category["id"]), str(category.get("name", category["id"]))
        groups.setdefault(str(category.get("supercategory") or ""), []).append(member)
    classes = classes_in_groups({group: groups[group] for group in sorted(groups, key=lambda name: (not name, name))})
    return classes.tree, classes.node


def _by_name(masks: CocoMasks, tree: ClassTree) -> dict[int, int]:
    """Category id → node of the same name; without categories ids are nodes."""
    if not masks.categories:
        return {node: node for node in range(1, len(tree))}
    place = {name: node for node, name in enumerate(tree.names)}
    return {int(c["id"]): place[c["name"]] for c in masks.categories if c.get("name") in place}
