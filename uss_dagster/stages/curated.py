"""``curated``: a pool of masks (and human ones) → a checked, deduplicated, split training set, with its datasheet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from uss_dagster import registry
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.run_facts import facts_path
from uss_dagster.artifacts.staging import Staging, content_id, remove
from uss_dagster.curation.curated_set import drift_facts, judge_drift, make_set, previous_summary, write_drift_page
from uss_dagster.curation.human import Labels, labels_of_coco, labels_of_truth, no_labels
from uss_dagster.curation.params import CurateParams
from uss_dagster.curation.tables import PoolFolder
from uss_dagster.files import write_whole


def produce(key: str, cell: dict[str, Any], root: Path) -> dict[str, Any]:
    source = root / "data" / "pool" / key
    images = Images(root / "data" / "datasets" / cell["dataset"] / "images")
    params = registry.build_params(CurateParams, cell["params"], f"curated '{key}'")
    summary_path = f"reports/curated/{key}.json"
    before = previous_summary(root, summary_path)
    staging = Staging(root, f"curated {key}", [cell, content_id(source)])
    for left in list(staging.folder.iterdir()):  # one pass over what is there: nothing to resume
        remove(left)
    info = {name: cell[name] for name in ("title", "source", "methods", "licence", "citation", "homepage")}
    with Progress(f"curated {key}", len(images)) as progress:
        made, report = make_set(
            f"curated {key}", staging.folder, PoolFolder(source), _labels(cell, root), params, info, images.pixels, progress.advance
        )
    rows = judge_drift(report, before, made.summary, params)
    counts = {"images": made.summary["kept"], "masks": made.summary["masks"], "human_masks": made.summary["human_masks"]}
    staging.publish(
        root / "data" / "curated" / key,
        report,
        {
            "name": key,
            "dataset": cell["dataset"],
            "params": cell["params"],
            "labels": cell["labels"],
            "licence": cell["licence"],
            "counts": counts,
        },
    )
    write_whole(root / summary_path, json.dumps(made.summary, indent=1) + "\n")
    write_drift_page(facts_path(root, "curated", key).with_suffix(".html"), report, cell["title"], rows)
    set_aside = {f"images_{word}": number for word, number in made.summary["status"].items() if word != "kept"}
    return {**counts, **set_aside, "coverage": made.summary["coverage"], **drift_facts(rows)}


def _labels(cell: dict[str, Any], root: Path) -> Labels:
    if cell["labels"] == "none":
        return no_labels
    if cell["labels"] == "truth":
        return labels_of_truth(root / "data" / "datasets" / cell["dataset"] / "truth", cell["truth"])
    return labels_of_coco(root / cell["labels"])
