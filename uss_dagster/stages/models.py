"""``models``: a curated set (and, for a second round, a student) → a trained student, with its scores on the validation split.

Training goes on from its checkpoint in the work folder, so a killed run loses little.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uss_dagster import registry
from uss_dagster.artifacts.gate import Report, check_contract, check_expectations, expect
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.staging import Staging, content_id, read_manifest
from uss_dagster.errors import UssError
from uss_dagster.files import write_whole
from uss_dagster.planning.contents import dvc_hash
from uss_dagster.student.rounds import Round, loss_fall, train_round
from uss_dagster.student.settings import StudentSettings

THREADS = 2
"""Of training on a CPU: always the same, since sums in other orders give other weights."""


def produce(key: str, cell: dict[str, Any], root: Path) -> dict[str, Any]:
    from uss_dagster.runtime import torch_device
    from uss_dagster.student.data import curated_source

    curated = root / "data" / "curated" / cell["curated"]
    images = Images(root / "data" / "datasets" / cell["dataset"] / "images")
    teacher = root / "data" / "models" / cell["self_train"] if cell["self_train"] else None
    read = [content_id(curated), images.identity, content_id(teacher) if teacher else None]
    staging = Staging(root, f"models {key}", [cell, read])
    settings = registry.build_params(StudentSettings, cell["params"], f"student '{key}'")
    device = str(torch_device("auto"))
    version = dvc_hash(curated)
    facts = {
        "title": cell["title"],
        "data": f"{cell['source']} (data/curated/{cell['curated']} of {read_manifest(curated)['dataset']})",
        "version": version,
        "licence": cell["licence"],
        "command": f"uss repro {cell['stage']}@{key}",
    }
    train, val = (curated_source(curated, images.pixels, split) for split in ("train", "val"))
    result, scores = train_round(train, val, Round(f"models {key}", staging.folder, settings, facts, device, THREADS, teacher))
    summary = {**{name: round(value, 6) for name, value in scores.items()}, "loss_fall": round(loss_fall(result.losses), 6)}
    counts = {"train_images": len(train), "val_images": len(val), "steps": result.step}
    staging.publish(
        root / "data" / "models" / key,
        validate(key, staging.folder, summary),
        {
            "name": key,
            "curated": cell["curated"],
            "dataset": cell["dataset"],
            "self_train": cell["self_train"],
            "params": cell["params"],
            "training_data": version,
            "licence": cell["licence"],
            "counts": counts,
            "scores": summary,
        },
    )
    write_whole(root / "reports" / "models" / f"{key}.json", json.dumps(summary, indent=1) + "\n")
    return {**counts, **summary, "device": device, "seconds_training": round(result.seconds, 3)}


def validate(key: str, folder: Path, scores: dict[str, float]) -> Report:
    """Whether it is a model that can be used; how good it is, is for the checks of the asset."""
    report = Report(f"models {key}")
    losses = _losses(folder)
    check_contract(report, "the weights load again", _loads(folder))
    check_contract(report, "losses are numbers", (f"Line {line + 2} is {row}." for line, row in enumerate(losses) if not _finite(row)))
    check_contract(report, "scores lie in 0..1", _scores(scores))
    check_expectations(
        report,
        _frame(losses),
        [expect("expect_table_row_count_to_be_between", min_value=1), expect("expect_column_values_to_be_increasing", column="step")],
    )
    return report


def _losses(folder: Path) -> list[dict[str, str]]:
    from uss_dagster.student.training import LOSSES

    with (folder / LOSSES).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _frame(losses: list[dict[str, str]]) -> Any:
    import pandas as pd

    return pd.DataFrame({"step": [int(row["step"]) for row in losses]})


def _finite(row: dict[str, str]) -> bool:
    return all(math.isfinite(float(value)) for value in row.values() if value)


def _loads(folder: Path) -> Iterator[str]:
    from uss_dagster.student.model import Student

    try:
        Student.load(folder)
    except UssError as error:
        yield str(error)


def _scores(scores: dict[str, float]) -> Iterator[str]:
    for name, value in scores.items():
        if name != "loss_fall" and not 0 <= value <= 1:
            yield f"{name} is {value}."
