"""What follows by itself, by Dagster's own evaluation of the conditions; and what never does."""

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest

from dagster_dvc import DvcProject, StageNode, build_dvc_assets
from uss_dagster.errors import UsageError
from uss_dagster.orchestration.build import build_defs
from uss_dagster.orchestration.settings import Settings, read_settings
from uss_dagster.orchestration.translator import UssTranslator

SOURCES = ["datasets", "features/patches", "segments/felzenszwalb", "segments/kmeans", "segments/slic_merge"]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(scope="module")
def definitions(planned) -> dg.Definitions:
    return build_defs(planned.root)


def materialized(instance: dg.DagsterInstance, *names: str) -> None:
    for name in names:
        partition = None if name in ("leaderboard", "site") else "scenes"
        instance.report_runless_asset_event(dg.AssetMaterialization(asset_key=dg.AssetKey(name.split("/")), partition=partition))


def requested(result) -> set[str]:
    return {r.key.to_user_string() for r in result.results if r.true_subset.size}


def test_scores_leaderboard_and_site_follow_and_nothing_else(definitions, instance):
    first = dg.evaluate_automation_conditions(definitions, instance)
    assert requested(first) == set(), "nothing is built, so nothing follows"
    materialized(instance, *SOURCES, "scores/felzenszwalb", "scores/kmeans", "scores/slic_merge", "leaderboard", "site")
    second = dg.evaluate_automation_conditions(definitions, instance, cursor=first.cursor)
    materialized(instance, "segments/kmeans")
    third = dg.evaluate_automation_conditions(definitions, instance, cursor=second.cursor)
    assert requested(third) == {"scores/kmeans"}
    materialized(instance, "scores/kmeans")
    fourth = dg.evaluate_automation_conditions(definitions, instance, cursor=third.cursor)
    assert requested(fourth) == {"leaderboard", "site"}
    fifth = dg.evaluate_automation_conditions(definitions, instance, cursor=fourth.cursor)
    assert requested(fifth) == set(), "asked for once"


def test_new_images_alone_start_no_features_and_no_segments(definitions, instance):
    materialized(instance, *SOURCES)
    first = dg.evaluate_automation_conditions(definitions, instance)
    materialized(instance, "datasets")
    second = dg.evaluate_automation_conditions(definitions, instance, cursor=first.cursor)
    assert not requested(second) & set(SOURCES)


def test_only_cheap_stages_have_a_condition_and_never_a_gpu_pool(definitions, planned):
    with_condition = {
        key.to_user_string()
        for key, node in ((k, definitions.resolve_asset_graph().get(k)) for k in definitions.resolve_asset_graph().get_all_asset_keys())
        if node.automation_condition
    }
    assert with_condition == {"scores/felzenszwalb", "scores/kmeans", "scores/slic_merge", "leaderboard", "site"}
    meta = {"asset": "scores/a", "partition": "b", "tags": {"stage": "scores", "automation": "eager"}}
    assert UssTranslator().automation_condition([StageNode("a", "x", meta=meta)]) is not None
    assert UssTranslator().automation_condition([StageNode("a", "x", meta={**meta, "pool": "gpu"})]) is None


def test_the_leaderboard_goes_stale_after_its_hours(planned):
    assets = build_dvc_assets(DvcProject(planned.root), UssTranslator(Settings(stale_after_hours=36)))
    policies = {a.key.to_user_string(): next(iter(a.specs)).freshness_policy for a in assets}
    assert {name for name, policy in policies.items() if policy} == {"leaderboard"}
    assert policies["leaderboard"].fail_window.to_timedelta() == timedelta(hours=36)  # type: ignore[union-attr]


def test_everything_that_runs_by_itself_is_off_unless_switched_on(definitions):
    repository = definitions.get_repository_def()
    running = {s.name for s in repository.sensor_defs if s.default_status == dg.DefaultSensorStatus.RUNNING}
    assert running == {"built_outside_dagster", "plan_out_of_date"}, "these only tell"
    assert [s.default_status for s in repository.schedule_defs] == [dg.DefaultScheduleStatus.STOPPED]


@pytest.mark.parametrize(
    ("hours", "at", "allowed"),
    [("20-6", 21, True), ("20-6", 3, True), ("20-6", 6, False), ("8-18", 8, True), ("8-18", 18, False), ("", 12, False), ("0-24", 0, True)],
)
def test_hours_of_the_gpu(hours, at, allowed):
    settings = Settings(gpu_hours=hours, timezone="Europe/Berlin")
    assert settings.gpu_allowed(datetime(2025, 7, 1, at, 30, tzinfo=timezone(timedelta(hours=2)))) is allowed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{cron: daily}", "cron is 'daily', expected five fields"),
        ("{timezone: Mars}", "timezone is 'Mars'"),
        ("{gpu_hours: 25-3}", "gpu_hours is '25-3'"),
        ("{owner: me}", "owner is 'me'"),
        ("{refrsh: true}", "Did you mean 'refresh'"),
    ],
)
def test_a_wrong_setting_is_named_with_its_line(tmp_path, text, said):
    (tmp_path / "params.yaml").write_text(f"profile: demo\norchestration: {text}\n")
    with pytest.raises(UsageError, match=r"^params.yaml:2: ") as raised:
        read_settings(tmp_path)
    assert said in str(raised.value)
