"""The section ``orchestration`` of params.yaml: what runs by itself, and when. Everything is off unless it says so."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from uss_dagster import registry
from uss_dagster.planning import profiles as profile
from uss_dagster.planning.yaml_files import YamlFile

SECTION = "orchestration"


@dataclass(frozen=True)
class Settings:
    """refresh: the one switch of the scheduled leaderboard. cron, timezone: when. gpu_hours: the hours of the day, in that time zone, in
    which stages of the pool ``gpu`` may be asked for, such as '20-6'; '0-24' is always, '' never. watch: report what was built outside
    Dagster, and warn of an outdated plan. folders: build a dataset of kind ``folder`` when its files are new or changed. follow: scores,
    leaderboard and site follow by themselves what they are made from. stale_after_hours: the leaderboard's freshness check fails when it
    was last built longer ago; 0 for never. owner: whom assets name: an address of mail, or a team such as 'team:vision'.
    """

    refresh: bool = False
    cron: str = "0 3 * * *"
    timezone: str = "UTC"
    gpu_hours: str = "0-24"
    watch: bool = True
    folders: bool = False
    follow: bool = False
    stale_after_hours: int = 0
    owner: str = "team:segmentation"

    def __post_init__(self) -> None:
        from dagster._utils.schedules import is_valid_cron_schedule

        if not is_valid_cron_schedule(self.cron):
            raise ValueError(f"cron is '{self.cron}', expected five fields such as '0 3 * * *' (minute, hour, day, month, weekday).")
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"timezone is '{self.timezone}', expected a name such as Europe/Berlin or UTC.") from None
        if self.gpu_hours and not _hours(self.gpu_hours):
            raise ValueError(f"gpu_hours is '{self.gpu_hours}', expected two hours of the day such as '20-6', or '' for never.")
        if not re.fullmatch(r"team:\w+|[^@\s]+@[^@\s]+\.[^@\s]+", self.owner):
            raise ValueError(f"owner is '{self.owner}', expected an address of mail or a team such as 'team:vision'.")
        if self.stale_after_hours < 0:
            raise ValueError(f"stale_after_hours is {self.stale_after_hours}, expected 0 (never) or more.")

    def gpu_allowed(self, now: datetime) -> bool:
        """Whether stages on a GPU may be asked for at this moment. now: with a time zone."""
        if not (hours := _hours(self.gpu_hours)):
            return False
        first, last = hours
        hour = now.astimezone(ZoneInfo(self.timezone)).hour
        return first <= hour < last if first < last else hour >= first or hour < last


def read_settings(root: Path) -> Settings:
    """The settings of a project, checked; the defaults where params.yaml has no such section."""
    file = YamlFile(root / profile.PARAMS)
    return registry.build_params(Settings, file.data.get(SECTION) or {}, f"{file.at(SECTION)}: {SECTION}")


def _hours(text: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"([01]?\d|2[0-4])-([01]?\d|2[0-4])", text)
    return (int(found[1]), int(found[2])) if found and found[1] != found[2] else None
