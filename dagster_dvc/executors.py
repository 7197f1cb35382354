"""Executors by name, for settings in YAML."""

from __future__ import annotations

import importlib

import dagster as dg

from dagster_dvc.errors import UsageError

IN_PROCESS, MULTIPROCESS = "in_process", "multiprocess"


def executor_named(name: str, max_concurrent: int = 0) -> dg.ExecutorDefinition:
    """An executor for ``dg.Definitions(executor=…)``.

    Parameters
    ----------
    name
        ``in_process``: all stages of a run in one process, one after another. ``multiprocess``: a process for each, side by side. Any other
        one: where it is, as ``dagster_k8s.k8s_job_executor``.
    max_concurrent
        With ``multiprocess``, how many stages of a run at once; 0: as many as there are processors.

    Raises
    ------
    UsageError
        There is no such executor, or the number does not fit it.
    """
    if max_concurrent < 0:
        raise UsageError(f"max_concurrent is {max_concurrent}, expected 0 or more.")
    if max_concurrent and name != MULTIPROCESS:
        raise UsageError(
            f"max_concurrent is {max_concurrent}, but the executor is {name}: only {MULTIPROCESS} takes it. Configure others in Python."
        )
    if name == IN_PROCESS:
        return dg.in_process_executor
    if name == MULTIPROCESS:
        return dg.multiprocess_executor.configured({"max_concurrent": max_concurrent}) if max_concurrent else dg.multiprocess_executor
    module, _, attribute = name.rpartition(".")
    try:
        executor = getattr(importlib.import_module(module), attribute) if module else None
    except (ImportError, AttributeError) as error:
        raise UsageError(f"executor is {name}, which cannot be imported: {error}.") from error
    if not isinstance(executor, dg.ExecutorDefinition):
        raise UsageError(
            f"executor is {name}, expected {IN_PROCESS}, {MULTIPROCESS}, or where an executor is, such as dagster_k8s.k8s_job_executor."
        )
    return executor
