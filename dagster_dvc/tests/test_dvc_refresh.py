"""Refreshing what is out of step, and reporting what was built outside: the real dvc, a real Dagster instance, a small project."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dvc_command import dvc

from dagster_dvc import DvcProject, DvcResource, DvcTranslator, Refresh, build_dvc_assets, lock_sensor
from dagster_dvc.outside_builds import changed_versions

KEY = dg.AssetKey
LC, UN, DATASETS, BOARD = KEY(["segments", "lc"]), KEY(["segments", "un"]), KEY("datasets"), KEY("leaderboard")


@pytest.fixture(scope="module")
def whole_template(built_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(shutil.copytree(built_template, tmp_path_factory.mktemp("whole") / "project"))
    dvc(root, "repro", "-q")
    return root


@pytest.fixture
def whole(whole_template: Path, tmp_path: Path) -> Path:
    """A fresh copy of the project with everything built."""
    return Path(shutil.copytree(whole_template, tmp_path / "project"))


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def refresh_of(root: Path, **options) -> Refresh:
    return Refresh(DvcProject(root), DvcResource(project_dir=str(root)), DvcTranslator(), **options)


def asked(requests: list[dg.RunRequest]) -> set[tuple[str | None, frozenset]]:
    return {(request.partition_key, frozenset(request.asset_selection or ())) for request in requests}


def edit(root: Path, old: str, new: str) -> None:
    text = (root / "grid.yaml").read_text()
    assert old in text
    (root / "grid.yaml").write_text(text.replace(old, new))


def materialize(root: Path, instance: dg.DagsterInstance, request: dg.RunRequest) -> None:
    done = dg.materialize(
        build_dvc_assets(DvcProject(root)),
        selection=list(request.asset_selection or ()),
        partition_key=request.partition_key,
        resources={"dvc": DvcResource(project_dir=str(root))},
        instance=instance,
        tags=dict(request.tags),
    )
    assert done.success


def test_in_step_asks_for_nothing(whole, instance):
    assert refresh_of(whole).wave(instance) == ([], "Everything is in step with DVC.")


def test_an_edit_asks_for_its_partitions_then_for_what_reads_them_then_for_nothing(whole, instance):
    refresh = refresh_of(whole)
    edit(whole, "lc__toy: {entry: lc, dataset: toy, code: c1", "lc__toy: {entry: lc, dataset: toy, code: c9")
    assert list(refresh.stale()) == ["segments@lc__toy", "leaderboard"]
    first, _ = refresh.wave(instance)
    assert asked(first) == {("toy", frozenset({LC}))}, "the leaderboard waits for the run it reads from"
    again, _ = refresh.wave(instance)
    assert [r.run_key for r in again] == [r.run_key for r in first], "the same work has the same key, so Dagster runs it once"
    materialize(whole, instance, first[0])
    # The result is the same as before, and DVC says so: the leaderboard has nothing to do.
    assert refresh.wave(instance) == ([], "Everything is in step with DVC.")
    (whole / "in/toy.txt").write_text("toys")
    second, _ = refresh.wave(instance)
    assert asked(second) == {("toy", frozenset({DATASETS, LC}))}, "what has other partitions than the datasets waits for them"
    materialize(whole, instance, second[0])
    third, _ = refresh.wave(instance)
    assert asked(third) == {("toy", frozenset({UN}))}
    materialize(whole, instance, third[0])
    last, _ = refresh.wave(instance)
    assert asked(last) == {(None, frozenset({BOARD}))}
    materialize(whole, instance, last[0])
    assert refresh.wave(instance) == ([], "Everything is in step with DVC.")


@pytest.mark.slow
def test_deleted_twice_is_asked_for_twice(whole, instance):
    keys = []
    for _ in range(2):
        shutil.rmtree(whole / "data/segments/un/toy")
        requests, _ = refresh_of(whole).wave(instance)
        first = next(r for r in requests if r.asset_selection == [UN])
        keys.append(first.run_key)
        materialize(whole, instance, first)
    assert len(set(keys)) == 2


def test_a_run_in_progress_asks_for_nothing(whole, instance):
    edit(whole, "code: c2", "code: c9")
    run = instance.create_run_for_job(
        dg.Definitions(assets=build_dvc_assets(DvcProject(whole)), resources={"dvc": DvcResource(project_dir=".")})
        .get_repository_def()
        .get_implicit_global_asset_job_def()
    )
    requests, why = refresh_of(whole).wave(instance)
    assert requests == []
    assert why.startswith(f"Run {run.run_id[:8]} is in progress")


def test_stages_on_a_gpu_wait_for_their_hours_with_what_reads_them(whole, instance):
    edit(whole, "code: c2", "code: c9")
    requests, why = refresh_of(whole, allowed=lambda stage: stage.text("pool") != "gpu").wave(instance)
    assert requests == []
    assert why == "1 stages wait for the hours in which they may run: segments@un__toy."


def test_a_broken_project_is_said_and_nothing_asked(whole, instance):
    (whole / "dvc.yaml").write_text("stages: [")
    requests, why = refresh_of(whole).wave(instance)
    assert requests == []
    assert "DVC cannot read the stages" in why


def look(root: Path, instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult:
    sensor = lock_sensor("outside", DvcProject(root), DvcTranslator(), on=True)
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    for event in result.asset_events:
        instance.report_runless_asset_event(event)
    return result


def reported(result: dg.SensorResult) -> list[tuple[str, str | None]]:
    return [
        (event.asset_key.to_user_string(), event.partition) for event in result.asset_events if isinstance(event, dg.AssetMaterialization)
    ]


def versions(root: Path, instance: dg.DagsterInstance) -> dict[tuple, str]:
    project = DvcProject(root)
    found = {}
    for stage in project.stages.values():
        record = instance.get_latest_data_version_record(KEY(list(stage.asset_key)), partition_key=stage.partition)
        if record and record.asset_materialization:
            found[stage.address] = (record.asset_materialization.tags or {})["dagster/data_version"]
    return found


def test_what_dvc_built_outside_is_reported_once_upstream_first(whole, instance):
    result = look(whole, instance)
    assert reported(result) == [
        ("datasets", "toy"),
        ("datasets", "voc"),
        ("segments/lc", "toy"),
        ("segments/lc", "voc"),
        ("segments/un", "toy"),
        ("leaderboard", None),
    ]
    locked = {a: next(iter(DvcProject(whole).outs_version(a).values())) for a in DvcProject(whole).stages}
    assert versions(whole, instance) == locked
    assert result.cursor
    assert look(whole, instance, result.cursor).skip_reason is not None
    assert changed_versions(instance, DvcProject(whole), DvcTranslator()) == []


@pytest.mark.slow
def test_an_older_state_is_reported_too_and_a_rebuilt_reader_with_it(whole, instance):
    look(whole, instance)
    before = (whole / "dvc.lock").read_text()
    (whole / "in/voc.txt").write_text("other")
    dvc(whole, "repro", "-q")
    assert reported(look(whole, instance)) == [("datasets", "voc"), ("segments/lc", "voc"), ("leaderboard", None)], (
        "the leaderboard was built again, with the same bytes"
    )
    after = versions(whole, instance)
    (whole / "dvc.lock").write_text(before)
    (whole / "in/voc.txt").write_text("voc")
    dvc(whole, "checkout", "-q")
    assert reported(look(whole, instance)) == [("datasets", "voc"), ("segments/lc", "voc"), ("leaderboard", None)]
    assert versions(whole, instance) != after


@pytest.mark.slow
def test_nothing_built_outside_turns_stale(whole, instance):
    from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
    from dagster._core.loader import LoadingContextForTest

    look(whole, instance)
    (whole / "in/voc.txt").write_text("other")
    dvc(whole, "repro", "-q")
    look(whole, instance)
    graph = dg.Definitions(
        assets=build_dvc_assets(DvcProject(whole)), resources={"dvc": DvcResource(project_dir=".")}
    ).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    for stage in DvcProject(whole).stages.values():
        assert resolver.get_status(KEY(list(stage.asset_key)), stage.partition) == StaleStatus.FRESH, stage.address


def test_while_a_run_is_in_progress_the_sensor_waits(whole, instance):
    job = (
        dg.Definitions(assets=build_dvc_assets(DvcProject(whole)), resources={"dvc": DvcResource(project_dir=".")})
        .get_repository_def()
        .get_implicit_global_asset_job_def()
    )
    instance.create_run_for_job(job)
    result = look(whole, instance)
    assert not result.asset_events
    assert result.cursor is None
