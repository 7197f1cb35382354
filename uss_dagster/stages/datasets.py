"""``datasets``: examples of an adapter → ``images/`` (tar shards, index), ``truth/`` (regions, classes), manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from uss_dagster import registry
from uss_dagster.artifacts.gate import Report, check_contract, check_expectations, expect, no_nan, sorted_unique, valid_regions
from uss_dagster.artifacts.images import Images, ImageShards
from uss_dagster.artifacts.pictures import decode
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.schemas import IMAGES, REGIONS
from uss_dagster.artifacts.staging import Staging, remove
from uss_dagster.artifacts.tables import RegionsWriter, read_table, region_tables, write_table
from uss_dagster.errors import BadData
from uss_dagster.regions import ClassTree


def produce(key: str, cell: dict[str, Any], root: Path) -> dict[str, Any]:
    module = registry.load("dataset", cell["kind"])
    params = registry.build_params(module.SPEC.params, cell["params"], f"dataset '{key}'")
    staging = Staging(root, f"datasets {key}", cell)
    for part in ("images", "truth"):  # an adapter is read from start to end: nothing to resume
        remove(staging.folder / part)
        (staging.folder / part).mkdir()
    images = ImageShards(staging.folder / "images")
    truth = RegionsWriter(staging.folder / "truth" / "regions.parquet")
    try:
        with Progress(f"datasets {key}", _expected(cell)) as progress:
            for example in module.examples(params):
                height, width = decode(example.image, example.image_id).shape[:2]
                if example.truth.shape != (height, width):
                    raise BadData(
                        f"Image '{example.image_id}' is {height}×{width}, its ground truth is {example.truth.shape[0]}×{example.truth.shape[1]} "
                        "(height×width). They must be equal: check that mask and image belong together."
                    )
                images.add(example.image_id, example.image, example.suffix, height, width, example.split)
                truth.add(example.image_id, example.truth)
                progress.advance()
    finally:
        images.close()
        truth.close()
    index = images.table()
    write_table(staging.folder / "images" / "images.parquet", index, IMAGES)
    if module.SPEC.classes is not None:
        (staging.folder / "truth" / "classes.json").write_text(module.SPEC.classes.to_json(), encoding="utf-8")
    staging.publish(
        root / "data" / "datasets" / key,
        validate(key, staging.folder, module.SPEC),
        {
            "dataset": key,
            "kind": cell["kind"],
            "title": module.SPEC.title,
            "truth": module.SPEC.truth,
            "licence": module.SPEC.licence,
            "citation": module.SPEC.citation,
            "homepage": module.SPEC.homepage,
            "params": cell["params"],
            "counts": {"images": index.num_rows, "regions": truth.rows},
        },
    )
    return {"images": index.num_rows, "regions": truth.rows}


def _expected(cell: dict[str, Any]) -> int:
    """Images to expect, for the progress bar only."""
    return int(cell["params"].get("images") or cell["params"].get("limit") or 0)


def validate(key: str, folder: Path, spec: Any) -> Report:
    report = Report(f"datasets {key}")
    images = read_table(folder / "images" / "images.parquet", IMAGES)
    truth = folder / "truth" / "regions.parquet"
    rows = read_table(truth, REGIONS, columns=["image_id", "region", "score", "label"])
    check_contract(report, "there are images", [] if images.num_rows else ["The dataset is empty."])
    check_contract(report, "image ids ascend and are unique", sorted_unique(images, ["image_id"]))
    check_contract(report, "every image decodes to the size in its row", _decodes(folder))
    check_contract(report, "no two images are the same file", _same_files(images))
    check_contract(report, "regions are sorted by image", sorted_unique(rows, ["image_id", "region"]))
    check_contract(report, "scores of regions are numbers", no_nan(rows, ["score"]))
    check_contract(
        report, "regions decode, nest and do not overlap", valid_regions(region_tables([truth]), overlap=spec.truth == "annotators")
    )
    check_contract(report, "labels are classes of the class tree", _labels(rows, spec.classes))
    known = set(images["image_id"].to_pylist())
    strangers = sorted(set(rows["image_id"].to_pylist()) - known)
    check_contract(report, "ground truth belongs to images", [f"Ground truth of unknown images: {strangers[:5]}."] if strangers else [])
    check_expectations(
        report,
        images.to_pandas(),
        [
            expect("expect_column_values_to_be_unique", column="image_id"),
            expect("expect_column_values_to_match_regex", column="sha256", regex="^[0-9a-f]{64}$"),
            expect("expect_column_values_to_be_between", column="height", min_value=1, max_value=100_000),
            expect("expect_column_values_to_be_between", column="width", min_value=1, max_value=100_000),
            expect("expect_column_values_to_not_be_null", column="split"),
        ],
    )
    return report


def _decodes(folder: Path) -> Iterator[str]:
    images = Images(folder / "images")
    for image_id in images.ids:
        try:
            found = images.pixels(image_id).shape[:2]
        except BadData as error:
            yield str(error)
            continue
        if found != images.shape(image_id):
            yield f"Image '{image_id}' decodes to {found}, its row says {images.shape(image_id)}."


def _same_files(images: pa.Table) -> Iterator[str]:
    first: dict[str, str] = {}
    for image_id, digest in zip(images["image_id"].to_pylist(), images["sha256"].to_pylist(), strict=True):
        if digest in first:
            yield f"Images '{first[digest]}' and '{image_id}' are byte-equal."
        first.setdefault(digest, image_id)


def _labels(truth: pa.Table, classes: ClassTree | None) -> Iterator[str]:
    highest = len(classes) - 1 if classes else -1
    for image_id, region, label in zip(truth["image_id"].to_pylist(), truth["region"].to_pylist(), truth["label"].to_pylist(), strict=True):
        if not (-1 <= label <= highest):
            yield f"Image {image_id}, region {region}: label {label} is no class (known: -1 for none, 0..{highest})."
