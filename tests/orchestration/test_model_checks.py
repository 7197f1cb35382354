"""Trained students in Dagster: their assets, and the checks of their scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from projects import SMALL, make_project

from dagster_dvc.project import LockedOut
from uss_dagster.orchestration import model_checks as models
from uss_dagster.orchestration.build import build_defs

STUDENTS = """\
curated:
  masks: {dataset: scenes, entry: kmeans}
students:
  first: {curated: masks}
  second: {curated: masks, self_train: first}
  kept: {curated: masks, push: false}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory):
    profile = SMALL + "  learnt: {method: student, params: {model: second}}\n" + STUDENTS
    return make_project(tmp_path_factory.mktemp("students") / "project", profile)


@pytest.fixture(scope="module")
def defs(project):
    return build_defs(project.root)


def test_assets_of_students(defs):
    graph = defs.resolve_asset_graph()
    parents = {
        name: {k.to_user_string() for k in graph.get(dg.AssetKey(["models", name])).parent_keys} for name in ("first", "second", "kept")
    }
    assert parents["first"] == parents["kept"] == {"datasets", "curated/masks"}
    assert parents["second"] == {"datasets", "curated/masks", "models/first"}
    assert {k.to_user_string() for k in graph.get(dg.AssetKey(["segments", "learnt"])).parent_keys} == {"datasets", "models/second"}
    for name in ("first", "second", "kept"):
        node = graph.get(dg.AssetKey(["models", name]))
        assert (node.group_name, node.automation_condition, node.tags["runs_on"]) == ("models", None, "gpu"), "never trained by itself"
        assert list(node.partitions_def.get_partition_keys()) == ["scenes"]
        checks = {check.name for check in graph.asset_check_keys if check.asset_key == node.key}
        assert checks == {"validation", "in_sync_with_dvc", "average_recall", "click_oracle_at_least_max", "loss_fell"}


def test_checks_read_the_scores_of_the_last_run(defs, project):
    checks = {name: check for check in defs.asset_checks or () for asset, name in ((k.asset_key, k.name) for k in check.check_keys)
              if asset == dg.AssetKey(["models", "first"]) and name in (models.RECALL, models.CLICKS, models.LEARNT)}  # fmt: skip
    assert all(check().passed for check in checks.values()), "nothing is built yet"
    file = project.root / "reports/models/first.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"ar1000": 0.0, "click_max": 0.5, "click_oracle": 0.4, "loss_fall": 0.1}))
    said = {name: check() for name, check in checks.items()}
    assert not any(result.passed for result in said.values())
    assert {result.severity for result in said.values()} == {dg.AssetCheckSeverity.WARN}
    assert said[models.CLICKS].description == "Oracle is 0.400, Max 0.500."
    file.write_text(json.dumps({"ar1000": 0.4, "click_max": 0.5, "click_oracle": 0.5, "loss_fall": 0.7}))
    assert all(check().passed for check in checks.values())


@pytest.mark.parametrize(
    ("rule", "scores", "before", "passed"),
    [
        (models.recall, {"ar1000": 0.4}, None, True),
        (models.recall, {"ar1000": 0.4}, {"ar1000": 0.415}, True),
        (models.recall, {"ar1000": 0.4}, {"ar1000": 0.43}, False),
        (models.recall, {"loss_fall": 0.4}, None, False),
        (models.clicks, {"loss_fall": 0.4}, None, False),
        (models.learnt, {"loss_fall": 0.3}, None, True),
        (models.learnt, {"loss_fall": 0.2}, None, False),
    ],
)
def test_rules(rule, scores, before, passed):
    assert rule(scores, before)[0] is passed


def test_the_version_before_is_the_newest_committed_one_that_differs(tmp_path: Path):
    stage = type("Stage", (), {"address": "models@a"})()
    (tmp_path / ".dvc/cache/ol").mkdir(parents=True)
    (tmp_path / ".dvc/cache/ol/d").write_text('{"ar1000": 0.7}')
    now = (LockedOut("data/models/a", "1.dir", 1, 1), LockedOut("reports/models/a.json", "2", 1, 1))
    old = (replace(now[0], hash="0.dir"), replace(now[1], hash="old"))

    class Project:
        root = tmp_path

        def outs_version(self, address):
            return {out.path: out.hash for out in now}

        def committed_outs(self, address):
            return iter([("c3", now), ("c2", ()), ("c1", old)])

    assert models.scores_before(stage, Project()) == {"ar1000": 0.7}
