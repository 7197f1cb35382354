"""The checks of a prepared dataset, and of a source that is read whole without being written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uss_dagster import registry
from uss_dagster.artifacts.gate import (
    MOST_SENTENCES,
    Report,
    check_contract,
    check_expectations,
    expect,
    no_nan,
    sorted_unique,
    valid_regions,
)
from uss_dagster.artifacts.image_files import measure
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.schemas import IMAGES
from uss_dagster.artifacts.staging import read_manifest
from uss_dagster.artifacts.tables import read_table, region_tables
from uss_dagster.datasets.formats.class_trees import spec_of
from uss_dagster.datasets.preparation.prepare import in_threads, prepare
from uss_dagster.errors import BadData
from uss_dagster.planning.layout import Layout
from uss_dagster.regions import ClassTree
from uss_dagster.regions.classes import INNER

FEW_DUPLICATES = 1000
"""Byte-equal images are refused where there is more than one in so many: official releases hold a few."""


def validate(key: str, folder: Path, spec: Any, stored: bool = True, reread: bool = False) -> Report:
    """The verdict on a prepared dataset. spec: with the truth and the classes that its parameters ask for. stored: its images lie there
    too. reread: decode them again, not only hold them against their hashes. Rows of regions pass by one group at a time."""
    report = Report(f"datasets {key}")
    images = read_table(folder / "images" / "images.parquet", IMAGES)
    check_contract(report, "there are images", [] if images.num_rows else ["The dataset is empty."])
    check_contract(report, "image ids ascend and are unique", sorted_unique(images, ["image_id"]))
    if stored:
        check_contract(report, "every image is what was written", _as_written(folder / "images", reread))
    few, equal = _same_files(images)
    check_contract(report, "no two images are the same file", [] if few else equal)
    regions = _Regions(images, spec)
    regions.read(folder / "truth" / "regions.parquet")
    for rule, problems in regions.problems.items():
        check_contract(report, rule, problems)
    check_expectations(
        report,
        regions.frame(),
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
    for rule, message in regions.remarks(few, equal):
        report.add(rule, True, message)
    return report


def check(name: str, root: Path | None, given: Callable[[type, str], dict[str, Any]]) -> Report:
    """The verdict on the prepared dataset ``name`` of a project, every image decoded again; or, where there is none, on the source of
    that name, read whole without being written. given: parameter class and owner → parameters of the source."""
    folder = Layout(root).dataset(name) if root else None
    if folder is not None and folder.is_dir():
        manifest = read_manifest(folder)
        module = registry.load("dataset", manifest["kind"])
        params = registry.build_params(module.SPEC.params, manifest["params"], f"dataset '{name}'")
        return validate(name, folder, spec_of(module, params), reread=True)
    module = registry.load("dataset", name)
    owner = f"dataset '{name}'"
    params = registry.build_params(module.SPEC.params, given(module.SPEC.params, owner), owner)
    with tempfile.TemporaryDirectory(prefix="uss-check-") as scratch:
        prepare(module, params, Path(scratch), f"check {name}", keep=False)
        return validate(name, Path(scratch), spec_of(module, params), stored=False)


def _as_written(folder: Path, reread: bool) -> Iterator[str]:
    images = Images(folder)

    def wrong(image_id: str) -> str:
        try:
            data = images.encoded(image_id)
            found = measure(data, f"Image '{image_id}'") if reread else images.shape(image_id)
        except BadData as error:
            return str(error)
        return "" if found == images.shape(image_id) else f"Image '{image_id}' decodes to {found}, its row says {images.shape(image_id)}."

    yield from filter(None, (sentence for _, sentence in in_threads(wrong, images.ids)))


def _same_files(images: pa.Table) -> tuple[bool, list[str]]:
    """(whether they are few enough for an official release, a sentence for each image that is a copy of an earlier one)."""
    first: dict[str, str] = {}
    found = []
    for image_id, sha256 in zip(images["image_id"].to_pylist(), images["sha256"].to_pylist(), strict=True):
        if first.setdefault(sha256, image_id) != image_id:
            found.append(f"Images '{first[sha256]}' and '{image_id}' are byte-equal.")
    return len(found) * FEW_DUPLICATES <= images.num_rows, found


def _counts(report: Report, images: pa.Table, spec: Any) -> None:
    """Images of each split beside those of the official one: fewer are a sample, which is said; more cannot be."""
    for row in images.group_by("split").aggregate([("image_id", "count")]).sort_by("split").to_pylist():
        split, found = row["split"], row["image_id_count"]
        official = spec.counts.get(split)
        if official is not None:
            said = f"a sample: {found:,} of {official:,} images." if found < official else f"all {official:,} images."
            more = f"{found:,} images, but the official split has {official:,}. Another release, or extracted twice into one folder."
            report.add(f"images of split '{split}'", found <= official, said if found <= official else more)


class _Regions:
    """What the regions of a dataset say, gathered group by group."""

    def __init__(self, images: pa.Table, spec: Any) -> None:
        self.images = images
        self.classes: ClassTree | None = spec.classes
        self.overlap = spec.truth in ("annotators", "instances")
        self.ids = images["image_id"].combine_chunks()
        rows = images.num_rows
        self.count = np.zeros(rows, np.int64)
        self.height, self.width = images["height"].to_numpy().copy(), images["width"].to_numpy().copy()
        self.lowest, self.highest = np.full(rows, -1, np.int64), np.full(rows, -1, np.int64)
        self.seen = np.zeros(len(self.classes) if self.classes else 0, np.int64)
        self.last: tuple[str, int] | None = None
        self.problems: dict[str, list[str]] = {
            rule: []
            for rule in (
                "regions are sorted by image",
                "scores of regions are numbers",
                "regions decode, nest and do not overlap",
                "labels are classes of the class tree",
                "ground truth belongs to images",
            )
        }

    def read(self, path: Path) -> None:
        try:
            for rows in region_tables([path]):
                self._group(rows)
        except BadData as error:
            self._note("regions decode, nest and do not overlap", [str(error)])

    def _note(self, rule: str, problems: Iterable[str]) -> None:
        """Keep the first sentences, and as many more as tell that there are many."""
        kept = self.problems[rule]
        for problem in problems:
            if len(kept) > 50 * MOST_SENTENCES:
                break
            kept.append(problem)

    def _group(self, rows: pa.Table) -> None:
        self._note("regions are sorted by image", self._unsorted(rows))
        self._note("scores of regions are numbers", no_nan(rows, ["score"]))
        self._note("regions decode, nest and do not overlap", valid_regions([rows], self.overlap))
        label = rows["label"].to_numpy()
        strange = np.flatnonzero((label < -1) | (label >= len(self.seen)))
        for row in strange[: MOST_SENTENCES + 1]:
            image_id, region = rows["image_id"][int(row)].as_py(), rows["region"][int(row)].as_py()
            known = f"-1 for none, 0..{len(self.seen) - 1}" if len(self.seen) else "-1 for none"
            self._note(
                "labels are classes of the class tree",
                [f"Image {image_id}, region {region}: label {label[row]} is no class (known: {known})."],
            )
        np.add.at(self.seen, label[(label >= 0) & (label < len(self.seen))], 1)
        place = pc.index_in(rows["image_id"], value_set=self.ids)
        if place.null_count:
            strangers = sorted(set(rows["image_id"].filter(pc.is_null(place)).to_pylist()))
            self._note("ground truth belongs to images", [f"Ground truth of unknown images: {strangers[:5]}."])
        known_rows = np.asarray(pc.is_valid(place))
        where = pc.fill_null(place, 0).to_numpy()[known_rows]
        label = label[known_rows].astype(np.int64)
        np.add.at(self.count, where, 1)
        np.minimum.at(self.lowest, where, label)
        np.maximum.at(self.highest, where, label)
        self.height[where] = rows["height"].to_numpy()[known_rows]
        self.width[where] = rows["width"].to_numpy()[known_rows]

    def _unsorted(self, rows: pa.Table) -> Iterator[str]:
        if rows.num_rows:
            first = (rows["image_id"][0].as_py(), rows["region"][0].as_py())
            if self.last is not None and not self.last < first:
                yield f"Row {first} follows {self.last}."
            self.last = (rows["image_id"][-1].as_py(), rows["region"][-1].as_py())
        yield from sorted_unique(rows, ["image_id", "region"])

    def frame(self) -> Any:
        """One row an image, for the suite."""
        frame = self.images.select(["image_id", "sha256", "height", "width", "split"]).to_pandas()
        return frame.assign(truth_height=self.height, truth_width=self.width, lowest_label=self.lowest, highest_label=self.highest)

    def remarks(self, few: bool, equal: list[str]) -> Iterator[tuple[str, str]]:
        """(what, sentence) of what is worth knowing and no fault."""
        if few and equal:
            yield "copies among the images", f"{len(equal)} images are copies of others, such as: {equal[0]}"
        if len(self.count):
            none = int((self.count == 0).sum())
            yield (
                "regions in an image",
                f"{self.count.min()} to {self.count.max()}, {self.count.mean():.1f} on average; none in {none:,} images.",
            )
        if self.classes is not None:
            leaves = [node for node, kind in enumerate(self.classes.kind) if kind != INNER]
            absent = [self.classes.names[node] for node in leaves if not self.seen[node]]
            shown = f"; absent: {', '.join(absent[:12])}{', …' if len(absent) > 12 else ''}" if absent else ""
            yield "classes that occur", f"{len(leaves) - len(absent)} of {len(leaves)}{shown}."
