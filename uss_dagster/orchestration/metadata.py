"""What people look at on an asset's page, beside what the bridge reports: pictures, tables, history, the verdict of the checks.

Belongs here: choosing what is shown of which stage. Does not belong here: drawing and computing (``report``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from uss_dagster.dagster_dvc import PICTURE_BYTES, StageNode, picture, table

_BARS = "▁▂▃▄▅▆▇█"
_HISTORY = 20
_LISTED = 40
_LONGEST_TABLE = 60_000

Shown = dict[str, Any]


def describe(root: Path) -> Callable[[StageNode, dg.DagsterInstance], Shown]:
    """The hook for ``dvc_assets``: stage → metadata of what it last built."""

    def shown(stage: StageNode, instance: dg.DagsterInstance) -> Shown:
        found = dict(_validation(root, stage))
        family = stage.asset_key[0]
        if family == "features":
            found |= _features(root, stage)
        elif family == "scores":
            found |= _scores(root, stage, instance)
        elif family == "leaderboard":
            found |= _leaderboard(root)
        elif family == "site":
            found["page"] = dg.MetadataValue.path(str(root / "reports" / "site" / "index.html"))
        return found

    return shown


def spark(values: Sequence[float]) -> str:
    """A line of small bars from the lowest to the highest value; a flat line where they are equal."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    steps = [(value - low) / (high - low) if high > low else 0.5 for value in values if math.isfinite(value)]
    return "".join(_BARS[min(len(_BARS) - 1, int(step * len(_BARS)))] for step in steps)


def _validation(root: Path, stage: StageNode) -> Iterator[tuple[str, Any]]:
    path = root / (stage.text("report") or "")
    if not path.is_file():
        return
    checks = json.loads(path.read_text(encoding="utf-8")).get("checks") or []
    failed = sum(not check["success"] for check in checks)
    yield "checks_passed", f"{len(checks) - failed} of {len(checks)}"
    rows = [("✓" if check["success"] else "✗", check["check"], check["message"]) for check in checks[:_LISTED]]
    yield "validation", table(("", "check", "remark"), rows)


def _features(root: Path, stage: StageNode) -> Shown:
    from uss_dagster.report.feature_maps import features_picture

    drawn = features_picture(root, stage.asset_key[1], str(stage.partition))
    return {"principal_components": picture(drawn, "features", "image/jpeg")} if drawn and len(drawn) < PICTURE_BYTES else {}


def _scores(root: Path, stage: StageNode, instance: dg.DagsterInstance) -> Shown:
    """The cell's numbers over its dataset, each with those of earlier materialisations. As plain numbers too, which Dagster plots."""
    file = next((root / out for out in stage.outs if out.endswith(".json")), None)
    if file is None:
        return {}
    now: Mapping[str, float] = json.loads(file.read_text(encoding="utf-8"))
    filters = dg.AssetRecordsFilter(
        asset_key=dg.AssetKey(list(stage.asset_key)), asset_partitions=[stage.partition] if stage.partition else None
    )
    records = instance.fetch_materializations(filters, limit=_HISTORY).records  # newest first
    past = [record.asset_materialization.metadata for record in reversed(records) if record.asset_materialization]
    rows = []
    for name, value in now.items():
        before = [
            float(found.value) for metadata in past if (found := metadata.get(name)) is not None and isinstance(found.value, int | float)
        ]
        change = f"{value - before[-1]:+.4f}" if before else "–"
        rows.append((name, f"{value:.4f}", change, spark([*before, value])))
    plain = {name: float(value) for name, value in now.items() if math.isfinite(value)}
    return {"scores": table(("metric", "value", "change", "history"), rows), **plain}


def _leaderboard(root: Path) -> Shown:
    from uss_dagster.report import leaderboard
    from uss_dagster.report.leaderboard_plot import leaderboard_picture

    folder = root / "reports" / "leaderboard"
    text = (folder / "leaderboard.md").read_text(encoding="utf-8")
    found: Shown = {"table": dg.MetadataValue.md(text if len(text) <= _LONGEST_TABLE else f"Too long to be shown here; see {folder}.")}
    drawn = leaderboard_picture(leaderboard.read(folder))
    if drawn and len(drawn) < PICTURE_BYTES:
        found["plot"] = picture(drawn, "leaderboard")
    return found
