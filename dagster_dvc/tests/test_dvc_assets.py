"""From stages to asset definitions: grouping, partitions, dependencies, names. Nothing is run."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pytest
import yaml

from dagster_dvc import DvcProject, DvcTranslator, StageNode, build_dvc_assets, dvc_sync_checks, group_stages
from dagster_dvc.errors import UsageError


def by_key(project: DvcProject, translator: DvcTranslator | None = None) -> dict[str, dg.AssetsDefinition]:
    return {a.key.to_user_string(): a for a in build_dvc_assets(project, translator)}


def project_of(root: Path, stages: dict) -> DvcProject:
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    return DvcProject(root)


def stage(asset: str = "", partition: str = "", deps: tuple[str, ...] = (), outs: tuple[str, ...] = (), **meta: object) -> dict:
    return {"cmd": "x", "deps": list(deps), "outs": list(outs), "meta": {"dagster": {"asset": asset, "partition": partition, **meta}}}


def test_one_asset_a_key_with_its_stages_as_partitions(root: Path) -> None:
    assets = by_key(DvcProject(root))
    assert list(assets) == ["datasets", "leaderboard", "segments/lc", "segments/un"]
    partitions = assets["segments/lc"].partitions_def
    assert partitions is not None
    assert partitions.get_partition_keys() == ("toy", "voc")
    assert assets["segments/lc"].partitions_def is assets["datasets"].partitions_def
    assert assets["leaderboard"].partitions_def is None
    spec = assets["segments/un"].specs_by_key[dg.AssetKey(["segments", "un"])]
    assert (spec.group_name, spec.code_version, spec.description) == ("segments", "c2", "Segments of un")
    assert spec.kinds == {"dvc", "python", "numpy"}
    assert spec.owners == ["team:vision"]
    assert spec.tags["paper"] == "yes"
    assert assets["segments/un"].op.pool == "gpu"
    assert assets["segments/lc"].op.pool is None
    assert [check.name for check in assets["segments/un"].check_specs] == ["validation"]
    assert not list(assets["datasets"].check_specs)


def test_dependencies_say_which_partition_reads_which(root: Path) -> None:
    def mapping(assets: dict[str, dg.AssetsDefinition], key: str, upstream: str) -> dg.PartitionMapping | None:
        spec = next(iter(assets[key].specs))
        return {dep.asset_key.to_user_string(): dep.partition_mapping for dep in spec.deps}[upstream]

    assets = by_key(DvcProject(root))
    assert isinstance(mapping(assets, "segments/lc", "datasets"), dg.IdentityPartitionMapping)
    assert isinstance(mapping(assets, "segments/un", "datasets"), dg.IdentityPartitionMapping)
    assert isinstance(mapping(assets, "leaderboard", "segments/lc"), dg.AllPartitionMapping)

    assets = by_key(
        project_of(
            root,
            {
                "s1": stage("src", "a", outs=("s/a",)),
                "s2": stage("src", "b", outs=("s/b",)),
                "all1": stage("all", "a", deps=("s",), outs=("all/a",)),
                "all2": stage("all", "b", deps=("s",), outs=("all/b",)),
                "cross1": stage("cross", "a", deps=("s/b",), outs=("c/a",)),
                "cross2": stage("cross", "b", deps=("s/b",), outs=("c/b",)),
                "one": stage("one", deps=("s/b",), outs=("one",)),
                "fan1": stage("fan", "a", deps=("one",), outs=("fan/a",)),
            },
        )
    )
    assert isinstance(mapping(assets, "all", "src"), dg.AllPartitionMapping)
    assert mapping(assets, "cross", "src") == dg.StaticPartitionMapping({"b": ["a", "b"]})
    assert mapping(assets, "one", "src") == dg.SpecificPartitionsPartitionMapping(["b"])
    assert mapping(assets, "fan", "one") is None
    assert dg.Definitions(assets=list(assets.values()), resources={"dvc": object()}).resolve_all_asset_specs()


def test_code_version_is_shared_or_hashed(root: Path) -> None:
    def version(first: str, second: str) -> str | None:
        project = project_of(
            root, {"a": stage("m", "a", outs=("a",), code_version=first), "b": stage("m", "b", outs=("b",), code_version=second)}
        )
        return next(iter(by_key(project)["m"].specs)).code_version

    assert version("v1", "v1") == "v1"
    assert version("", "") is None
    assert version("v1", "v2") == version("v2", "v1") not in ("v1", "v2")


def test_a_translator_can_rename_everything(root: Path) -> None:
    class Mine(DvcTranslator):
        def asset_key(self, stage: StageNode) -> dg.AssetKey:
            return super().asset_key(stage).with_prefix("mine")

        def group(self, stages: Sequence[StageNode]) -> str:
            return "ours"

    assets = by_key(DvcProject(root), Mine())
    spec = next(iter(assets["mine/segments/lc"].specs))
    assert spec.group_name == "ours"
    assert [dep.asset_key.to_user_string() for dep in spec.deps] == ["mine/datasets"]


def test_ambiguous_projects_are_refused(root: Path) -> None:
    def refused(stages: dict) -> str:
        with pytest.raises(UsageError) as caught:
            build_dvc_assets(project_of(root, stages))
        return str(caught.value)

    assert refused({"a": stage("m", "p", outs=("a",)), "b": stage("m", "p", outs=("b",))}) == (
        "Stages 'a' and 'b' both build partition 'p' of asset 'm'. Give one of them another meta.dagster.asset or partition."
    )
    assert "'b' without a partition and by 'a' with one" in refused({"a": stage("m", "p", outs=("a",)), "b": stage("m", outs=("b",))})
    assert "cannot depend on itself" in refused({"a": stage("m", "p", outs=("a",)), "b": stage("m", "q", deps=("a",), outs=("b",))})
    assert "several values for pool: cpu, gpu" in refused(
        {"a": stage("m", "p", outs=("a",), pool="gpu"), "b": stage("m", "q", outs=("b",), pool="cpu")}
    )
    assert "Asset 'm' (stage 'a')" in refused({"a": stage("m", outs=("a",), owners="not an owner")})


def test_selection_from_a_string_works(root: Path) -> None:
    """Guards the antlr runtime: an old one, which dvc's dependencies ask for, breaks every selection written as text."""
    assets = build_dvc_assets(DvcProject(root))
    selected = dg.AssetSelection.from_string('key:"segments/*" or key:"leaderboard"').resolve(assets)
    assert {key.to_user_string() for key in selected} == {"segments/lc", "segments/un", "leaderboard"}
    upstream = dg.AssetSelection.from_string('+key:"segments/un"').resolve(assets)
    assert {key.to_user_string() for key in upstream} == {"datasets", "segments/un"}


def test_definitions_hold_together(root: Path) -> None:
    project = DvcProject(root)
    definitions = dg.Definitions(
        assets=build_dvc_assets(project), asset_checks=dvc_sync_checks(project), resources={"dvc": dg.ResourceDefinition.none_resource()}
    )
    dg.Definitions.validate_loadable(definitions)
    found = group_stages(project)
    assert [s.address for s in found[dg.AssetKey(["segments", "lc"])].nodes] == ["segments@lc__toy", "segments@lc__voc"]
