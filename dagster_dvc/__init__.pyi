from .assets import build_dvc_assets, dvc_assets, dvc_sync_checks
from .component import DvcProjectComponent
from .executors import executor_named
from .experiments import ExperimentConfig, experiment_job
from .grouping import StageGroup, StageGroups, group_stages
from .materialization import PICTURE_BYTES, Metadata, picture, table
from .outside_builds import lock_sensor
from .project import DvcProject, LockedOut, StageNode
from .refresh import Refresh, continue_refresh, make_sensor, refresh_schedule
from .resource import DvcResource
from .runner import DvcRunner, Invocation, tool_environment
from .stage_run import StageRun
from .translator import DvcTranslator

__all__ = [
    "PICTURE_BYTES",
    "DvcProject",
    "DvcProjectComponent",
    "DvcResource",
    "DvcRunner",
    "DvcTranslator",
    "ExperimentConfig",
    "Invocation",
    "LockedOut",
    "Metadata",
    "Refresh",
    "StageGroup",
    "StageGroups",
    "StageNode",
    "StageRun",
    "build_dvc_assets",
    "continue_refresh",
    "dvc_assets",
    "dvc_sync_checks",
    "executor_named",
    "experiment_job",
    "group_stages",
    "lock_sensor",
    "make_sensor",
    "picture",
    "refresh_schedule",
    "table",
    "tool_environment",
]
