"""DVC stages as Dagster assets: project, translator, resource, invocation, after the pattern of dagster-dbt.

Belongs here: reading a DVC project, naming its stages as assets and partitions, running stages and reporting what
happened, asking DVC what is out of step. Does not belong here: segmentation, and any name or rule of one project
(those go into ``meta.dagster`` of a stage, or into a subclass of ``DvcTranslator``).

Names are imported when first used: a program that only runs DVC does not import Dagster.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uss_dagster.dagster_dvc.assets import dvc_assets as dvc_assets
    from uss_dagster.dagster_dvc.assets import dvc_sync_checks as dvc_sync_checks
    from uss_dagster.dagster_dvc.grouping import StageGroup as StageGroup
    from uss_dagster.dagster_dvc.grouping import group_stages as group_stages
    from uss_dagster.dagster_dvc.materialization import PICTURE_BYTES as PICTURE_BYTES
    from uss_dagster.dagster_dvc.materialization import Metadata as Metadata
    from uss_dagster.dagster_dvc.materialization import picture as picture
    from uss_dagster.dagster_dvc.materialization import read_json as read_json
    from uss_dagster.dagster_dvc.materialization import table as table
    from uss_dagster.dagster_dvc.outside_builds import lock_sensor as lock_sensor
    from uss_dagster.dagster_dvc.project import DvcProject as DvcProject
    from uss_dagster.dagster_dvc.project import LockedOut as LockedOut
    from uss_dagster.dagster_dvc.project import StageNode as StageNode
    from uss_dagster.dagster_dvc.refresh import Refresh as Refresh
    from uss_dagster.dagster_dvc.refresh import continue_refresh as continue_refresh
    from uss_dagster.dagster_dvc.refresh import refresh_schedule as refresh_schedule
    from uss_dagster.dagster_dvc.resource import DvcResource as DvcResource
    from uss_dagster.dagster_dvc.runner import DvcRunner as DvcRunner
    from uss_dagster.dagster_dvc.runner import Invocation as Invocation
    from uss_dagster.dagster_dvc.translator import DvcTranslator as DvcTranslator

_MODULES = {
    "assets": ("dvc_assets", "dvc_sync_checks"),
    "grouping": ("StageGroup", "group_stages"),
    "outside_builds": ("lock_sensor",),
    "materialization": ("PICTURE_BYTES", "Metadata", "picture", "read_json", "table"),
    "project": ("DvcProject", "LockedOut", "StageNode"),
    "refresh": ("Refresh", "continue_refresh", "refresh_schedule"),
    "resource": ("DvcResource",),
    "runner": ("DvcRunner", "Invocation"),
    "translator": ("DvcTranslator",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
