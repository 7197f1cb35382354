"""``leaderboard``: the scores of all planned cells → one ranked table (parquet, csv, md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uss_dagster.artifacts.gate import Report, check_contract, check_expectations, expect
from uss_dagster.artifacts.staging import Staging, content_id, read_manifest
from uss_dagster.report import leaderboard
from uss_dagster.report.published import published_rows


def produce(key: str, cell: dict[str, Any], root: Path) -> dict[str, Any]:
    folders = [root / "data" / "scores" / c.split("__")[0] / c.split("__")[1] for c in cell["cells"]]
    versions = {c: content_id(folder) for c, folder in zip(cell["cells"], folders, strict=True)}
    staging = Staging(root, key, [cell, versions])
    entries = {name: {**facts, "versions": {}} for name, facts in cell["entries"].items()}
    datasets = {name: dict(facts) for name, facts in cell["datasets"].items()}
    for folder in folders:
        manifest = read_manifest(folder)
        entries[manifest["entry"]]["versions"][manifest["dataset"]] = manifest["segments"][:16]
        datasets[manifest["dataset"]]["version"] = manifest["truth"][:16]
    frame = leaderboard.build(folders, entries, datasets, cell["metrics"])
    published = {name: list(published_rows(facts["kind"], cell["metrics"])) for name, facts in cell["datasets"].items()}
    leaderboard.write(frame, staging.folder, published)
    report = Report(key)
    planned = set(cell["cells"])
    found = {f"{e}__{d}" for e, d in zip(frame["entry"], frame["dataset"], strict=True)}
    check_contract(report, "every planned cell is on the leaderboard", [f"Cell '{c}' is missing." for c in sorted(planned - found)])
    check_expectations(
        report,
        frame,
        [
            expect("expect_column_values_to_not_be_null", column="value"),
            expect("expect_column_values_to_be_between", column="rank", min_value=1),
            expect("expect_compound_columns_to_be_unique", column_list=[*leaderboard.GROUP, "entry"]),
        ],
    )
    staging.publish(root / "reports" / "leaderboard", report, {"scores": versions, "counts": {"rows": len(frame)}})
    return {"rows": len(frame), "images": sum(read_manifest(f)["counts"]["scored"] for f in folders)}
