"""The checks of a curated set: its files are read back and compared with one another and with the parameters."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uss_dagster.artifacts.gate import Expectation, Report, check_contract, check_expectations, expect, sorted_unique, valid_regions
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import read_table, rows_by_image
from uss_dagster.curation.curate import STATUSES, duplicate_pairs
from uss_dagster.curation.human import stays_beside_human
from uss_dagster.curation.params import CurateParams
from uss_dagster.curation.splits import SPLITS
from uss_dagster.curation.tables import HUMAN, IMAGES, SourceImage, mask_tables
from uss_dagster.errors import BadData
from uss_dagster.regions import rle
from uss_dagster.regions.coco import CocoAnnotation, RunLengths

if TYPE_CHECKING:
    import pandas as pd


def validate(name: str, folder: Path, images: pa.Table, params: CurateParams, failures: Mapping[str, str]) -> Report:
    """Check a curated folder: its tables, every json file in it, and its splits.

    Parameters
    ----------
    name : str
        Of the artefact, for the report.
    folder : Path
    images : pyarrow.Table
        All images of the mask pool, schema ``SOURCE_IMAGES``.
    params : CurateParams
    failures : mapping of str to str
        Image id → why its human masks could not be used.
    """
    report = Report(name)
    results = read_table(folder / "images.parquet", IMAGES)
    masks = folder / "masks.parquet"
    in_set = results.filter(pc.equal(results["status"], "kept")) if results.num_rows else results
    check_contract(report, "there are images", [] if in_set.num_rows else [_no_image_left(results)])
    check_contract(report, "image ids ascend and are unique", sorted_unique(results, ["image_id"]))
    check_contract(report, "human masks of every image could be used", [f"Image '{i}': {why}" for i, why in sorted(failures.items())])
    check_contract(
        report,
        "masks decode, have the area and box they say, and nest",
        valid_regions((t.select(REGIONS.names) for t in mask_tables(masks)), True),
    )
    check_contract(report, "masks are those of the kept images, as many as are said", _mask_count_problems(masks, in_set))
    check_contract(report, f"found masks overlap human ones by IoU {params.tau} at most", _human_overlaps(masks, params.tau))
    for path in sorted(folder.glob("annotations/*.json")) + [folder / "labels.json"] * (folder / "labels.json").exists():
        relative = path.relative_to(folder).as_posix()
        check_contract(report, f"{relative}: ids are unique and codes decode", _coco_problems(path, in_set, path.stem))
    check_contract(report, "one picture, or near-duplicates of it, stand in one split only", _split_leaks(results, images, params))
    check_expectations(report, _frame(masks, in_set), _expectations(params))
    return report


def _no_image_left(results: pa.Table) -> str:
    counts = {status: int(np.count_nonzero(results["status"].to_numpy(zero_copy_only=False) == status)) for status in STATUSES}
    message = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    return f"No image is left ({message or 'there was none'}). Loosen the limits, or look at the reasons in images.parquet."


def _frame(masks: Path, in_set: pa.Table) -> pd.DataFrame:
    """One row a kept image. Masks are read once, image by image, so that memory does not grow with their number."""
    import pandas as pd

    rows = []
    for table in mask_tables(masks, ["image_id", "area", "height", "width", "entry", "parent", "region", "rle"]):
        for image_id, one in rows_by_image(table):
            by_method = one["entry"].to_numpy(zero_copy_only=False) != HUMAN
            area = one["area"].to_numpy()[by_method]
            pixels = float(one["height"][0].as_py() * one["width"][0].as_py())
            rows.append(
                {
                    "image_id": image_id,
                    "repeated_masks": len(area) - len(set(np.array(one["rle"].to_pylist(), object)[by_method].tolist())),
                    "found_masks": len(area),
                    "smallest_found": int(area.min()) if len(area) else None,
                    "largest_share": float(area.max() / pixels) if len(area) else None,
                    "outermost_masks": int(np.count_nonzero(one["parent"].to_numpy() < 0)),
                }
            )
    measured = pd.DataFrame(
        rows, columns=["image_id", "repeated_masks", "found_masks", "smallest_found", "largest_share", "outermost_masks"]
    )
    frame = in_set.to_pandas().merge(measured, on="image_id", how="left")
    frame["copies"] = frame["found_masks"] + frame["human_masks"] - frame["masks"]
    return frame


def _expectations(params: CurateParams) -> list[Expectation]:
    limits: dict[str, dict[str, float]] = {
        "height": {"min_value": 1, "max_value": 100_000},
        "width": {"min_value": 1, "max_value": 100_000},
        "masks": {"min_value": 1},
        "found_masks": {"min_value": 0, "max_value": params.most},
        "repeated_masks": {"min_value": 0, "max_value": 0},
        "outermost_masks": {"min_value": 1},
        "smallest_found": {"min_value": params.limit("min_area")},
        "largest_share": {"min_value": 0.0, "max_value": params.limit("max_area")},
        "coverage": {"min_value": max(params.limit("min_coverage") - 1e-6, 0.0), "max_value": 1.0},
        "copies": {"min_value": 0, "max_value": 0},
    }
    return [
        expect("expect_column_values_to_be_unique", column="image_id"),
        expect("expect_column_values_to_be_unique", column="file_name"),
        expect("expect_column_values_to_match_regex", column="sha256", regex="^[0-9a-f]{64}$"),
        expect("expect_column_values_to_be_in_set", column="split", value_set=list(SPLITS)),
        *(expect("expect_column_values_to_be_between", column=column, **limit) for column, limit in limits.items()),
    ]


def _mask_count_problems(masks: Path, in_set: pa.Table) -> Iterator[str]:
    expected = dict(zip(in_set["image_id"].to_pylist(), in_set["masks"].to_pylist(), strict=True))
    before = ""
    for table in mask_tables(masks, ["image_id"]):
        for image_id, rows in rows_by_image(table):
            if not before < image_id:
                yield f"Image '{image_id}' follows '{before}'; masks ascend by image, and those of one lie together."
            before = image_id
            if expected.pop(image_id, None) != rows.num_rows:
                yield f"Image '{image_id}' has {rows.num_rows} masks, which is not what images.parquet says."
    for image_id in expected:
        yield f"Image '{image_id}' is kept, but has no mask."


def _human_overlaps(masks: Path, tau: float) -> Iterator[str]:
    for table in mask_tables(masks, ["image_id", "rle", "height", "width", "entry"]):
        for image_id, rows in rows_by_image(table):
            human = rows["entry"].to_numpy(zero_copy_only=False) == HUMAN
            if not human.any() or human.all():
                continue
            by_human, by_method = (rows.filter(pa.array(mask))["rle"].to_pylist() for mask in (human, ~human))
            shape = (rows["height"][0].as_py(), rows["width"][0].as_py())
            if not stays_beside_human(by_method, by_human, shape, tau).all():
                yield f"Image '{image_id}' keeps found masks that overlap human ones by more."


def _coco_problems(path: Path, in_set: pa.Table, name: str) -> Iterator[str]:
    """Read a COCO file line by line, as it was written, so that memory does not grow with the file."""
    images = in_set if name not in SPLITS else in_set.filter(pc.equal(in_set["split"], name))
    missing = images["masks"].to_pylist()  # annotations still to come, by image
    sizes = list(zip(images["height"].to_pylist(), images["width"].to_pylist(), strict=True))
    ids = images["image_id"].to_pylist()
    last, in_images = 0, False
    listed: list[str] = []
    with open(path, encoding="utf-8") as text:
        for line in itertools.islice(text, 1, None):
            if line.startswith('"images": ['):
                in_images, line = True, line[len('"images": [') :]
            line = line.strip().removesuffix("]}").removesuffix("],").removesuffix(",")
            if not line:
                continue
            if in_images:
                image = json.loads(line)
                listed.append(image["image_id"])
                if image["id"] != len(listed):
                    yield f"Image '{image['image_id']}' has id {image['id']}, expected {len(listed)}."
                continue
            entry: CocoAnnotation = json.loads(line)
            if entry["id"] != last + 1:
                yield f"Annotation {entry['id']} follows {last}."
            last, number = entry["id"], int(entry["image_id"])
            if not 1 <= number <= len(missing) or missing[number - 1] < 1:
                yield f"Annotation {last} is one more than image {number} has masks."
                continue
            missing[number - 1] -= 1
            yield from _code_problems(entry, sizes[number - 1])
    if lacking := [image_id for image_id, count in zip(ids, missing, strict=True) if count]:
        yield f"Images lack annotations: {lacking[:5]}."
    if listed != ids:
        yield "Its images are not the kept ones, in order."


def _code_problems(entry: CocoAnnotation, size: tuple[int, int]) -> Iterator[str]:
    code = cast("RunLengths", entry["segmentation"])
    try:
        runs = rle.runs(str(code["counts"]).encode("ascii"))
    except (BadData, ValueError) as error:
        yield f"Annotation {entry['id']}: {error}"
        return
    if tuple(code["size"]) != size or int(runs.sum()) != size[0] * size[1] or int(runs[1::2].sum()) != entry["area"]:
        yield f"Annotation {entry['id']}: its code is of {code['size']} and {runs[1::2].sum()} pixels; expected {list(size)}, {entry['area']}."


def _split_leaks(results: pa.Table, images: pa.Table, params: CurateParams) -> Iterator[str]:
    """Search near-duplicates again among the images of the set, whatever curation decided."""
    split = dict(zip(results["image_id"].to_pylist(), results["split"].to_pylist(), strict=True))
    rows: list[SourceImage] = [row for row in images.to_pylist() if split.get(row["image_id"])]
    first: dict[str, str] = {}
    for row in rows:
        other = first.setdefault(row["sha256"], row["image_id"])
        if split[other] != split[row["image_id"]]:
            yield f"'{other}' and '{row['image_id']}' are the same file, in {split[other]} and {split[row['image_id']]}."
    if len(rows) < 2:
        return
    for i, j in duplicate_pairs(rows, params).tolist():
        a, b = rows[i]["image_id"], rows[j]["image_id"]
        if split[a] != split[b]:
            yield f"'{a}' ({split[a]}) and '{b}' ({split[b]}) show the same."
