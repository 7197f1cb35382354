"""What the sensors say and ask for: folders of images, an outdated plan, failed runs."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import pytest

from dagster_dvc import DvcProject
from uss_dagster.errors import UsageError
from uss_dagster.orchestration import sensors
from uss_dagster.orchestration.sensors import folder_sensor, folders, plan_sensor
from uss_dagster.orchestration.translator import UssTranslator
from uss_dagster.orchestration.webhook import failure_webhook
from uss_dagster.planning.contents import content_of, seen_at


def tick(sensor: dg.SensorDefinition, cursor: str | None = None) -> dg.SensorResult:
    with dg.DagsterInstance.ephemeral() as instance:
        result = sensor(dg.build_sensor_context(instance=instance, cursor=cursor))
    assert isinstance(result, dg.SensorResult)
    return result


@contextmanager
def listening(status: int = 200) -> Iterator[tuple[str, list[dict]]]:
    """A server on this machine that takes messages, and what it got."""
    got: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook?key=secret", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def failed() -> Iterator[tuple[dg.DagsterInstance, dg.ExecuteInProcessResult]]:
    @dg.asset(key=["segments", "broken"], partitions_def=dg.StaticPartitionsDefinition(["cats"]))
    def broken() -> None:
        raise dg.Failure(description="Two regions have no pixels.", allow_retries=False)

    with dg.DagsterInstance.ephemeral() as instance:
        yield instance, dg.materialize([broken], partition_key="cats", instance=instance, raise_on_error=False)


def report(failed) -> object:
    instance, result = failed
    event = next(e for e in result.all_events if e.event_type_value == "PIPELINE_FAILURE")
    context = dg.build_run_status_sensor_context("failure_webhook", event, instance, result.dagster_run)
    return failure_webhook()(context.for_run_failure())


def test_a_failed_run_is_posted_with_its_sentence(failed, monkeypatch):
    with listening() as (address, got):
        monkeypatch.setenv("USS_WEBHOOK", address)
        assert report(failed) is None
    assert got == [
        {
            "run_id": failed[1].run_id,
            "steps": ["segments__broken"],
            "partition": "cats",
            "error": "Two regions have no pixels.",
        }
    ]


def test_a_webhook_that_refuses_or_is_away_fails_nothing_and_is_not_named(failed, monkeypatch):
    with listening(500) as (address, _):
        monkeypatch.setenv("USS_WEBHOOK", address)
        said = report(failed)
    assert isinstance(said, dg.SkipReason)
    assert "did not take the message" in str(said.skip_message)
    away = report(failed)
    assert isinstance(away, dg.SkipReason)
    assert "secret" not in f"{said.skip_message}{away.skip_message}"
    monkeypatch.delenv("USS_WEBHOOK")
    assert isinstance(report(failed), dg.SkipReason)


def test_an_edit_is_told_once_by_the_check(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text("profile: small\n")
    descriptions = iter(["segments/a/cats: code", None])

    def verdict(root: Path) -> dg.AssetCheckResult:
        description = next(descriptions)
        return dg.AssetCheckResult(passed=description is None, severity=dg.AssetCheckSeverity.WARN, description=description)

    monkeypatch.setattr(sensors, "plan_verdict", verdict)
    sensor = plan_sensor("plan", tmp_path, on=True)
    first = tick(sensor)
    (event,) = first.asset_events
    assert isinstance(event, dg.AssetCheckEvaluation)
    assert (event.asset_key, event.check_name, event.passed) == (dg.AssetKey("leaderboard"), "plan_is_current", False)
    assert tick(sensor, first.cursor).skip_reason == dg.SkipReason("Nothing was edited since the last look.")
    (tmp_path / "params.yaml").write_text("profile: other\n")
    (event,) = tick(sensor, first.cursor).asset_events
    assert isinstance(event, dg.AssetCheckEvaluation)
    assert event.passed


@pytest.fixture
def own(planned, tmp_path) -> Path:
    """The planned project's parameters with a folder of images, and what is beside them."""
    (tmp_path / "dvc.yaml").write_text((planned.root / "dvc.yaml").read_text())
    shutil.copytree(planned.root / "pipelines", tmp_path / "pipelines")
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/small.yaml").write_text((planned.root / "profiles/small.yaml").read_text())
    (tmp_path / "params.yaml").write_text(
        "profile: small\ndatasets:\n  scenes: {kind: folder, path: photos}\n  more: {kind: folder, path: other}\n"
    )
    for name in ("photos/a.png", "photos/b/c.png", "photos/.hidden", "other/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_a_new_or_changed_folder_is_planned_and_its_partition_asked_for(own, planned):
    calls: list[Path] = []
    project = DvcProject(planned.root)  # its definitions know the dataset 'scenes', not 'more'
    project.root = own
    sensor = folder_sensor("folders", project, UssTranslator(), on=True, replan=calls.append)
    assert folders(own) == {"scenes": [Path("photos")], "more": [Path("other")]}
    project.__dict__["stages"] = DvcProject(planned.root).stages
    first = tick(sensor)
    assert calls == [own]
    assert [(r.partition_key, r.asset_selection) for r in first.run_requests or ()] == [("scenes", [dg.AssetKey("datasets")])]
    assert set(json.loads(first.cursor or "")) == {"scenes"}, "what the definitions do not know is looked at again"
    again = tick(sensor, first.cursor)
    assert not again.run_requests
    assert "Dataset 'more' is planned, but not loaded here" in str(again.skip_reason)
    (own / "photos/e.png").write_text("new")
    third = tick(sensor, again.cursor)
    assert [r.partition_key for r in third.run_requests or ()] == ["scenes"]
    assert third.run_requests[0].run_key != first.run_requests[0].run_key  # type: ignore[index]


def test_a_profile_that_cannot_be_planned_is_said(own, planned):
    def replan(root: Path) -> None:
        raise UsageError("params.yaml:3: no.")

    project = DvcProject(planned.root)
    project.root = own
    result = tick(folder_sensor("folders", project, UssTranslator(), on=True, replan=replan))
    assert not result.run_requests
    assert "params.yaml:3: no." in str(result.skip_reason)
    assert result.cursor is None, "it is tried again"


def test_content_follows_names_and_bytes_and_nothing_else(own):
    first = content_of(own, [Path("photos")])
    assert first == content_of(own, [Path("photos")])
    path = own / "photos/a.png"
    seen = seen_at(own, [Path("photos")])
    import os

    os.utime(path, (1, 1))
    assert content_of(own, [Path("photos")]) == first, "a touched file is what it was"
    assert seen_at(own, [Path("photos")]) != seen
    (own / "photos/.hidden").write_text("changed")
    assert content_of(own, [Path("photos")]) == first
    path.write_text("photos/A.png")
    changed = content_of(own, [Path("photos")])
    assert changed != first
    path.rename(own / "photos/z.png")
    assert content_of(own, [Path("photos")]) not in (first, changed)
    assert content_of(own, [Path("photos"), Path("nowhere")]) is None
    assert content_of(own, [Path("other/d.png")])
