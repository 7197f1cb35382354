"""Facts about a dataset, read from its artefact: counts, version, validation, and its classes with their share of all pixels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from uss_dagster.artifacts.schemas import ESTIMATED_RANKING, IMAGES, REGIONS
from uss_dagster.artifacts.staging import content_id, read_manifest
from uss_dagster.artifacts.tables import read_table, row_groups
from uss_dagster.regions import ClassTree
from uss_dagster.regions.classes import KIND_NAMES
from uss_dagster.report.facts import Check, ClassFacts, DatasetFacts
from uss_dagster.report.published import published_rows


def read_dataset_facts(
    folder: Path, planned: Mapping[str, str], metrics: Mapping[str, object], estimates: Path | None = None
) -> DatasetFacts:
    """Facts about one dataset.

    Parameters
    ----------
    folder : Path
        The dataset's artefact.
    planned : mapping of str to str
        What the plan says of it: title, kind, truth, licence, citation.
    metrics : mapping
        Metrics on the leaderboard, by name; only their published figures count.
    estimates : Path, optional
        The artefact of its estimated ranking.
    """
    manifest = read_manifest(folder)
    index = read_table(folder / "images" / "images.parquet", IMAGES, columns=["split", "height", "width"])
    splits = index.group_by("split").aggregate([("height", "count")]).sort_by("split").to_pylist()
    pixels = pc.sum(pc.multiply(pc.cast(index["height"], "int64"), pc.cast(index["width"], "int64"))).as_py() or 0
    checks = json.loads((folder / "validation.json").read_text(encoding="utf-8"))["checks"]
    return DatasetFacts(
        **planned,
        homepage=manifest.get("homepage"),
        version=content_id(folder)[:16],
        images=manifest["counts"]["images"],
        regions=manifest["counts"].get("regions"),
        splits={row["split"]: row["height_count"] for row in splits if row["split"]},
        checks=[Check(check["check"], check["success"], check["message"]) for check in checks],
        classes=read_classes(folder / "truth", pixels),
        published=published_rows(planned.get("class_set", planned["kind"]), metrics),
        estimates=read_table(estimates / "ranking.parquet", ESTIMATED_RANKING).to_pylist() if estimates else (),
    )


def read_classes(truth: Path, pixels: int) -> list[ClassFacts]:
    """The classes of a ground truth, in the order of their tree; empty where it has none. pixels: of all images together."""
    if not (truth / "classes.json").exists():
        return []
    tree = ClassTree.from_json((truth / "classes.json").read_text(encoding="utf-8"))
    area = np.zeros(len(tree))
    images = np.zeros(len(tree), np.int64)
    for rows in row_groups([truth / "regions.parquet"], REGIONS, ["image_id", "label", "area"]):
        rows = rows.filter(pc.and_(pc.greater_equal(rows["label"], 0), pc.less(rows["label"], len(tree))))
        label = rows["label"].to_numpy()
        np.add.at(area, label, rows["area"].to_numpy())
        place = rows["image_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        has = np.zeros((len(tree), place.max(initial=-1) + 1), bool)  # a row group holds whole images
        has[label, place] = True
        for node in range(len(tree) - 1, 0, -1):
            has[tree.parent[node]] |= has[node]
        images += has.sum(axis=1)
    below = np.zeros(len(tree))
    for node in range(len(tree) - 1, 0, -1):  # an inner class without regions of its own is as large as what is below it
        area[node] = max(area[node], below[node])
        below[tree.parent[node]] += area[node]
    area[0] = max(area[0], below[0])
    shares = area / pixels if pixels else area
    return [
        ClassFacts(tree.names[node], tree.parent[node], KIND_NAMES[tree.kind[node]], float(shares[node]), int(images[node]))
        for node in range(len(tree))
    ]
