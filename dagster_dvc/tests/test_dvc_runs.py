"""Running stages through Dagster, with the real dvc: outcomes, failures, retries, progress, interruption, concurrency."""

import json
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
import yaml
from dvc_command import wait_for

from dagster_dvc import DvcProject, DvcResource, StageNode, build_dvc_assets, dvc_sync_checks, group_stages
from dagster_dvc.errors import TryAgain

QUICK = dg.RetryPolicy(max_retries=3, delay=0.05)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def run(
    root: Path,
    instance: dg.DagsterInstance,
    key: str,
    partition: str | None = "toy",
    behave: str = "",
    policy: dg.RetryPolicy = QUICK,
    **options,
):
    """Materialise one partition of one asset as the UI does, and give back Dagster's result."""
    resource = DvcResource(project_dir=str(root), progress_every_s=0, grace_s=2, env={"BEHAVE": behave})
    return dg.materialize(
        build_dvc_assets(DvcProject(root), retry_policy=policy, **options),
        selection=f'key:"{key}"',
        partition_key=partition,
        resources={"dvc": resource},
        instance=instance,
        raise_on_error=False,
    )


def metadata(result: dg.ExecuteInProcessResult) -> dict:
    (event,) = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def data_version(result: dg.ExecuteInProcessResult) -> str:
    (event,) = result.get_asset_materialization_events()
    return (event.materialization.tags or {})["dagster/data_version"]


def locked(root: Path) -> dict[str, str]:
    stages = yaml.safe_load((root / "dvc.lock").read_text())["stages"]
    return {address: out["md5"] for address, stage in stages.items() for out in stage["outs"]}


def runs(root: Path) -> list[str]:
    return (root / "runs.log").read_text().split() if (root / "runs.log").exists() else []


def failure(result: dg.ExecuteInProcessResult) -> tuple[str, dict]:
    (event,) = [e for e in result.all_events if e.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data is not None
    return data.description or "", {name: value.value for name, value in data.metadata.items()}


def logs(result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance) -> list[str]:
    return [entry.user_message for entry in instance.all_logs(result.run_id)]


def test_one_partition_runs_just_its_stage(fed: Path, instance: dg.DagsterInstance) -> None:
    result = run(fed, instance, "segments/lc", "voc")
    assert result.success
    assert runs(fed) == ["lc__voc"]
    assert data_version(result) == locked(fed)["segments@lc__voc"]
    (event,) = result.get_asset_materialization_events()
    assert event.partition == "voc"
    found = metadata(result)
    assert found["outcome"] == "built"
    assert found["content_changed"] is True
    assert found["stage"] == "segments@lc__voc"
    assert (found["seconds"], found["rows"], found["peak_memory_mb"]) == (1.5, 7, 12.25)
    assert "nested" not in found
    assert found["size_bytes"] == len("lc__voc:voc")
    assert found["validation_report"] == str(fed / "reports/validation/lc__voc.json")
    assert found["preview"].startswith("![lc__voc](data:image/png;base64,")
    assert found["duration_s"] > 0
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed, check.blocking) == ("validation", True, True)


@pytest.mark.slow
def test_unchanged_then_restored_then_built_again(fed: Path, instance: dg.DagsterInstance) -> None:
    first = run(fed, instance, "segments/lc")
    again = run(fed, instance, "segments/lc")
    assert metadata(again)["outcome"] == "unchanged"
    assert metadata(again)["content_changed"] is False
    assert data_version(again) == data_version(first)

    shutil.rmtree(fed / "data/segments/lc/toy")
    restored = run(fed, instance, "segments/lc")
    assert metadata(restored)["outcome"] == "restored from cache"
    assert (fed / "data/segments/lc/toy/x.txt").read_text() == "lc__toy:toy"
    assert runs(fed) == ["lc__toy"]

    # A dependency that goes and comes back is answered from the run cache.
    grid = (fed / "grid.yaml").read_text()
    (fed / "grid.yaml").write_text(grid.replace("entry: lc, dataset: toy, code: c1", "entry: lc, dataset: toy, code: c9"))
    changed = run(fed, instance, "segments/lc")
    assert metadata(changed)["outcome"] == "built"
    assert metadata(changed)["content_changed"] is False  # same bytes, so nothing downstream is stale
    (fed / "grid.yaml").write_text(grid)
    assert metadata(run(fed, instance, "segments/lc"))["outcome"] == "restored from cache"
    assert runs(fed) == ["lc__toy", "lc__toy"]


def test_refused_data_fails_once_with_its_reason_and_its_check(fed: Path, instance: dg.DagsterInstance) -> None:
    result = run(fed, instance, "segments/lc", behave="fail-65")
    assert not result.success
    description, details = failure(result)
    assert description == "Two regions have no pixels."
    assert details["exit_code"] == 65
    assert details["command"].startswith("python tools/work.py segment lc__toy")
    assert runs(fed) == ["lc__toy"]  # not tried again
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert "| areas_positive | 2 regions of 0 pixels |" in check.metadata["failures"].value
    assert not result.get_asset_materialization_events()
    assert "segments@lc__toy" not in locked(fed)


def test_an_old_report_does_not_speak_for_a_new_failure(fed: Path, instance: dg.DagsterInstance) -> None:
    (fed / "reports/validation").mkdir(parents=True)
    (fed / "reports/validation/lc__toy.json").write_text('{"success": false, "reasons": ["old"]}')
    result = run(fed, instance, "segments/lc", behave="fail-plain")
    description, details = failure(result)
    assert description == "Stage 'segments@lc__toy' exited with 1: ValueError: something broke"
    assert details["exit_code"] == 1
    assert "something broke" in details["last_lines"]
    assert not result.get_asset_check_evaluations()


def test_only_passing_conditions_are_tried_again(fed: Path, instance: dg.DagsterInstance) -> None:
    result = run(fed, instance, "segments/lc", behave="fail-75")
    assert result.success
    assert runs(fed) == ["lc__toy"] * 3
    assert len([event for event in result.all_events if event.is_step_restarted]) == 2

    exhausted = run(fed, instance, "segments/un", behave="fail-75", policy=dg.RetryPolicy(max_retries=1, delay=0.05))
    assert failure(exhausted)[0] == "The disk is full."
    assert runs(fed).count("un__toy") == 2


def test_a_killed_stage_says_so(fed: Path, instance: dg.DagsterInstance) -> None:
    description, _ = failure(run(fed, instance, "segments/lc", behave="killed"))
    assert "SIGKILL, most likely because memory ran out" in description


def test_a_missing_upstream_is_named(root: Path, instance: dg.DagsterInstance) -> None:
    description, _ = failure(run(root, instance, "segments/lc"))
    assert description == ("Stage 'segments@lc__toy' needs data/datasets/toy, which does not exist: materialise 'datasets@toy' first.")


def test_a_broken_lock_file_of_dvc_is_not_waited_for(fed: Path, instance: dg.DagsterInstance) -> None:
    (fed / ".dvc/tmp/rwlock").write_text('{"read": 1}')
    description, _ = failure(run(fed, instance, "segments/lc"))
    assert "remove .dvc/tmp/rwlock and try again" in description


def test_a_lock_file_that_a_kill_cut_off_stops_nobody(fed: Path, instance: dg.DagsterInstance) -> None:
    """DVC by itself ends with an error, each time."""
    for text in ("{", ""):
        (fed / ".dvc/tmp/rwlock").write_text(text)
        assert run(fed, instance, "segments/lc").success


def test_progress_is_logged_and_other_lines_too(fed: Path, instance: dg.DagsterInstance) -> None:
    result = run(fed, instance, "segments/lc", behave="progress")
    said = logs(result, instance)
    assert "segments: 3/32 images (9 %)" in said
    assert "segments: 32/32 images (100 %)" in said
    assert "a line of its own" in said
    assert not [line for line in said if '"event"' in line]


def test_the_hook_runs_first_and_its_errors_are_failures(fed: Path, instance: dg.DagsterInstance) -> None:
    seen: list[str] = []

    def before(stage: StageNode) -> None:
        seen.append(stage.address)
        assert not runs(fed)
        raise TryAgain("The plan is being written.")

    result = run(fed, instance, "segments/lc", before=before)
    assert failure(result)[0] == "The plan is being written."
    assert seen == ["segments@lc__toy"] * 4  # a passing condition: three more tries


@pytest.mark.slow
def test_a_failed_run_puts_the_old_output_back(fed: Path, instance: dg.DagsterInstance) -> None:
    assert run(fed, instance, "segments/lc").success
    (fed / "in/toy.txt").write_text("other")
    assert run(fed, instance, "datasets").success
    lock = (fed / "dvc.lock").read_bytes()
    assert not run(fed, instance, "segments/lc", behave="fail-65").success
    assert (fed / "data/segments/lc/toy/x.txt").read_text() == "lc__toy:toy"
    assert (fed / "dvc.lock").read_bytes() == lock


def test_assets_of_one_partition_run_in_order_in_one_run(root: Path, instance: dg.DagsterInstance) -> None:
    result = run(root, instance, 'segments/lc" or key:"datasets')
    assert result.success
    assert runs(root) == ["toy", "lc__toy"]


def test_in_sync_check_names_what_changed(fed: Path, instance: dg.DagsterInstance) -> None:
    def check(key: str) -> dg.AssetCheckEvaluation:
        project = DvcProject(fed)
        result = dg.materialize(
            [*build_dvc_assets(project), *dvc_sync_checks(project)],
            selection=dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey(key.split("/")), "in_sync_with_dvc")),
            resources={"dvc": DvcResource(project_dir=str(fed))},
            instance=instance,
        )
        (evaluation,) = result.get_asset_check_evaluations()
        return evaluation

    assert check("datasets").passed
    (fed / "in/voc.txt").write_text("edited")
    evaluation = check("datasets")
    assert not evaluation.passed
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    assert "| voc | datasets@voc | dependency in/voc.txt: modified |" in str(evaluation.metadata["changes"].value)
    assert "toy" not in str(evaluation.metadata["changes"].value)
    assert "segments@lc__toy: never built (and 1 more)" in str(check("segments/lc").description)

    run(fed, instance, "segments/lc")
    grid = (fed / "grid.yaml").read_text()
    (fed / "grid.yaml").write_text(grid.replace("lc, dataset: toy, code: c1", "lc, dataset: toy, code: c7"))
    assert "parameter segments.lc__toy in grid.yaml: modified" in str(check("segments/lc").metadata["changes"].value)


@pytest.mark.slow
def test_status_while_a_stage_runs_reports_it_as_being_built(fed: Path) -> None:
    project = DvcProject(fed)
    busy = DvcResource(project_dir=str(fed), env={"BEHAVE": "slow-5s"})
    thread = threading.Thread(target=busy.repro, args=(Quiet(), "segments@lc__toy"))
    thread.start()
    wait_for(lambda: runs(fed))
    status = busy.status([project.stages["segments@lc__toy"], project.stages["datasets@voc"]])
    thread.join()
    assert status == {"segments@lc__toy": ["is being built, or reads what is being built"]}
    assert busy.status([project.stages["segments@lc__toy"]]) == {}


@pytest.mark.slow
def test_a_run_waits_for_another_process_that_builds_the_same(fed: Path, instance: dg.DagsterInstance) -> None:
    slow = DvcResource(project_dir=str(fed), env={"BEHAVE": "slow-5s"})
    thread = threading.Thread(target=slow.repro, args=(Quiet(), "segments@lc__toy"))
    thread.start()
    wait_for(lambda: runs(fed))
    result = run(fed, instance, "segments/lc")
    thread.join()
    assert metadata(result)["outcome"] == "unchanged"
    assert runs(fed) == ["lc__toy"]
    (waiting,) = [line for line in logs(result, instance) if line.startswith("Waiting for another dvc process")]
    assert "repro --single-item segments@lc__toy" in waiting


def test_a_prerequisite_has_no_asset_and_is_built_with_what_reads_it(root: Path, instance: dg.DagsterInstance) -> None:
    file = root / "dvc.yaml"
    first = """
  first:
    cmd: echo first >> runs.log && mkdir -p data/first && echo 1 > data/first/stamp
    deps: [in/voc.txt]
    outs: [data/first]
    meta: {dagster: {prerequisite: true}}
"""
    text = file.read_text().replace('deps: ["${item.file}"]', 'deps: ["${item.file}", data/first]')
    file.write_text(text + first.lstrip("\n"))
    project = DvcProject(root)
    assert project.prerequisites("datasets@toy") == ("first",)
    assert dg.AssetKey("first") not in group_stages(project)
    assert run(root, instance, "datasets").success
    assert runs(root) == ["first", "toy"]
    assert {"first", "datasets@toy"} <= set(locked(root))
    assert run(root, instance, "datasets").success
    assert runs(root) == ["first", "toy"]


@pytest.mark.slow
def test_eight_at_once_all_end_up_in_the_lock(fed: Path) -> None:
    grid = yaml.safe_load((fed / "grid.yaml").read_text())
    grid["segments"] = {f"e{n}__toy": {"entry": f"e{n}", "dataset": "toy", "code": "c", "pool": ""} for n in range(8)}
    (fed / "grid.yaml").write_text(yaml.safe_dump(grid))
    failures: list[str] = []

    def one(n: int) -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            result = run(fed, instance, f"segments/e{n}", behave="slow-1s")
            if not result.success:
                failures.append(failure(result)[0])

    threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {f"segments@e{n}__toy" for n in range(8)} <= set(locked(fed))
    assert sorted(runs(fed)) == [f"e{n}__toy" for n in range(8)]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_nothing_behind(fed: Path, instance: dg.DagsterInstance, number: signal.Signals) -> None:
    assert run(fed, instance, "segments/lc").success
    grid = (fed / "grid.yaml").read_text()
    (fed / "grid.yaml").write_text(grid.replace("lc, dataset: toy, code: c1", "lc, dataset: toy, code: c2"))
    lock = (fed / "dvc.lock").read_bytes()
    script = textwrap.dedent(
        f"""
        import dagster as dg
        from dagster_dvc import DvcProject, DvcResource, build_dvc_assets
        resource = DvcResource(project_dir={str(fed)!r}, grace_s=3, env={{"BEHAVE": "sleep"}})
        assets = build_dvc_assets(DvcProject({str(fed)!r}))
        dg.materialize(assets, selection='key:"segments/lc"', partition_key="toy", resources={{"dvc": resource}})
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for((fed / "pids.json").exists, 30)
        wait_for(lambda: (fed / "pids.json").read_text().endswith("]"))
        group = [psutil.Process(pid) for pid in json.loads((fed / "pids.json").read_text())]
        group.append(group[0].parent())
        process.send_signal(number)
        started = time.monotonic()
        process.wait(15)
        wait_for(lambda: not [p for p in group if p.is_running() and p.status() != psutil.STATUS_ZOMBIE], 15)
        assert time.monotonic() - started < 15
    finally:
        process.kill()
        process.wait()
    assert (fed / "dvc.lock").read_bytes() == lock
    if number != signal.SIGKILL:  # after that nothing of ours is left to put the output back; `dvc checkout` does
        assert (fed / "data/segments/lc/toy/x.txt").read_text() == "lc__toy:toy"


class Quiet:
    """A context whose log nobody reads."""

    class log:  # noqa: N801
        info = debug = staticmethod(lambda message: None)


def test_a_stage_that_is_newer_than_the_definitions_is_named(fed: Path, instance: dg.DagsterInstance) -> None:
    def edit(stage: object) -> None:
        file = fed / "dvc.yaml"
        added = "  more:\n    cmd: python tools/work.py copy more in/toy.txt data/more\n    outs: [data/more]\n"
        file.write_text(file.read_text().replace("deps: [data/segments]", "deps: [data/more]") + added)

    description, _ = failure(run(fed, instance, "leaderboard", None, before=edit))
    assert description == (
        "Stage 'leaderboard' needs data/more, which does not exist: load the definitions again, which are older than the files of DVC, "
        "and materialise 'more' first."
    )
