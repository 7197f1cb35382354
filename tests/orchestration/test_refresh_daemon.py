"""The scheduled refresh with the daemon really running: nothing in step, exactly what an edit touches, and nothing twice."""

import contextlib
import shutil
import signal
import subprocess
import sys
import time

import dagster as dg
import pytest
from projects import Project

SWITCHED_ON = 'orchestration: {refresh: true, cron: "* * * * *"}\n'
NAME, CONTINUED, OUTSIDE = "leaderboard_refresh", "leaderboard_refresh_continued", "built_outside_dagster"


@contextlib.contextmanager
def daemon(project: Project):
    """`dagster-daemon` on the project, and the instance it writes to."""
    home = project.root / ".dagster"
    home.mkdir(exist_ok=True)
    shutil.copyfile(project.root / "dagster.yaml", home / "dagster.yaml")
    env = {**project.env, "DAGSTER_HOME": str(home)}
    words = [sys.executable, "-m", "dagster._daemon", "run", "-m", "uss_dagster.definitions"]
    # The instance first: two processes that make its tables at the same time can leave them with two revisions.
    with open(project.root / "daemon.log", "w") as log, dg.DagsterInstance.from_config(str(home)) as instance:
        instance.get_runs()
        process = subprocess.Popen(words, cwd=project.root, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield instance
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()


def ticks(instance: dg.DagsterInstance, name: str) -> list:
    """Finished ticks of a schedule or sensor, oldest first."""
    states = [s for s in instance.all_instigator_state() if s.instigator_name == name]
    if not states:
        return []
    found = instance.get_ticks(states[0].instigator_origin_id, states[0].selector_id)
    return [tick for tick in reversed(found) if tick.status.value != "STARTED"]


def next_tick(instance: dg.DagsterInstance, name: str, after: int, timeout_s: float = 300):
    """The first tick of a schedule beyond those already seen."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = ticks(instance, name)
        if len(found) > after:
            assert found[after].error is None, found[after].error
            return found[after]
        time.sleep(1)
    raise AssertionError(f"{name} did not tick")


def ended(instance: dg.DagsterInstance, count: int, timeout_s: float = 600) -> list[dg.DagsterRun]:
    """All runs, oldest first, when there are ``count`` and every one has ended."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        runs = list(reversed(instance.get_runs()))
        if len(runs) >= count and all(run.is_finished for run in runs):
            return runs
        time.sleep(1)
    raise AssertionError([(run.status, run.tags) for run in instance.get_runs()])


@pytest.mark.slow
def test_schedule_with_the_daemon(built: Project):
    built.append("params.yaml", SWITCHED_ON)
    with daemon(built) as instance:
        seen = len(ticks(instance, NAME))
        first = next_tick(instance, NAME, seen)
        assert first.status.value == "SKIPPED"
        assert first.skip_reason == "Everything is in step with DVC."
        assert instance.get_runs() == []
        assert next_tick(instance, OUTSIDE, 0).status.value in ("SUCCESS", "SKIPPED")
        known = instance.get_latest_data_version_record(dg.AssetKey("leaderboard"))
        assert known is not None, "what `dvc repro` built by hand is known without a run"

        built.append("params.yaml", "entries:\n  slic_merge: {params: {superpixels: 30}}\n")
        runs = ended(instance, 2)
        assert [sorted(key.to_user_string() for key in run.asset_selection or ()) for run in runs] == [
            ["scores/slic_merge", "segments/slic_merge"],
            ["leaderboard", "site"],
        ]
        assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
        assert [run.tags.get("dagster/partition") for run in runs] == ["scenes", None]

        seen = len(ticks(instance, NAME))
        assert next_tick(instance, NAME, seen).skip_reason == "Everything is in step with DVC."
        assert len(instance.get_runs()) == 2

        built.append("params.yaml", "  kmeans: {params: {k: 5}}\n")
        job = dg.Definitions(assets=[dg.AssetSpec("x")]).get_repository_def().get_implicit_global_asset_job_def()
        blocking = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        seen = len(ticks(instance, NAME))
        assert next_tick(instance, NAME, seen + 1).skip_reason.startswith(f"Run {blocking.run_id[:8]} is in progress")
        instance.report_run_canceled(blocking)
    assert built.dvc("status", "leaderboard").stdout
