"""Stages grouped into assets: one asset a key, one partition a stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import dagster as dg

from dagster_dvc.errors import UsageError
from dagster_dvc.project import DvcProject, StageNode
from dagster_dvc.translator import DvcTranslator


@dataclass(frozen=True)
class StageGroup:
    """The stages behind one asset, by partition; an unpartitioned asset has the one key None."""

    key: dg.AssetKey
    stages: Mapping[str | None, StageNode]
    partitions_def: dg.StaticPartitionsDefinition | None

    @property
    def nodes(self) -> list[StageNode]:
        return list(self.stages.values())


StageGroups = Mapping[dg.AssetKey, StageGroup]
AssetOfStage = Mapping[str, tuple[StageGroup, str | None]]
"""Address of a stage → the asset and the partition that it builds."""


def group_stages(project: DvcProject, translator: DvcTranslator | None = None) -> StageGroups:
    """Group a project's stages into assets, sorted by key. Assets with the same partitions share one definition of them."""
    stages = _by_key(project, translator or DvcTranslator())
    definitions: dict[tuple[str, ...], dg.StaticPartitionsDefinition] = {}
    groups = {}
    for key, of_key in sorted(stages.items(), key=lambda item: list(item[0].path)):
        names = tuple(sorted(partition for partition in of_key if partition is not None))
        if None in of_key and names:
            raise UsageError(
                f"Asset '{key.to_user_string()}' is built by '{of_key[None].address}' without a partition and by "
                f"'{next(stage for partition, stage in of_key.items() if partition).address}' with one. "
                "Give all its stages a meta.dagster.partition, or none."
            )
        if names and names not in definitions:
            definitions[names] = dg.StaticPartitionsDefinition(names)
        groups[key] = StageGroup(key, {partition: of_key[partition] for partition in names or (None,)}, definitions.get(names))
    return groups


def _by_key(project: DvcProject, translator: DvcTranslator) -> dict[dg.AssetKey, dict[str | None, StageNode]]:
    """Asset key to its stages by partition. A ``foreach`` in which an item reads what another made gives an asset for each item."""
    stages: dict[dg.AssetKey, dict[str | None, StageNode]] = {}
    for stage in project.stages.values():
        if stage.prerequisite:
            continue
        key, partition = translator.asset_key(stage), translator.partition(stage)
        of_key = stages.setdefault(key, {})
        if partition in of_key:
            what = f"partition '{partition}' of asset" if partition is not None else "asset"
            raise UsageError(
                f"Stages '{of_key[partition].address}' and '{stage.address}' both build {what} '{key.to_user_string()}'. "
                "Give one of them another meta.dagster.asset or partition."
            )
        of_key[partition] = stage
    for key, of_key in list(stages.items()):
        addresses = {stage.address for stage in of_key.values()}
        chained = any(addresses.intersection(project.upstream[address]) for address in addresses)
        if chained and all(partition == stage.item and not stage.text("asset") for partition, stage in of_key.items()):
            del stages[key]
            stages |= {dg.AssetKey([*key.path, str(item)]): {None: stage} for item, stage in of_key.items()}
    return stages


def assets_by_stage(groups: StageGroups) -> AssetOfStage:
    """Address of each stage → its asset and partition."""
    return {stage.address: (group, partition) for group in groups.values() for partition, stage in group.stages.items()}


def upstream_first(addresses: list[str], upstream: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """The addresses, each after those of them that it reads; otherwise in the order given."""
    pending = dict.fromkeys(addresses)

    def visit(address: str) -> Iterator[str]:
        if address in pending:
            del pending[address]
            for source in upstream[address]:
                yield from visit(source)
            yield address

    for address in addresses:
        yield from visit(address)


def asset_deps(group: StageGroup, groups: StageGroups, asset_of: AssetOfStage, project: DvcProject) -> list[dg.AssetDep]:
    """Upstream assets, each with the partitions of it that each partition of this one reads."""
    reads: dict[dg.AssetKey, dict[str | None, set[str | None]]] = {}
    for partition, stage in group.stages.items():
        for address in project.upstream[stage.address]:
            if project.stages[address].prerequisite:
                continue
            source, source_partition = asset_of[address]
            if source.key == group.key:
                raise UsageError(
                    f"Stage '{stage.address}' reads what '{address}' makes, and both belong to asset '{group.key.to_user_string()}'. "
                    "Give them different meta.dagster.asset names: an asset cannot depend on itself."
                )
            reads.setdefault(source.key, {}).setdefault(partition, set()).add(source_partition)
    return [dg.AssetDep(key, partition_mapping=_partition_mapping(group, groups[key], reads[key])) for key in groups if key in reads]


def _partition_mapping(group: StageGroup, source: StageGroup, reads: Mapping[str | None, set[str | None]]) -> dg.PartitionMapping | None:
    """The simplest Dagster mapping that says exactly which partitions read which."""
    if source.partitions_def is None:
        return None
    everything = set(source.stages)
    if group.partitions_def is None:
        read = reads[None]
        return dg.AllPartitionMapping() if read == everything else dg.SpecificPartitionsPartitionMapping(sorted(filter(None, read)))
    if all(reads.get(partition) == {partition} for partition in group.stages):
        return dg.IdentityPartitionMapping()
    if all(reads.get(partition) == everything for partition in group.stages):
        return dg.AllPartitionMapping()
    readers: dict[str, list[str]] = {}
    for partition, read in reads.items():
        for name in filter(None, read):
            readers.setdefault(name, []).append(str(partition))
    return dg.StaticPartitionMapping({name: sorted(names) for name, names in sorted(readers.items())})
