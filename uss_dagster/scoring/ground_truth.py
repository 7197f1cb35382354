"""Ground truth from files of any supported form: dataset artefacts, tables of regions, COCO JSON, label pictures, BSDS500 files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from uss_dagster.artifacts.coco_masks import CocoMasks
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.label_pictures import BYTE, WORD, LabelPictures
from uss_dagster.artifacts.mask_base import Masks, Shape, checked_json, files_below
from uss_dagster.artifacts.mask_readers import RegionTables, open_masks
from uss_dagster.artifacts.staging import MANIFEST, read_manifest
from uss_dagster.datasets.bsds500 import read_annotators, regions_of_annotators
from uss_dagster.datasets.formats.class_trees import classes_in_groups
from uss_dagster.errors import BadData, UsageError, did_you_mean
from uss_dagster.metrics.base import Truth
from uss_dagster.pixels import distinct_values, places_among
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.text import few

KINDS = ("classes", "annotators", "instances")
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
    void : frozenset of int, optional
        Values of label pictures that do not count. Default: None, those that usually mean it, see ``rules``.
    background : int, optional
        Value of label pictures that is the background. Default: None; of instances 0.

    Attributes
    ----------
    void_pixels, pixels : int
        Void pixels of the label pictures read so far, and all of them.
    unknown : Counter
        Labels that are no class → pixels (of label pictures) or regions that have them.
    unknown_images : int
        Images with such labels.
    """

    kind: str
    masks: Masks
    classes: ClassTree | None = None
    nodes: Mapping[int, int] | None = None
    void: frozenset[int] | None = None
    background: int | None = None
    unknown: Counter[int] = field(default_factory=Counter)
    unknown_images: int = 0
    void_pixels: int = 0
    pixels: int = 0
    _own_classes: bool = False

    def read(self, image_id: str) -> Truth:
        """The ground truth of one image; labels that are no class are counted and ignored."""
        place_of_image = self.masks.place(image_id)
        if isinstance(self.masks, LabelPictures):
            return Truth(self.kind, self._of_picture(*self.masks.values(image_id)), self.classes, place_of_image)
        regions = self.masks.regions(image_id)
        if self.kind != "classes" or self.classes is None:
            return Truth(self.kind, regions, place=place_of_image)
        values, place = np.unique(regions.label, return_inverse=True)
        node = self._nodes(values, np.bincount(place, minlength=len(values)))
        return Truth(self.kind, regions.labelled(np.arange(len(regions)), node[place]), self.classes, place_of_image)

    def rules(self) -> Iterator[str]:
        """A sentence on what the values of label pictures mean."""
        if not isinstance(self.masks, LabelPictures):
            return
        if self.void is None and self.kind == "instances":
            void = self.masks.greatest()
        else:
            void = few(sorted(value for value in self._void(WORD) if value <= self.masks.seen.most))
        rules = [f"{void} {'are' if ',' in void else 'is'} void and not counted" if void else "no value is void"]
        if self.kind == "classes":
            if self.background is not None:
                rules.append(f"{self.background} is background")
            rules.append("the class tree names the classes" if self.named else "every other value is a class")
        elif self.kind == "instances":
            rules += [f"{self.background or 0} is background", "every other value is an instance"]
        else:
            rules.append("every value is a segment")
        yield f"labels of {self.masks.path}: {'; '.join(rules)}."

    def complaints(self) -> Iterator[str]:
        """A sentence on what was ignored, or is probably meant otherwise."""
        if self.unknown:
            unit = "pixels" if isinstance(self.masks, LabelPictures) else "regions"
            yield (
                f"{self.unknown.total()} {unit} in {self.unknown_images} images have a label that is no class "
                f"({few(sorted(self.unknown))}) and are ignored."
            )
        if not isinstance(self.masks, LabelPictures):
            yield from self.masks.complaints()
            return
        yield from self.masks.damaged()
        seen, path = self.masks.seen, self.masks.path
        if self.kind == "classes" and not self.named and self.background is None and seen.zero and 0 not in self._void(WORD):
            yield f"0 counts as a class in {path}. If it is the background, pass --background 0; if it means unlabelled, --void 0."
        if self.void is None and self.kind == "instances" and seen.wide:
            yield f"{len(seen.wide)} 16-bit pictures of {path} have an instance 255 and none 254. If 255 is void, pass --void 255."
        if self.kind != "annotators" and BYTE in self._void(BYTE):
            if seen.binary:
                yield f"{len(seen.binary)} pictures of {path} hold only 0 and 255, of which 255 is void. If 255 is the object, pass --void none."
            elif seen.both:
                yield f"{len(seen.both)} pictures of {path} hold 254 as well as 255, which is void. If 255 is a label, pass --void none."
        if 2 * self.void_pixels > self.pixels:
            yield f"{100 * self.void_pixels / self.pixels:.0f} % of the pixels of {path} are void. If they are labelled, pass --void none."

    @property
    def named(self) -> bool:
        """A class tree was given; otherwise every value of label pictures is a class."""
        return self.classes is not None and not self._own_classes

    def _void(self, most: int) -> frozenset[int]:
        """The values that do not count in a label picture whose greatest possible value is ``most``."""
        if self.void is not None:
            return self.void
        if self.kind == "classes":
            assert self.classes is not None
            return frozenset({BYTE, WORD}) - set(range(len(self.classes)) if self.nodes is None else self.nodes)
        return frozenset({most} if self.kind == "instances" else ())

    def _of_picture(self, values: np.ndarray, most: int) -> Regions:
        present, counts = distinct_values(values)
        void = np.isin(present, list(self._void(most)))
        self.pixels += values.size
        self.void_pixels += int(counts[void].sum())
        if self.kind != "classes":
            none = void | ((present == (self.background or 0)) & (self.kind == "instances"))
            source = "annotator00" if self.kind == "annotators" else ""
            return Regions.from_label_map(values, ignore=present[none].tolist(), source=source)
        node = np.full(len(present), -1, np.int32)
        node[~void] = self._nodes(present[~void].astype(np.int64), counts[~void])
        return Regions.from_label_map(node[places_among(values, present)], ignore=-1, use_labels=True)

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


def read_truth(
    path: Path,
    kind: str | None = None,
    classes_file: Path | None = None,
    void: frozenset[int] | None = None,
    background: int | None = None,
) -> GroundTruth:
    """Open ground truth of any supported form.

    Parameters
    ----------
    path : Path
        A dataset artefact, or anything that ``open_masks`` reads, or a folder of BSDS500 ``.mat`` files.
    kind : str, optional
        One of ``KINDS``. Default: what the form itself says or usually means.
    classes_file : Path, optional
        The class tree as ``classes.json``. Default: the one beside the masks, or what the masks themselves say.
    void : frozenset of int, optional
        Values of label pictures that are not counted. Default: of classes 255 and 65535 where the class tree does not name them
        and, without one, where other values do not pass them; of instances the greatest value of the picture's bits; of annotators none.
    background : int, optional
        Value of label pictures that is background. Default: 0 of instances, none of classes.

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
    for option, value in (("--void", few(sorted(void)) if void else None), ("--background", background)):
        if value is not None and not isinstance(masks, LabelPictures):
            raise UsageError(f"{option} {value}: only label pictures have such a value; {path} holds none.")
    if background is not None and (classes_file or kind == "annotators"):
        why = f"the class tree {classes_file} says what is background" if classes_file else "segmentations of annotators have none"
        raise UsageError(f"--background {background}: {why}. Leave it out.")
    truth = GroundTruth(kind, masks, void=void, background=background)
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
        _use_every_value(truth, masks)
    elif truth.kind == "classes":
        raise UsageError(f"{masks.path} names no classes. Pass its class tree with --classes FILE.json.")


def _open_truth(path: Path) -> tuple[Masks, str | None]:
    """(masks, kind of truth that the manifest of a dataset artefact states, or None)."""
    for folder in (path, path.parent, path.parent.parent):
        tables = folder / "truth" / "regions.parquet"
        if path in (folder, tables.parent, tables) and tables.is_file() and (folder / MANIFEST).is_file():
            kind = read_manifest(folder).get("truth")
            if kind not in (*KINDS, "none"):
                raise BadData(f"{folder / MANIFEST} is not that of a dataset: its 'truth' is {kind!r:.80}, expected {' or '.join(KINDS)}.")
            images = Images(folder / "images")
            return RegionTables(path, [tables], {i: images.shape(i) for i in images.ids}), kind
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
    data = checked_json(path)
    try:
        tree = ClassTree.from_json(json.dumps(data))
        values = {row["value"]: row["id"] for row in data["classes"] if "value" in row}
        if not all(isinstance(row["name"], str) and isinstance(row["parent"], int) for row in data["classes"]):
            raise TypeError("'name' is text, and 'parent' a whole number")
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


def _use_every_value(truth: GroundTruth, masks: LabelPictures) -> None:
    """A foreground class for every value that any picture holds, but the background's; all pictures are read for it."""
    values: set[int] = set()
    for image_id in masks.ids:
        values |= set(distinct_values(masks.values(image_id)[0])[0].tolist()) - (truth.void or set())
        if len(values) > MOST_CLASSES:
            raise BadData(
                f"{masks.path} holds more than {MOST_CLASSES} different values, so they are segments of single images rather than classes. "
                "Pass --truth instances or --truth annotators, or the class tree with --classes."
            )
    if truth.void is None:
        greatest = max(values - {BYTE, WORD}, default=0)
        truth.void = frozenset(value for value in (BYTE, WORD) if value > greatest)
        values -= truth.void
    if not values:
        raise BadData(f"Every pixel of {masks.path} has the ignored value {few(sorted(truth.void))}; there is nothing to score against.")
    ascending = sorted(values)
    kinds = {f"value {value}": "background" if value == truth.background else "foreground" for value in ascending}
    truth.classes, truth._own_classes = ClassTree.from_nested(kinds), True
    truth.nodes = {value: node for node, value in enumerate(ascending, start=1)}


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
