"""The gate of a curated set: what is written is read back, and held against what was promised."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from uss_dagster.artifacts.gate import Report, check_contract, check_expectations, expect, sorted_unique, valid_regions
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import read_table, rows_by_image
from uss_dagster.curation.curate import STATUSES, pairs_of
from uss_dagster.curation.human import stays_beside_human
from uss_dagster.curation.params import CurateParams
from uss_dagster.curation.splits import SPLITS
from uss_dagster.curation.tables import HUMAN, IMAGES, mask_tables
from uss_dagster.errors import BadData
from uss_dagster.regions import rle


def validate(what: str, folder: Path, looks: pa.Table, params: CurateParams, failures: Mapping[str, str]) -> Report:
    """Check a curated folder: its tables, every json file in it, and its splits."""
    report = Report(what)
    images = read_table(folder / "images.parquet", IMAGES)
    masks = folder / "masks.parquet"
    kept = images.filter(pc.equal(images["status"], "kept")) if images.num_rows else images
    check_contract(report, "there are images", [] if kept.num_rows else [_nothing(images)])
    check_contract(report, "image ids ascend and are unique", sorted_unique(images, ["image_id"]))
    check_contract(report, "human masks of every image could be used", [f"Image '{i}': {why}" for i, why in sorted(failures.items())])
    check_contract(
        report,
        "masks decode, have the area and box they say, and nest",
        valid_regions((t.select(REGIONS.names) for t in mask_tables(masks)), True),
    )
    check_contract(report, "masks are those of the kept images, as many as are said", _counted(masks, kept))
    check_contract(report, f"found masks overlap human ones by IoU {params.tau} at most", _beside_human(masks, params.tau))
    for path in sorted(folder.glob("annotations/*.json")) + [folder / "labels.json"] * (folder / "labels.json").exists():
        name = path.relative_to(folder).as_posix()
        check_contract(report, f"{name}: ids are unique and codes decode", _coco_problems(path, kept, path.stem))
    check_contract(report, "one picture, or near-duplicates of it, stand in one split only", _leaks(images, looks, params))
    check_expectations(report, _frame(masks, kept), _expectations(params))
    return report


def _nothing(images: pa.Table) -> str:
    counts = {word: int(np.count_nonzero(images["status"].to_numpy(zero_copy_only=False) == word)) for word in STATUSES}
    said = ", ".join(f"{number} {word}" for word, number in counts.items() if number)
    return f"No image is left ({said or 'there was none'}). Loosen the limits, or look at the reasons in images.parquet."


def _frame(masks: Path, kept: pa.Table) -> pd.DataFrame:
    """One row a kept image; masks are gone through once, so that memory does not grow with their number."""
    rows = []
    for table in mask_tables(masks, ["image_id", "area", "height", "width", "entry", "parent", "region", "rle"]):
        for image_id, one in rows_by_image(table):
            area = one["area"].to_numpy()
            found = one["entry"].to_numpy(zero_copy_only=False) != HUMAN
            pixels = float(one["height"][0].as_py() * one["width"][0].as_py())
            rows.append(
                {
                    "image_id": image_id,
                    "repeated_masks": int(found.sum()) - len(set(np.array(one["rle"].to_pylist(), object)[found].tolist())),
                    "found_masks": int(found.sum()),
                    "smallest_found": int(area[found].min()) if found.any() else None,
                    "largest_share": float(area[found].max() / pixels) if found.any() else None,
                    "outermost_masks": int(np.count_nonzero(one["parent"].to_numpy() < 0)),
                }
            )
    measured = pd.DataFrame(
        rows, columns=["image_id", "repeated_masks", "found_masks", "smallest_found", "largest_share", "outermost_masks"]
    )
    frame = kept.to_pandas().merge(measured, on="image_id", how="left")
    frame["copies"] = frame["found_masks"] + frame["human_masks"] - frame["masks"]
    return frame


def _expectations(params: CurateParams) -> list[Any]:
    return [
        expect("expect_column_values_to_be_unique", column="image_id"),
        expect("expect_column_values_to_be_unique", column="file_name"),
        expect("expect_column_values_to_match_regex", column="sha256", regex="^[0-9a-f]{64}$"),
        expect("expect_column_values_to_be_in_set", column="split", value_set=list(SPLITS)),
        expect("expect_column_values_to_be_between", column="height", min_value=1, max_value=100_000),
        expect("expect_column_values_to_be_between", column="width", min_value=1, max_value=100_000),
        expect("expect_column_values_to_be_between", column="masks", min_value=1),
        expect("expect_column_values_to_be_between", column="found_masks", min_value=0, max_value=params.most),
        expect("expect_column_values_to_be_between", column="repeated_masks", min_value=0, max_value=0),
        expect("expect_column_values_to_be_between", column="outermost_masks", min_value=1),
        expect("expect_column_values_to_be_between", column="smallest_found", min_value=params.limit("min_area")),
        expect("expect_column_values_to_be_between", column="largest_share", min_value=0.0, max_value=params.limit("max_area")),
        expect(
            "expect_column_values_to_be_between", column="coverage", min_value=max(params.limit("min_coverage") - 1e-6, 0.0), max_value=1.0
        ),
        expect("expect_column_values_to_be_between", column="copies", min_value=0, max_value=0),
    ]


def _counted(masks: Path, kept: pa.Table) -> Iterator[str]:
    said = dict(zip(kept["image_id"].to_pylist(), kept["masks"].to_pylist(), strict=True))
    before = ""
    for table in mask_tables(masks, ["image_id"]):
        for image_id, rows in rows_by_image(table):
            if not before < image_id:
                yield f"Image '{image_id}' follows '{before}'; masks ascend by image, and those of one lie together."
            before = image_id
            if said.pop(image_id, None) != rows.num_rows:
                yield f"Image '{image_id}' has {rows.num_rows} masks, which is not what images.parquet says."
    for image_id in said:
        yield f"Image '{image_id}' is kept, but has no mask."


def _beside_human(masks: Path, tau: float) -> Iterator[str]:
    for table in mask_tables(masks, ["image_id", "rle", "height", "width", "entry"]):
        for image_id, rows in rows_by_image(table):
            human = rows["entry"].to_numpy(zero_copy_only=False) == HUMAN
            if not human.any() or human.all():
                continue
            codes = rows["rle"].to_pylist()
            drawn = [code for code, mine in zip(codes, human, strict=True) if mine]
            found = [code for code, mine in zip(codes, human, strict=True) if not mine]
            shape = (rows["height"][0].as_py(), rows["width"][0].as_py())
            if not stays_beside_human(found, drawn, shape, tau).all():
                yield f"Image '{image_id}' keeps found masks that overlap human ones by more."


def _coco_problems(path: Path, kept: pa.Table, name: str) -> Iterator[str]:
    """Line by line, as it was written: memory does not grow with the file."""
    named = kept if name not in SPLITS else kept.filter(pc.equal(kept["split"], name))
    due = dict(enumerate(named["masks"].to_pylist(), start=1))
    sizes = list(zip(named["height"].to_pylist(), named["width"].to_pylist(), strict=True))
    ids = named["image_id"].to_pylist()
    last, part = 0, "annotations"
    listed: list[str] = []
    with open(path, encoding="utf-8") as text:
        for line in itertools.islice(text, 1, None):
            if line.startswith('"images": ['):
                part, line = "images", line[len('"images": [') :]
            entry = _entry(line)
            if entry is None:
                continue
            if part == "images":
                listed.append(entry["image_id"])
                if entry["id"] != len(listed):
                    yield f"Image '{entry['image_id']}' has id {entry['id']}, expected {len(listed)}."
                continue
            if entry["id"] != last + 1:
                yield f"Annotation {entry['id']} follows {last}."
            last = entry["id"]
            if due.get(entry["image_id"], 0) < 1:
                yield f"Annotation {last} is one more than image {entry['image_id']} has masks."
                continue
            due[entry["image_id"]] -= 1
            yield from _broken_code(entry, sizes[entry["image_id"] - 1])
    if left := [ids[number - 1] for number, count in due.items() if count]:
        yield f"Images lack annotations: {left[:5]}."
    if listed != ids:
        yield "Its images are not the kept ones, in order."


def _entry(line: str) -> dict[str, Any] | None:
    text = line.strip().removesuffix("]}").removesuffix("],").removesuffix(",")
    found: dict[str, Any] | None = json.loads(text) if text else None
    return found


def _broken_code(entry: Mapping[str, Any], size: tuple[int, int]) -> Iterator[str]:
    code = entry["segmentation"]
    try:
        runs = rle.runs(code["counts"].encode("ascii"))
    except (BadData, ValueError) as error:
        yield f"Annotation {entry['id']}: {error}"
        return
    if tuple(code["size"]) != size or int(runs.sum()) != size[0] * size[1] or int(runs[1::2].sum()) != entry["area"]:
        yield f"Annotation {entry['id']}: its code is of {code['size']} and {runs[1::2].sum()} pixels; expected {list(size)}, {entry['area']}."


def _leaks(images: pa.Table, looks: pa.Table, params: CurateParams) -> Iterator[str]:
    """Near-duplicates are looked for again among what is kept, whatever the sorting out said."""
    split = dict(zip(images["image_id"].to_pylist(), images["split"].to_pylist(), strict=True))
    rows = [row for row in looks.to_pylist() if split.get(row["image_id"])]
    first: dict[str, str] = {}
    for row in rows:
        other = first.setdefault(row["sha256"], row["image_id"])
        if split[other] != split[row["image_id"]]:
            yield f"'{other}' and '{row['image_id']}' are the same file, in {split[other]} and {split[row['image_id']]}."
    if len(rows) < 2:
        return
    for i, j in pairs_of(rows, params).tolist():
        a, b = rows[i]["image_id"], rows[j]["image_id"]
        if split[a] != split[b]:
            yield f"'{a}' ({split[a]}) and '{b}' ({split[b]}) show the same."
