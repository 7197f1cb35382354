"""The section ``orchestration`` of params.yaml: what runs by itself, and when. Everything is off unless it says so."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dagster_dvc import executor_named
from dagster_dvc.errors import UsageError
from uss_dagster import registry
from uss_dagster.bounds import at_least, check_bounds
from uss_dagster.planning.layout import PARAMS
from uss_dagster.planning.yaml_files import YamlFile

SECTION = "orchestration"


@dataclass(frozen=True)
class Settings:
    """What Dagster does by itself.

    Parameters
    ----------
    refresh : bool, default False
        Switches the scheduled leaderboard on.
    cron : str, default '0 3 * * *'
        When it runs: minute, hour, day, month, weekday.
    timezone : str, default 'UTC'
        Time zone of ``cron`` and ``gpu_hours``.
    gpu_hours : str, default '0-24'
        Hours of the day in which stages of the pool ``gpu`` may be asked for, such as '20-6'. '0-24': always, '': never.
    watch : bool, default True
        Report what was built outside Dagster, and warn of an outdated plan.
    folders : bool, default False
        Build a dataset of kind ``folder`` when its files are new or changed.
    follow : bool, default False
        Scores, leaderboard and site follow by themselves what they are made from.
    shared : bool, default False
        Runs share each stage with other clones through the default remote, as `uss repro --shared` does.
    stale_after_hours : int, hours, default 0
        The leaderboard's freshness check fails when it was built longer ago. 0: never.
    executor : str, default 'in_process'
        What runs the stages of a run: 'in_process' (one after another), 'multiprocess' (side by side, each with a process around it), or
        where another executor is, such as 'dagster_k8s.k8s_job_executor'.
    max_concurrent : int, default 0
        With 'multiprocess', how many stages of a run at once. 0: as many as there are processors.
    owner : str, default 'team:segmentation'
        Owner of the assets: a mail address, or a team such as 'team:vision'.
    """

    refresh: bool = False
    cron: str = "0 3 * * *"
    timezone: str = "UTC"
    gpu_hours: str = "0-24"
    watch: bool = True
    folders: bool = False
    follow: bool = False
    shared: bool = False
    stale_after_hours: int = 0
    executor: str = "in_process"
    max_concurrent: int = 0
    owner: str = "team:segmentation"

    def __post_init__(self) -> None:
        if not _is_cron(self.cron):
            raise ValueError(f"cron is '{self.cron}', expected five fields such as '0 3 * * *' (minute, hour, day, month, weekday).")
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"timezone is '{self.timezone}', expected a name such as Europe/Berlin or UTC.") from None
        if self.gpu_hours and not _hours(self.gpu_hours):
            raise ValueError(f"gpu_hours is '{self.gpu_hours}', expected two hours of the day such as '20-6', or '' for never.")
        if not re.fullmatch(r"team:\w+|[^@\s]+@[^@\s]+\.[^@\s]+", self.owner):
            raise ValueError(f"owner is '{self.owner}', expected an address of mail or a team such as 'team:vision'.")
        check_bounds(self, stale_after_hours=at_least(0), max_concurrent=at_least(0))
        try:
            executor_named(self.executor, self.max_concurrent)
        except UsageError as error:
            raise ValueError(str(error)) from error

    def gpu_allowed(self, now: datetime) -> bool:
        """Whether stages on a GPU may be asked for at this moment. now: with a time zone."""
        if not (hours := _hours(self.gpu_hours)):
            return False
        first, last = hours
        hour = now.astimezone(ZoneInfo(self.timezone)).hour
        return first <= hour < last if first < last else hour >= first or hour < last


def read_settings(root: Path) -> Settings:
    """The settings of a project, checked; the defaults where params.yaml has no such section."""
    file = YamlFile(root / PARAMS)
    return registry.build_params(Settings, file.data.get(SECTION) or {}, f"{file.at(SECTION)}: {SECTION}")


def _is_cron(text: str) -> bool:
    """Whether Dagster takes this as the times of a schedule."""
    import dagster as dg

    try:
        dg.ScheduleDefinition(name="check", job_name="check", cron_schedule=text)
    except dg.DagsterInvalidDefinitionError:
        return False
    return True


def _hours(text: str) -> tuple[int, int] | None:
    hours = re.fullmatch(r"([01]?\d|2[0-4])-([01]?\d|2[0-4])", text)
    return (int(hours[1]), int(hours[2])) if hours and hours[1] != hours[2] else None
