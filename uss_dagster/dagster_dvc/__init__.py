"""DVC stages as Dagster assets: project, translator, resource, invocation, after the pattern of dagster-dbt.

Belongs here: reading a DVC project, naming its stages as assets and partitions, running one stage and reporting what
happened, asking DVC what is out of step. Does not belong here: segmentation, and any name or rule of one project
(those go into ``meta.dagster`` of a stage, or into a subclass of ``DvcTranslator``).
"""

from uss_dagster.dagster_dvc.assets import PICTURE_BYTES, AssetFamily, dvc_assets, dvc_sync_checks, families, picture, table
from uss_dagster.dagster_dvc.lock_sensor import lock_sensor
from uss_dagster.dagster_dvc.project import DvcProject, LockedOut, StageNode
from uss_dagster.dagster_dvc.refresh import Refresh, continue_refresh, refresh_schedule
from uss_dagster.dagster_dvc.resource import DvcResource, Invocation
from uss_dagster.dagster_dvc.translator import DvcTranslator

__all__ = [
    "PICTURE_BYTES",
    "AssetFamily",
    "DvcProject",
    "DvcResource",
    "DvcTranslator",
    "Invocation",
    "LockedOut",
    "Refresh",
    "StageNode",
    "continue_refresh",
    "dvc_assets",
    "dvc_sync_checks",
    "families",
    "lock_sensor",
    "picture",
    "refresh_schedule",
    "table",
]
