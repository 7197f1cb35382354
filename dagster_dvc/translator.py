"""How a DVC stage is called in Dagster. Subclass ``DvcTranslator`` and override what should read differently.

Belongs here: names, groups, tags, versions. Does not belong here: running, checking.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import dagster as dg

from dagster_dvc.errors import UsageError
from dagster_dvc.project import StageNode

_LISTED_STAGES = 50


class DvcTranslator:
    """The default names, all from ``meta.dagster``. ``stages`` are those of one asset, sorted by partition."""

    def asset_key(self, stage: StageNode) -> dg.AssetKey:
        return dg.AssetKey(list(stage.asset_key))

    def partition(self, stage: StageNode) -> str | None:
        return stage.partition

    def group(self, stages: Sequence[StageNode]) -> str:
        """``group``, else the first part of a key with several parts, else ``default``."""
        key = stages[0].asset_key
        return _common(stages, "group") or (re.sub(r"\W", "_", key[0]) if len(key) > 1 else "default")

    def description(self, stages: Sequence[StageNode]) -> str | None:
        return stages[0].text("description")

    def kinds(self, stages: Sequence[StageNode]) -> set[str]:
        return {"dvc"} | {kind for stage in stages for kind in stage.items("kinds")}

    def owners(self, stages: Sequence[StageNode]) -> list[str]:
        return sorted({owner for stage in stages for owner in stage.items("owners")})

    def tags(self, stages: Sequence[StageNode]) -> dict[str, str]:
        return stages[0].tags

    def pool(self, stages: Sequence[StageNode]) -> str | None:
        return _common(stages, "pool")

    def automation_condition(self, stages: Sequence[StageNode]) -> dg.AutomationCondition[Any] | None:
        """When the asset is to be built by itself; never by default."""
        return None

    def freshness_policy(self, stages: Sequence[StageNode]) -> dg.FreshnessPolicy | None:
        """How old the asset may get; any age by default."""
        return None

    def code_version(self, stages: Sequence[StageNode]) -> str | None:
        """The version all stages share, else a hash over their distinct ones: Dagster has one version an asset."""
        versions = sorted({version for stage in stages if (version := stage.text("code_version"))})
        if len(versions) <= 1:
            return versions[0] if versions else None
        return hashlib.sha256("\n".join(versions).encode()).hexdigest()[:16]

    def metadata(self, stages: Sequence[StageNode]) -> dict[str, Any]:
        """Which stages stand behind the asset, and what they run."""
        rows = [f"| {stage.partition or '–'} | `{stage.address}` | {', '.join(stage.outs)} |" for stage in stages[:_LISTED_STAGES]]
        if len(stages) > _LISTED_STAGES:
            rows.append(f"| … | {len(stages) - _LISTED_STAGES} more | |")
        table = "\n".join(["| partition | stage | outputs |", "| --- | --- | --- |", *rows])
        metadata: dict[str, Any] = {"dvc/stages": dg.MetadataValue.md(table)}
        return metadata if len(stages) > 1 else {**metadata, "dvc/command": stages[0].cmd}


def _common(stages: Sequence[StageNode], name: str) -> str | None:
    values = sorted({stage.text(name) or "" for stage in stages})
    if len(values) > 1:
        raise UsageError(
            f"Asset '{'/'.join(stages[0].asset_key)}' has several values for {name}: {', '.join(values)}. Give all its stages one."
        )
    return values[0] or None
