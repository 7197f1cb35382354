"""The asset graph that Dagster derives from dvc.yaml, whole, as a snapshot: a change here should be meant."""

import dagster as dg
import pytest

from uss_dagster.orchestration.build import build_defs

GRAPH = {
    "datasets": (["scenes"], []),
    "features/patches": (["scenes"], ["datasets"]),
    "segments/felzenszwalb": (["scenes"], ["datasets"]),
    "segments/kmeans": (["scenes"], ["datasets", "features/patches"]),
    "segments/slic_merge": (["scenes"], ["datasets", "features/patches"]),
    "scores/felzenszwalb": (["scenes"], ["datasets", "segments/felzenszwalb"]),
    "scores/kmeans": (["scenes"], ["datasets", "segments/kmeans"]),
    "scores/slic_merge": (["scenes"], ["datasets", "segments/slic_merge"]),
    "leaderboard": (None, ["scores/felzenszwalb", "scores/kmeans", "scores/slic_merge"]),
    "site": (None, ["datasets", "leaderboard", "scores/felzenszwalb", "scores/kmeans", "scores/slic_merge"]),
}


@pytest.fixture(scope="module")
def graph(planned):
    return build_defs(planned.root).resolve_asset_graph()


def test_assets_partitions_and_dependencies(graph):
    found = {}
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        partitions = list(node.partitions_def.get_partition_keys()) if node.partitions_def else None
        found["/".join(key.path)] = (partitions, sorted("/".join(k.path) for k in node.parent_keys))
    assert found == GRAPH


def test_every_asset_says_what_it_is(graph):
    groups = {
        "datasets": "data",
        "features": "features",
        "segments": "segments",
        "scores": "scores",
        "leaderboard": "report",
        "site": "report",
    }
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.group_name == groups[key.path[0]]
        assert len(node.description or "") > 10
        assert node.code_version
        assert {"dvc", "python"} < node.kinds
        assert node.owners == ["team:segmentation"]
        assert node.tags["stage"] == key.path[0]
        assert node.tags["runs_on"] in ("cpu", "net")


def test_every_asset_has_its_checks(graph):
    checks = {}
    for check in graph.asset_check_keys:
        checks.setdefault("/".join(check.asset_key.path), set()).add(check.name)
    assert set(checks) == set(GRAPH)
    more = {"leaderboard": {"score_regressions", "every_planned_cell", "plan_is_current"}}
    for asset, names in checks.items():
        own = {"same_bytes_again"} if asset.startswith("segments/") else more.get(asset, set())
        assert names == {"validation", "in_sync_with_dvc"} | own, asset


def test_code_version_follows_the_code_of_its_own_cell(planned):
    def versions():
        graph = build_defs(planned.root).resolve_asset_graph()
        return {"/".join(k.path): graph.get(k).code_version for k in graph.get_all_asset_keys()}

    before = versions()
    path = planned.root / "uss_dagster/methods/slic_merge.py"
    text = path.read_text()
    path.write_text(text + "\n_UNUSED = 1\n")
    planned.uss("plan")
    after = versions()
    assert {k for k in before if before[k] != after[k]} == {"segments/slic_merge"}
    path.write_text(text)
    planned.uss("plan")
    assert versions() == before


def test_selection_from_a_string(graph):
    """Guards against the antlr runtime that other packages pull in: with it this raises a TypeError."""
    selected = dg.AssetSelection.from_string('key:"segments/*"').resolve(graph)
    assert {"/".join(k.path) for k in selected} == {"segments/felzenszwalb", "segments/kmeans", "segments/slic_merge"}
    down = dg.AssetSelection.from_string('key:"scores/kmeans"+').resolve(graph)
    assert {"/".join(k.path) for k in down} == {"scores/kmeans", "leaderboard", "site"}


def test_the_definitions_module_loads_from_another_folder(planned, tmp_path):
    done = planned.dagster("definitions", "validate", "-w", "workspace.yaml")
    assert "Validation successful" in done.stdout + done.stderr
