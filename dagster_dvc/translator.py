"""How a DVC stage is called in Dagster. Subclass ``DvcTranslator`` and override what should read differently.

Belongs here: names, groups, tags, versions, policies. Does not belong here: running, checking.
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
    """The default names, all from ``meta.dagster`` of the stages and, where that says nothing, from their own names.

    Every method may be overridden. Those that take ``stage`` are asked for each stage; those that take ``stages`` once for each asset, with
    its stages sorted by partition. An asset has one value for all its partitions, so two stages of it that say different things in
    ``meta.dagster`` are refused.

    Examples
    --------
    Keys below a prefix, and everything that trains on a GPU in a pool of its own::

        class Mine(DvcTranslator):
            def asset_key(self, stage):
                return super().asset_key(stage).with_prefix("churn")

            def pool(self, stages):
                return "gpu" if any("train" in stage.cmd for stage in stages) else None

        defs = dg.Definitions(assets=build_dvc_assets(project, Mine()), resources={"dvc": DvcResource(project_dir=".")})
    """

    def asset_key(self, stage: StageNode) -> dg.AssetKey:
        """``asset`` (parts separated by slashes), else the folder of the dvc.yaml and the stage's name without its item.

        Examples
        --------
        Each item of a ``foreach`` an asset of its own, as ``train/us``, instead of a partition::

            def asset_key(self, stage):
                return dg.AssetKey([*stage.asset_key, stage.item] if stage.item else stage.asset_key)

            def partition(self, stage):
                return None
        """
        return dg.AssetKey(list(stage.asset_key))

    def partition(self, stage: StageNode) -> str | None:
        """``partition``, else the item of a ``foreach`` or ``matrix`` where no ``asset`` is named; None: the asset is not partitioned."""
        return stage.partition

    def group(self, stages: Sequence[StageNode]) -> str:
        """``group``, else the first part of a key with several parts, else ``default``.

        Examples
        --------
        By the folder of the dvc.yaml::

            def group(self, stages):
                return stages[0].address.rpartition(":")[0].split("/")[0] or "main"
        """
        key = stages[0].asset_key
        return _common(stages, "group") or (re.sub(r"\W", "_", key[0]) if len(key) > 1 else "default")

    def description(self, stages: Sequence[StageNode]) -> str | None:
        """``description`` of the first stage, else its ``desc`` in dvc.yaml."""
        return stages[0].text("description") or stages[0].desc

    def kinds(self, stages: Sequence[StageNode]) -> set[str]:
        """``dvc`` and ``kinds``; Dagster's page shows an icon for many, such as ``python`` or ``parquet``."""
        return {"dvc"} | {kind for stage in stages for kind in stage.items("kinds")}

    def owners(self, stages: Sequence[StageNode]) -> list[str]:
        """``owners``: addresses of mail, or ``team:NAME``."""
        return sorted({owner for stage in stages for owner in stage.items("owners")})

    def tags(self, stages: Sequence[StageNode]) -> dict[str, str]:
        """``tags`` of the first stage: a mapping, or ``name=value`` pairs separated by commas."""
        return stages[0].tags

    def pool(self, stages: Sequence[StageNode]) -> str | None:
        """``pool``: Dagster runs as many stages of a pool at once as its settings say."""
        return _common(stages, "pool")

    def pull(self, stage: StageNode) -> bool:
        """``pull``: whether what a stage lacks, its inputs and its recorded result, is got from the default remote before it runs.

        Examples
        --------
        Everything but what is made on this machine in a second::

            def pull(self, stage):
                return stage.address != "prepare"
        """
        return bool(stage.meta.get("pull"))

    def push(self, stage: StageNode) -> bool | str:
        """``push``: whether its result is put into the default remote after it ran, or the name of a remote.

        Examples
        --------
        Models into a remote of their own::

            def push(self, stage):
                return "models" if any(out.startswith("models/") for out in stage.outs) else False
        """
        policy = stage.meta.get("push") or False
        return policy if isinstance(policy, bool) else str(policy)

    def automation_condition(self, stages: Sequence[StageNode]) -> dg.AutomationCondition[Any] | None:
        """When the asset is to be built by itself; never by default.

        Examples
        --------
        As soon as what it reads is built::

            def automation_condition(self, stages):
                return dg.AutomationCondition.eager()
        """
        return None

    def freshness_policy(self, stages: Sequence[StageNode]) -> dg.FreshnessPolicy | None:
        """How old the asset may get; any age by default.

        Examples
        --------
        A week::

            def freshness_policy(self, stages):
                return dg.FreshnessPolicy.time_window(fail_window=timedelta(days=7))
        """
        return None

    def code_version(self, stages: Sequence[StageNode]) -> str | None:
        """``code_version`` that all stages share, else a hash over their distinct ones: Dagster has one version an asset."""
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

    def asset_spec(self, spec: dg.AssetSpec, stages: Sequence[StageNode]) -> dg.AssetSpec:
        """The last word on an asset: gets what the methods above made, returns what Dagster gets. The key stays as ``asset_key`` says.

        Examples
        --------
        A link to the code::

            def asset_spec(self, spec, stages):
                return spec.merge_attributes(metadata={"code": dg.MetadataValue.url(f"https://example.org/{stages[0].address}")})
        """
        return spec


def _common(stages: Sequence[StageNode], name: str) -> str | None:
    values = sorted({stage.text(name) or "" for stage in stages})
    if len(values) > 1:
        raise UsageError(
            f"Asset '{'/'.join(stages[0].asset_key)}' has several values for {name}: {', '.join(values)}. Give all its stages one."
        )
    return values[0] or None
