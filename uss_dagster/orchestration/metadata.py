"""What people see on an asset's page, beside what the bridge reports: pictures, tables, history, the verdict of the checks.

Belongs here: which metadata a stage has. Does not belong here: drawing and computing (``report``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_dvc import PICTURE_BYTES, Metadata, StageNode, picture, table
from uss_dagster.files import read_json
from uss_dagster.orchestration.translator import builds
from uss_dagster.planning.layout import Layout
from uss_dagster.stages.features import Features
from uss_dagster.stages.leaderboard import Leaderboard
from uss_dagster.stages.scores import Scores
from uss_dagster.stages.site import Site

_BARS = "▁▂▃▄▅▆▇█"
_HISTORY = 20
_LISTED = 40
_LONGEST_TABLE = 60_000


def describe(root: Path) -> Callable[[StageNode, dg.DagsterInstance], Metadata]:
    """The hook for ``build_dvc_assets``: stage → metadata of what it last built."""
    layout = Layout(root)

    def stage_metadata(stage: StageNode, instance: dg.DagsterInstance) -> Metadata:
        metadata = _validation(layout, stage)
        if builds(stage, Features):
            return {**metadata, **_features(layout, stage)}
        if builds(stage, Scores):
            return {**metadata, **_scores(layout, stage, instance)}
        if builds(stage, Leaderboard):
            return {**metadata, **_leaderboard(layout)}
        if builds(stage, Site):
            return {**metadata, "page": dg.MetadataValue.path(str(layout.site / "index.html"))}
        return metadata

    return stage_metadata


def spark(values: Sequence[float]) -> str:
    """A line of small bars from the lowest to the highest value; a flat line where they are equal."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    steps = [(value - low) / (high - low) if high > low else 0.5 for value in finite]
    return "".join(_BARS[min(len(_BARS) - 1, int(step * len(_BARS)))] for step in steps)


def _validation(layout: Layout, stage: StageNode) -> Metadata:
    checks: Any = read_json(layout.root / (stage.text("report") or "")).get("checks")
    if not checks:
        return {}
    rows = [("✓" if check["success"] else "✗", check["check"], check["message"]) for check in checks[:_LISTED]]
    passed = sum(check["success"] for check in checks)
    return {"checks_passed": f"{passed} of {len(checks)}", "validation": table(("", "check", "remark"), rows)}


def _features(layout: Layout, stage: StageNode) -> Metadata:
    from uss_dagster.report.feature_maps import features_picture

    image = features_picture(layout.root, stage.asset_key[1], str(stage.partition))
    return {"principal_components": picture(image, "feature maps", "image/jpeg")} if image and len(image) < PICTURE_BYTES else {}


def _scores(layout: Layout, stage: StageNode, instance: dg.DagsterInstance) -> Metadata:
    """The cell's numbers over its dataset, each with those of earlier materialisations. As plain numbers too, which Dagster plots."""
    file = next((layout.root / out for out in stage.outs if out.endswith(".json")), None)
    if file is None:
        return {}
    numbers: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
    filters = dg.AssetRecordsFilter(
        asset_key=dg.AssetKey(list(stage.asset_key)), asset_partitions=[stage.partition] if stage.partition else None
    )
    records = instance.fetch_materializations(filters, limit=_HISTORY).records  # newest first
    past = [record.asset_materialization.metadata for record in reversed(records) if record.asset_materialization]
    rows = []
    for name, value in numbers.items():
        values = [metadata[name].value for metadata in past if name in metadata]
        before = [float(number) for number in values if isinstance(number, int | float)]
        change = f"{value - before[-1]:+.4f}" if before else "–"
        rows.append((name, f"{value:.4f}", change, spark([*before, value])))
    plain = {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
    return {"scores": table(("metric", "value", "change", "history"), rows), **plain}


def _leaderboard(layout: Layout) -> Metadata:
    from uss_dagster.report import leaderboard
    from uss_dagster.report.leaderboard_plot import leaderboard_picture

    folder = layout.leaderboard
    text = (folder / "leaderboard.md").read_text(encoding="utf-8")
    metadata: Metadata = {"table": dg.MetadataValue.md(text if len(text) <= _LONGEST_TABLE else f"The table is long; see {folder}.")}
    image = leaderboard_picture(leaderboard.read(folder))
    return {**metadata, "plot": picture(image, "leaderboard plot")} if image and len(image) < PICTURE_BYTES else metadata
