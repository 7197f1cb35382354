"""The checks and the metadata of real runs: which run has them, and what they say after an edit that makes a score fall."""

import dagster as dg
import pytest
from projects import Project

from uss_dagster.orchestration.build import build_defs

KEY = dg.AssetKey
SPOT = dg.AssetCheckKey(KEY(["segments", "felzenszwalb"]), "same_bytes_again")


def git(project: Project, *words: str) -> str:
    return project.run("git", "-c", "user.name=a", "-c", "user.email=a@b", *words).stdout


@pytest.mark.slow
def test_checks_of_real_runs(built: Project, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(built.root))
    git(built, "add", "-A")
    git(built, "commit", "-qm", "as it was")
    commit = git(built, "log", "-1", "--format=%h").strip()
    built.append("params.yaml", "entries:\n  felzenszwalb: {params: {scales: 1, smallest: 20.0, largest: 20.0}}\n")
    built.uss("repro")
    job = build_defs(built.root).resolve_implicit_global_asset_job_def()

    def run(instance, *keys: str, checks=frozenset(), partition=None):
        found = job.get_subset(asset_selection={KEY(key.split("/")) for key in keys}, asset_check_selection=checks or None)
        result = found.execute_in_process(instance=instance, partition_key=partition)
        return result, {c.check_name: c for c in result.get_asset_check_evaluations()}

    with dg.DagsterInstance.ephemeral() as instance:
        result, checks = run(instance, "leaderboard")
        fallen = checks["score_regressions"]
        assert (fallen.passed, fallen.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert f"numbers fell since {commit}" in (fallen.description or "")
        assert "felzenszwalb on scenes: " in (fallen.description or "")
        assert fallen.metadata["numbers_compared"].value == 21
        assert checks["every_planned_cell"].passed
        assert checks["plan_is_current"].passed
        (event,) = result.asset_materializations_for_node("leaderboard")
        assert "# Leaderboard" in str(event.metadata["table"].value)
        assert str(event.metadata["plot"].value).startswith("![leaderboard plot](data:image/png;base64,")
        assert event.metadata["checks_passed"].value == "4 of 4"

        history = []
        for _ in range(2):
            result, checks = run(instance, "features/patches", "segments/felzenszwalb", "scores/felzenszwalb", partition="scenes")
            assert SPOT.name not in checks, "nobody asked for it"
            (event,) = result.asset_materializations_for_node("scores__felzenszwalb")
            assert event.metadata["nm_covering"].value == pytest.approx(0.1422, abs=0.0005)
            history.append(str(event.metadata["scores"].value))
        assert "| nm_covering | 0.1422 | – | ▅ |" in history[0]
        assert "| nm_covering | 0.1422 | +0.0000 | ▅▅ |" in history[1]
        (event,) = result.asset_materializations_for_node("features__patches")
        assert str(event.metadata["principal_components"].value).startswith("![feature maps](data:image/jpeg;base64,")

        _, checks = run(instance, checks={SPOT})
        assert checks[SPOT.name].passed, checks[SPOT.name].description
        assert "2 images give the same bytes again" in str(checks[SPOT.name].metadata["computed_again"].value)
    assert "felzenszwalb" in built.dvc("metrics", "diff", "HEAD", "--md").stdout
