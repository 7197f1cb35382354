"""The checks of a prepared dataset, and of a source that is read whole without being written."""

from __future__ import annotations

import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uss_dagster import registry
from uss_dagster.artifacts.gate import (
    MOST_SENTENCES,
    Problems,
    Report,
    RowOrder,
    check_contract,
    check_expectations,
    expect,
    frames,
    no_nan,
    sorted_unique,
    valid_regions,
)
from uss_dagster.artifacts.image_files import measure
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.schemas import IMAGES
from uss_dagster.artifacts.staging import read_manifest
from uss_dagster.artifacts.tables import read_table, region_tables
from uss_dagster.datasets.base import DatasetSpec
from uss_dagster.datasets.formats.class_trees import spec_of
from uss_dagster.datasets.preparation.prepare import in_threads, prepare
from uss_dagster.errors import BadData
from uss_dagster.regions import ClassTree
from uss_dagster.regions.classes import INNER
from uss_dagster.text import few

FEW_DUPLICATES = 1000
"""Byte-equal images are refused where there is more than one in so many: official releases hold a few."""


def validate(key: str, folder: Path, spec: DatasetSpec, stored: bool = True, reread: bool = False) -> Report:
    """Check a prepared dataset; rows of regions pass by one group at a time.

    Parameters
    ----------
    key : str
        Its name in the project.
    folder : Path
        The folder with ``images/`` and ``truth/``.
    spec : DatasetSpec
        With the truth and the classes that its parameters ask for, see ``spec_of``.
    stored : bool
        The images themselves are in the folder too. Default: True.
    reread : bool
        Decode them again; otherwise their bytes are compared with their hashes. Default: False.
    """
    report = Report(f"datasets {key}")
    images = read_table(folder / "images" / "images.parquet", IMAGES)
    check_contract(report, "there are images", [] if images.num_rows else ["The dataset is empty."])
    check_contract(report, "image ids ascend and are unique", sorted_unique(images, ["image_id"]))
    if stored:
        check_contract(report, "every image is what was written", _as_written(folder / "images", reread))
    few_copies, copies = _same_files(images)
    check_contract(report, "no two images are the same file", [] if few_copies else copies)
    regions = _Regions(images, spec)
    regions.read(folder / "truth" / "regions.parquet")
    for rule, problems in regions.problems.items():
        check_contract(report, rule, problems)
    check_expectations(
        report,
        frames([regions.rows()]),
        [
            expect("expect_column_values_to_be_unique", column="image_id"),
            expect("expect_column_values_to_match_regex", column="sha256", regex="^[0-9a-f]{64}$"),
            expect("expect_column_values_to_be_between", column="height", min_value=1, max_value=100_000),
            expect("expect_column_values_to_be_between", column="width", min_value=1, max_value=100_000),
            expect("expect_column_values_to_not_be_null", column="split"),
            expect("expect_column_pair_values_to_be_equal", column_A="height", column_B="truth_height"),
            expect("expect_column_pair_values_to_be_equal", column_A="width", column_B="truth_width"),
            expect("expect_column_values_to_be_between", column="lowest_label", min_value=-1),
            expect("expect_column_values_to_be_between", column="highest_label", max_value=len(spec.classes) - 1 if spec.classes else -1),
        ],
    )
    _counts(report, images, spec)
    for rule, message in regions.remarks(few_copies, copies):
        report.add(rule, True, message)
    return report


def check(name: str, prepared: Path | None, parameters: Callable[[type, str], Mapping[str, object]]) -> Report:
    """Check a prepared dataset, every image decoded again; or, where there is none, the source, read whole without being written.

    Parameters
    ----------
    name : str
        Of the dataset in the project, or of the adapter.
    prepared : Path, optional
        Where the prepared dataset would be; None outside a project.
    parameters : callable
        (parameter class, words that name the adapter in errors) → parameters for reading the source.
    """
    if prepared is not None and prepared.is_dir():
        manifest = read_manifest(prepared)
        module = registry.load("dataset", manifest["kind"])
        params = registry.build_params(module.SPEC.params, manifest["params"], f"dataset '{name}'")
        return validate(name, prepared, spec_of(module, params), reread=True)
    module = registry.load("dataset", name)
    owner = f"dataset '{name}'"
    params = registry.build_params(module.SPEC.params, parameters(module.SPEC.params, owner), owner)
    with tempfile.TemporaryDirectory(prefix="uss-check-") as scratch:
        prepare(module, params, Path(scratch), f"check {name}", keep=False)
        return validate(name, Path(scratch), spec_of(module, params), stored=False)


def _as_written(folder: Path, reread: bool) -> Iterator[str]:
    images = Images(folder)

    def wrong(image_id: str) -> str:
        try:
            data = images.encoded(image_id)
            shape = measure(data, f"Image '{image_id}'") if reread else images.shape(image_id)
        except BadData as error:
            return str(error)
        return "" if shape == images.shape(image_id) else f"Image '{image_id}' decodes to {shape}, its row says {images.shape(image_id)}."

    yield from filter(None, (sentence for _, sentence in in_threads(wrong, images.ids)))


def _same_files(images: pa.Table) -> tuple[bool, list[str]]:
    """(whether they are few enough for an official release, a sentence for each image that is a copy of an earlier one)."""
    code = images["sha256"].combine_chunks().dictionary_encode().indices.to_numpy()
    _, first = np.unique(code, return_index=True)  # hashes are numbered in the order in which they come
    copies = np.flatnonzero(first[code] != np.arange(len(code)))
    ids = images["image_id"]
    sentences = [f"Images '{ids[int(first[code[row]])]}' and '{ids[row]}' are byte-equal." for row in copies.tolist()]
    return len(sentences) * FEW_DUPLICATES <= images.num_rows, sentences


def _counts(report: Report, images: pa.Table, spec: DatasetSpec) -> None:
    """Images of each split beside those of the official one: fewer are a sample, which is reported; more are an error."""
    for row in images.group_by("split").aggregate([("image_id", "count")]).sort_by("split").to_pylist():
        split, count = row["split"], row["image_id_count"]
        official = spec.counts.get(split)
        if official is None:
            continue
        if count > official:
            message = f"{count:,} images, but the official split has {official:,}. Another release, or extracted twice into one folder."
        else:
            message = f"a sample: {count:,} of {official:,} images." if count < official else f"all {official:,} images."
        report.add(f"images of split '{split}'", count <= official, message)


class _Regions:
    """Checks of the regions of a dataset, gathered group by group."""

    def __init__(self, images: pa.Table, spec: DatasetSpec) -> None:
        self.images = images
        self.classes: ClassTree | None = spec.classes
        self.overlap = spec.truth in ("annotators", "instances")
        self.ids = images["image_id"].combine_chunks()
        rows = images.num_rows
        self.count = np.zeros(rows, np.int64)
        self.height, self.width = images["height"].to_numpy().copy(), images["width"].to_numpy().copy()
        self.lowest, self.highest = np.full(rows, -1, np.int64), np.full(rows, -1, np.int64)
        self.seen = np.zeros(len(self.classes) if self.classes else 0, np.int64)
        self.order = RowOrder(["image_id", "region"])
        self.problems = {
            rule: Problems()
            for rule in (
                "regions are sorted by image",
                "scores of regions are numbers",
                "regions decode, nest and do not overlap",
                "labels are classes of the class tree",
                "ground truth belongs to images",
            )
        }

    def read(self, path: Path) -> None:
        """Check a file of regions."""
        try:
            for rows in region_tables([path]):
                self._group(rows)
        except BadData as error:
            self.problems["regions decode, nest and do not overlap"].add([str(error)])

    def _group(self, rows: pa.Table) -> None:
        self.problems["regions are sorted by image"].add(self.order.problems(rows))
        self.problems["scores of regions are numbers"].add(no_nan(rows, ["score"]))
        self.problems["regions decode, nest and do not overlap"].add(valid_regions([rows], self.overlap))
        label = rows["label"].to_numpy()
        strange = np.flatnonzero((label < -1) | (label >= len(self.seen)))
        valid = f"-1 for none, 0..{len(self.seen) - 1}" if len(self.seen) else "-1 for none"
        self.problems["labels are classes of the class tree"].add(
            f"Image {row['image_id']}, region {row['region']}: label {row['label']} is no class (known: {valid})."
            for row in rows.select(["image_id", "region", "label"]).take(strange[: MOST_SENTENCES + 1]).to_pylist()
        )
        np.add.at(self.seen, label[(label >= 0) & (label < len(self.seen))], 1)
        place = self._places(rows["image_id"])
        if place.null_count:
            strangers = sorted(set(rows["image_id"].filter(pc.is_null(place)).to_pylist()))
            self.problems["ground truth belongs to images"].add([f"Ground truth of unknown images: {strangers[:5]}."])
        of_images = np.asarray(pc.is_valid(place))
        where = pc.fill_null(place, 0).to_numpy()[of_images]
        label = label[of_images].astype(np.int64)
        np.add.at(self.count, where, 1)
        np.minimum.at(self.lowest, where, label)
        np.maximum.at(self.highest, where, label)
        self.height[where] = rows["height"].to_numpy()[of_images]
        self.width[where] = rows["width"].to_numpy()[of_images]

    def _places(self, names: pa.ChunkedArray) -> pa.ChunkedArray:
        """The row of each image in the index, null for none. Rows of regions are sorted as a rule, so a part of the index will do."""
        if len(names):
            first = bisect_left(self.ids, names[0].as_py(), key=str)
            last = bisect_right(self.ids, names[-1].as_py(), key=str)
            place = pc.index_in(names, value_set=self.ids.slice(first, max(last - first, 0)))
            if not place.null_count:
                return pc.add(place, first)
        return pc.index_in(names, value_set=self.ids)

    def rows(self) -> pa.Table:
        """One row an image, for the expectations."""
        table = self.images.select(["image_id", "sha256", "height", "width", "split"])
        columns = {"truth_height": self.height, "truth_width": self.width, "lowest_label": self.lowest, "highest_label": self.highest}
        for name, values in columns.items():
            table = table.append_column(name, pa.array(values))
        return table

    def remarks(self, few_copies: bool, copies: list[str]) -> Iterator[tuple[str, str]]:
        """(what, sentence) of what is worth knowing and no error."""
        if few_copies and copies:
            yield "copies among the images", f"{len(copies)} images are copies of others, such as: {copies[0]}"
        if len(self.count):
            none = int((self.count == 0).sum())
            yield (
                "regions in an image",
                f"{self.count.min()} to {self.count.max()}, {self.count.mean():.1f} on average; none in {none:,} images.",
            )
        if self.classes is not None:
            leaves = [node for node, kind in enumerate(self.classes.kind) if kind != INNER]
            absent = [self.classes.names[node] for node in leaves if not self.seen[node]]
            missing = f"; absent: {few(absent, 12)}" if absent else ""
            yield "classes that occur", f"{len(leaves) - len(absent)} of {len(leaves)}{missing}."
