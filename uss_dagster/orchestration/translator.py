"""How this project's stages are called in Dagster, and which assets belong to a stage."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from dagster_dvc import DvcTranslator, StageGroup, StageGroups, StageNode
from uss_dagster.orchestration.settings import Settings
from uss_dagster.planning.cells import Cell
from uss_dagster.stages.leaderboard import Leaderboard


class UssTranslator(DvcTranslator):
    """Names as the plan gives them; every stage is a Python program."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()

    def kinds(self, stages: Sequence[StageNode]) -> set[str]:
        return super().kinds(stages) | {"python"}

    def owners(self, stages: Sequence[StageNode]) -> list[str]:
        return super().owners(stages) or [self.settings.owner]

    def tags(self, stages: Sequence[StageNode]) -> dict[str, str]:
        """Those of the plan (the stage, whether it follows its inputs), and the pool: assets can be searched by them."""
        return {"runs_on": self.pool(stages) or "cpu", **super().tags(stages)}

    def automation_condition(self, stages: Sequence[StageNode]) -> dg.AutomationCondition[Any] | None:
        """The plan marks cheap stages; what needs a GPU never follows by itself."""
        eager = self.tags(stages).get("automation") == "eager" and self.pool(stages) != "gpu"
        return dg.AutomationCondition.eager() if eager else None

    def freshness_policy(self, stages: Sequence[StageNode]) -> dg.FreshnessPolicy | None:
        hours = self.settings.stale_after_hours
        return dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=hours)) if hours and builds(stages[0], Leaderboard) else None


def builds(node: StageNode, stage: type[Cell]) -> bool:
    """Whether a node of the pipeline is a cell of this stage."""
    return node.tags.get("stage") == stage.stage


def groups_of(groups: StageGroups, stage: type[Cell]) -> list[StageGroup]:
    """The assets that this stage builds."""
    return [group for group in groups.values() if builds(group.nodes[0], stage)]
