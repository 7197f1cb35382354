"""``uss score``: masks made elsewhere against any ground truth → the numbers of the leaderboard, with their intervals."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uss_dagster import registry
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.mask_readers import (
    CocoMasks,
    LabelPictures,
    Masks,
    RegionTables,
    Shape,
    empty,
    files_below,
    open_masks,
    pair_up,
    read_json,
)
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.staging import MANIFEST, read_manifest
from uss_dagster.commands.text import aligned, few, number, span
from uss_dagster.datasets.bsds500 import read_annotators, regions_of_annotators
from uss_dagster.errors import BadData, UsageError, did_you_mean
from uss_dagster.files import write_whole
from uss_dagster.metrics.base import Truth
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.regions.classes import FOREGROUND, INNER
from uss_dagster.report.leaderboard import interval
from uss_dagster.scoring.scorer import Row, Scorer, check_grid, convention_of, prepared

KINDS = ("classes", "annotators", "instances")
IGNORE = 255
MOST_CLASSES = 2000
"""Label pictures with more values than this hold segment ids, not classes."""
SUFFIXES = (".csv", ".json", ".md", ".parquet")
TABLE = pa.schema(
    [
        *((name, pa.string()) for name in ("metric", "protocol", "scope", "grid")),
        *((name, pa.float64()) for name in ("value", "low", "high")),
        ("images", pa.int64()),
    ]
)
Warn = Callable[[str], None]


@dataclass
class Result:
    """rows: one a metric and grid, columns of ``TABLE``. skipped: family → images it has no score for. images: with ground truth."""

    rows: list[Row]
    skipped: dict[str, list[str]]
    images: int


def score_masks(
    prediction: Masks, truth: GroundTruth, families: Sequence[str], grids: Sequence[str], replicates: int, warn: Warn
) -> Result:
    """Score masks image by image, in the order of the ground truth's ids. An image without a prediction counts as predicting nothing.

    Memory holds one image, one row group of a table (a whole COCO file), and the metrics' sums.
    """
    from threadpoolctl import threadpool_limits

    pairs, strangers = pair_up(truth.masks, prediction)
    missing = [i for i in truth.masks.ids if i not in pairs]
    if missing:
        warn(f"{_of(len(missing), len(truth.masks.ids))} no prediction, which counts as predicting nothing: {few(missing)}")
    if strangers:
        warn(f"left out, for want of ground truth: {len(strangers)} of {len(prediction.ids)} predicted images: {few(strangers)}")

    def everything() -> Iterator[Regions]:
        for image_id, theirs in pairs.items():
            yield prediction.regions(theirs, truth.masks.shape(image_id))

    with threadpool_limits(1), _bar(len(truth.masks.ids)) as advance:  # one thread: sums come out in one order
        total = Scorer(families, list(dict.fromkeys(grids)), replicates, prepared(families, everything))
        for image_id in truth.masks.ids:
            expected = truth.read(image_id)
            shape = expected.regions.shape
            found = prediction.regions(pairs[image_id], shape) if image_id in pairs else empty(shape, image_id)
            total.add(image_id, expected, found)
            advance()
    for line in truth.complaints():
        warn(line)
    result = Result(_with_intervals(total), total.skipped(), total.images)
    if not result.rows:
        raise BadData(f"None of the {total.images} images has a score with {', '.join(families)}: nothing in their ground truth counts.")
    return result


def choose_families(wanted: Sequence[str], truth: GroundTruth, prediction: Masks) -> list[str]:
    """Metric families to compute: those named, each refused with its reason where it does not fit; without names all that fit."""
    fitting = []
    for name in wanted or registry.names("metric"):
        if name not in registry.names("metric"):
            raise UsageError(_unknown_family(name))
        spec = registry.load("metric", name).SPEC
        reason = ""
        if truth.kind not in spec.truths:
            reason = f"is computed on ground truth of kind {' or '.join(spec.truths)}; {truth.masks.path} is of kind {truth.kind}."
        elif spec.needs_labels and (prediction.labelled is False or (prediction.labelled is None and not wanted)):
            reason = f"compares classes over the whole dataset, and the regions of {prediction.path} carry no labels."
        if not reason:
            fitting.append(name)
        elif wanted:
            raise UsageError(f"Metric family '{name}' {reason} Leave it out of --metrics.")
    if not fitting:
        raise UsageError(f"No metric family fits ground truth of kind {truth.kind}.")
    return list(dict.fromkeys(fitting))


def _unknown_family(name: str) -> str:
    for family in registry.names("metric"):
        if name in registry.load("metric", family).SPEC.metrics:
            return f"'{name}' is a number of the metric family '{family}'. Pass --metrics {family}."
    return f"Unknown metric '{name}'.{did_you_mean(name, registry.names('metric'))}"


# -- ground truth ---------------------------------------------------------------------------------------------------------


@dataclass
class GroundTruth:
    """Ground truth of many images. nodes: label in the files → node of the class tree, where they are not the same.

    ignore: value of label pictures that belongs to no region.
    """

    kind: str
    masks: Masks
    classes: ClassTree | None = None
    nodes: Mapping[int, int] | None = None
    ignore: int | None = None
    unknown: Counter[int] = field(default_factory=Counter)
    """Labels that are no class → pixels (of label pictures) or regions that have them."""
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
            what = "pixels" if isinstance(self.masks, LabelPictures) else "regions"
            values = few([str(v) for v in sorted(self.unknown)])
            yield (
                f"{self.unknown.total()} {what} in {self.unknown_images} images have a label that is no class ({values}) and are ignored."
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


class _Annotators(Masks):
    """A folder of BSDS500 ``.mat`` files."""

    def __init__(self, path: Path, files: Mapping[str, Path]) -> None:
        self.files = dict(files)
        super().__init__(path, self.files)

    def regions(self, image_id: str, shape: Shape | None = None) -> Regions:
        labels = read_annotators(self.files[image_id], image_id)
        sizes = {annotated.shape for annotated in labels}
        if len(sizes) > 1:
            raise BadData(f"{self.files[image_id]}: annotators drew on pictures of several sizes: {sorted(sizes)} (height, width).")
        return regions_of_annotators(labels)


def read_truth(path: Path, kind: str | None = None, classes_file: Path | None = None, ignore: int | None = None) -> GroundTruth:
    """Ground truth of any supported form. kind: None for what the form itself says or usually means."""
    if kind is not None and kind not in KINDS:
        raise UsageError(f"Unknown kind of ground truth '{kind}'.{did_you_mean(kind, KINDS)}")
    masks, said = _open_truth(path)
    if said == "none":
        raise UsageError(f"Dataset {path} has no ground truth. Choose another one.")
    if said and kind and said != kind:
        raise UsageError(f"--truth {kind}: the ground truth of {path} is of kind {said}.")
    usual = {RegionTables: "", CocoMasks: "instances", LabelPictures: "classes", _Annotators: "annotators"}[type(masks)]
    beside = (path if path.is_dir() else path.parent) / "classes.json"
    if classes_file is None and said is None and beside.is_file() and isinstance(masks, RegionTables | LabelPictures):
        classes_file = beside
    kind = kind or said or usual or ("classes" if classes_file else "")
    if not kind:
        raise UsageError(
            f"What {path} is cannot be told: say --truth annotators or --truth instances, or name its class tree with --classes."
        )
    if isinstance(masks, _Annotators) and kind != "annotators":
        raise UsageError(f"--truth {kind}: {path} holds segmentations of annotators (.mat), which have no classes.")
    if ignore is not None and not isinstance(masks, LabelPictures):
        raise UsageError(f"--ignore {ignore}: only label pictures have a value to ignore; {path} holds none.")
    truth = GroundTruth(kind, masks, ignore=IGNORE if ignore is None and kind == "classes" else ignore)
    if kind == "annotators":
        if classes_file and classes_file != beside:
            raise UsageError(f"--classes {classes_file}: segmentations of annotators have no classes. Leave it out.")
        return truth
    if said:
        classes_file = classes_file or next((p for p in (path / "truth/classes.json", beside) if p.is_file()), None)
    if classes_file:
        truth.classes, values = read_classes(classes_file)
        truth.nodes = values or (_by_name(masks, truth.classes) if isinstance(masks, CocoMasks) else None)
    elif isinstance(masks, CocoMasks) and masks.categories:
        truth.classes, truth.nodes = _category_tree(masks)
    elif isinstance(masks, LabelPictures) and kind == "classes":
        truth.classes, truth.nodes = _class_a_value(masks, truth.ignore)
    elif kind == "classes":
        raise UsageError(f"{path} names no classes. Pass its class tree with --classes FILE.json.")
    return truth


def _open_truth(path: Path) -> tuple[Masks, str | None]:
    """(masks, kind of truth that the manifest of a dataset artefact says, or None)."""
    for folder in (path, path.parent, path.parent.parent):
        tables = folder / "truth" / "regions.parquet"
        if path in (folder, tables.parent, tables) and tables.is_file() and (folder / MANIFEST).is_file():
            kind = str(read_manifest(folder)["truth"])
            images = Images(folder / "images")
            return RegionTables(path, [tables], {i: images.shape(i) for i in images.ids}), kind
    if path.is_dir() and not any(path.glob("*.parquet")):
        annotated = files_below(path, ".mat")
        if annotated:
            return _Annotators(path, annotated), None
    return open_masks(path), None


def read_classes(path: Path) -> tuple[ClassTree, dict[int, int]]:
    """(tree, label in the files → node) of a class tree as ``classes.json`` has it.

    A class may say under 'value' by which number files know it; where none does, the mapping is empty and numbers are the ids.
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


def _class_a_value(masks: LabelPictures, ignore: int | None) -> tuple[ClassTree, dict[int, int]]:
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
    named = sorted(values)
    tree = ClassTree(("scene", *(f"value {v}" for v in named)), (-1,) + (0,) * len(named), (INNER,) + (FOREGROUND,) * len(named))
    return tree, {value: node for node, value in enumerate(named, start=1)}


def _category_tree(masks: CocoMasks) -> tuple[ClassTree, dict[int, int]]:
    """COCO categories below their supercategories, all foreground."""
    names, parent, kind, nodes = ["scene"], [-1], [INNER], {}
    above = {category.get("supercategory") for category in masks.categories} - {None, ""}
    for group in [*sorted(above, key=str), None]:
        members = [c for c in masks.categories if (c.get("supercategory") or None) == group]
        head = 0
        if group is not None:
            head = len(names)
            names.append(str(group))
            parent.append(0)
            kind.append(INNER)
        for category in members:
            nodes[int(category["id"])] = len(names)
            names.append(str(category.get("name", category["id"])))
            parent.append(head)
            kind.append(FOREGROUND)
    return ClassTree(tuple(names), tuple(parent), tuple(kind)), nodes


def _by_name(masks: CocoMasks, tree: ClassTree) -> dict[int, int]:
    """Category id → node of the same name; without categories ids are nodes."""
    if not masks.categories:
        return {node: node for node in range(1, len(tree))}
    place = {name: node for node, name in enumerate(tree.names)}
    return {int(c["id"]): place[c["name"]] for c in masks.categories if c.get("name") in place}


# -- what is said and written ---------------------------------------------------------------------------------------------


def check_out(out: Path | None) -> None:
    """Refuse an ending that names no format, before anything is computed."""
    if out is not None and out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {out}: the ending says the format; {', '.join(SUFFIXES)} are known.")
    if out is not None and out.is_dir():
        raise UsageError(f"--out {out} is a folder; name a file in it.")


def lines_of(result: Result) -> list[str]:
    """The table for a terminal, and a line for each family that could not score every image."""
    head = ["metric", "protocol", "scope", "grid", "value", "95 % interval", "images"]
    rows = [
        [r["metric"], r["protocol"], r["scope"], r["grid"], number(r["value"]), span(r["low"], r["high"]), str(r["images"])]
        for r in result.rows
    ]
    lines = aligned(head, rows, right=("value", "images")) if rows else []
    for family, ids in sorted(result.skipped.items()):
        lines.append(f"{family}: {_of(len(ids), result.images)} no score: {few(ids)}")
    return lines


def write_result(result: Result, out: Path) -> None:
    """The table in the format of the file's ending; the same result gives the same bytes."""
    table = pa.Table.from_pylist(result.rows, schema=TABLE)
    suffix = out.suffix.lower()
    if suffix == ".parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", compression_level=3, store_schema=False)
        write_whole(out, sink.getvalue().to_pybytes())
    elif suffix == ".csv":
        write_whole(out, table.to_pandas().to_csv(index=False, float_format="%.9g", lineterminator="\n"))
    elif suffix == ".json":
        rows = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in result.rows]
        said = {"images": result.images, "skipped": result.skipped, "scores": rows}
        write_whole(out, json.dumps(said, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        head = "| Metric | Protocol | Scope | Grid | Value | 95 % interval | Images |\n| --- | --- | --- | --- | ---: | ---: | ---: |\n"
        body = [
            f"| {r['metric']} | {r['protocol']} | {r['scope']} | {r['grid']} | {number(r['value'])} | {span(r['low'], r['high'])} | {r['images']} |\n"
            for r in result.rows
        ]
        write_whole(out, head + "".join(body))


def check_request(grids: Sequence[str], replicates: int) -> None:
    """Refuse what is wrong in the request, before anything is read."""
    for grid in grids:
        check_grid(grid)
    if replicates == 1:
        raise UsageError("--bootstrap 1: an interval needs at least 2 replicates; 0 is for none.")


def _with_intervals(total: Scorer) -> list[Row]:
    samples: dict[tuple[str, ...], list[float]] = {}
    for row in total.replicate_rows():
        samples.setdefault(convention_of(row), []).append(row["value"])
    rows = []
    for row in total.dataset_rows():
        low, high = interval(np.array(samples.get(convention_of(row), []), float))
        named = {name: row[name] for name in ("metric", "protocol", "scope", "grid", "value")}
        rows.append({**named, "low": low, "high": high, "images": row["n"]})
    return rows


def _of(some: int, all_of_them: int) -> str:
    return f"{some} of {all_of_them} images {'has' if some == 1 else 'have'}"


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    with Progress("uss score", total) as progress:
        yield progress.advance
