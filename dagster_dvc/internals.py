"""All that this package uses of DVC and Dagster and that they do not promise to keep, in one place.

``tested_versions.json`` lists the versions of both that the tests run with (``tests/matrix.py``). A name that is not there any more fails at
its import. Elsewhere this package uses what both document (``dagster``, ``dagster.components``, the command line of DVC) and of DVC's Python
API ``dvc.repo.Repo`` with its stages, their status and its ignored files, ``dvc.exceptions`` and ``dvc.config``, which hold still over its
3.x releases.

Each name is imported when first asked for: programs that run DVC import nothing of Dagster, and the other way round.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster._core.pipes.context import build_external_execution_context_data as build_external_execution_context_data
    from dagster.components.utils.translation import TranslationFn as TranslationFn
    from dagster.components.utils.translation import TranslationFnResolver as TranslationFnResolver
    from dvc.repo import lock_repo as lock_repo
    from dvc.repo import reproduce as reproduce
    from dvc.stage import Stage as Stage
    from dvc.stage.cache import RunCacheNotFoundError as RunCacheNotFoundError
    from dvc.stage.cache import StageCache as StageCache
    from dvc.stage.decorators import unlocked_repo as unlocked_repo
    from dvc.utils import strictyaml as strictyaml
    from dvc.utils.serialize import dumps_yaml as dumps_yaml

ORIGINS = {
    # Of DVC: one stage at a time is shared through its run cache (shared_runs), under its lock.
    "lock_repo": ("dvc.repo", "lock_repo"),
    "reproduce": ("dvc.repo.reproduce", ""),
    "RunCacheNotFoundError": ("dvc.stage.cache", "RunCacheNotFoundError"),
    "StageCache": ("dvc.stage.cache", "StageCache"),
    "can_hash": ("dvc.stage.cache", "_can_hash"),
    "stage_hash": ("dvc.stage.cache", "_get_stage_hash"),
    "Stage": ("dvc.stage", "Stage"),
    "unlocked_repo": ("dvc.stage.decorators", "unlocked_repo"),
    "copy_between": ("dvc_objects.fs.generic", "copy"),
    # Of DVC: its files are parsed once (yaml_memory).
    "strictyaml": ("dvc.utils.strictyaml", ""),
    # Of DVC: a dvc.lock that is merged has the bytes that DVC would write.
    "dumps_yaml": ("dvc.utils.serialize", "dumps_yaml"),
    # Of Dagster: ``translation`` in the YAML of a component, as its own integrations read it.
    "TranslationFn": ("dagster.components.utils.translation", "TranslationFn"),
    # Of Dagster: what ``open_pipes_session`` tells a stage, without its warning about every stage that reports nothing.
    "build_external_execution_context_data": ("dagster._core.pipes.context", "build_external_execution_context_data"),
    "TranslationFnResolver": ("dagster.components.utils.translation", "TranslationFnResolver"),
}
"""Name here → module and name there; the module itself where that is empty."""


def __getattr__(name: str) -> Any:
    if name not in ORIGINS:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    origin, attribute = ORIGINS[name]
    module = importlib.import_module(origin)
    return getattr(module, attribute) if attribute else module
