"""DVC stages as Dagster assets: project, translator, resource, invocation, after the pattern of dagster-dbt.

Belongs here: reading a DVC project, naming its stages as assets and partitions, running one stage and reporting what
happened, asking DVC what is out of step. Does not belong here: segmentation, and any name or rule of one project
(those go into ``meta.dagster`` of a stage, or into a subclass of ``DvcTranslator``).
"""

from uss_dagster.dagster_dvc.assets import AssetFamily, dvc_assets, dvc_sync_checks, families
from uss_dagster.dagster_dvc.project import DvcProject, LockedOut, StageNode
from uss_dagster.dagster_dvc.resource import DvcResource, Invocation
from uss_dagster.dagster_dvc.translator import DvcTranslator

__all__ = [
    "AssetFamily",
    "DvcProject",
    "DvcResource",
    "DvcTranslator",
    "Invocation",
    "LockedOut",
    "StageNode",
    "dvc_assets",
    "dvc_sync_checks",
    "families",
]
