"""Dagster Pipes: what a stage that uses ``dagster_pipes`` reports while it runs.

Each stage finds in its environment where to report to. Its metadata become those of the materialisation, its log lines those of the run, and
its checks those that ``meta.dagster.checks`` names. The data version stays DVC's hash. Where DVC does not run the stage, the checks are what
was reported when its result was built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg

from dagster_dvc.internals import build_external_execution_context_data
from dagster_dvc.project import DvcProject, StageNode
from dagster_dvc.whole_files import JsonObject, read_json, write_json

CHECKS = Path(".dvc") / "tmp" / "dagster_dvc" / "checks"
"""Folder with a file for each stage: the checks that it reported last, and of which outputs."""


@dataclass
class Reports:
    """What a stage reported in one run.

    Parameters
    ----------
    env
        The environment variables by which the stage finds its run.
    metadata
        Of its materialisation.
    checks
        By their names.
    """

    env: Mapping[str, str]
    metadata: dict[str, dg.MetadataValue[Any]] = field(default_factory=dict)
    checks: dict[str, dg.AssetCheckResult] = field(default_factory=dict)


@contextmanager
def reports_of_stage(context: dg.AssetExecutionContext) -> Iterator[Reports]:
    """Take the reports of a stage that runs in the block; they are complete after it.

    Not ``dg.open_pipes_session``, which warns about every stage that reports nothing.
    """
    data = build_external_execution_context_data(context, None)
    handler = dg.PipesMessageHandler(context, dg.PipesTempFileMessageReader())
    with dg.PipesTempFileContextInjector().inject_context(data) as injector, handler.handle_messages() as reader:
        reports = Reports(dg.PipesSession(data, handler, injector, reader, context).get_bootstrap_env_vars())
        yield reports
    if handler.received_opened_message and not handler.received_closed_message:
        context.log.warning(
            "The stage did not end its Dagster Pipes session: use `with open_dagster_pipes() as pipes`, or some reports are lost."
        )
    for result in handler.get_reported_results():
        if isinstance(result, dg.AssetCheckResult):
            reports.checks[str(result.check_name)] = result
        else:
            reports.metadata.update(result.metadata or {})  # type: ignore[arg-type]


def results_of_checks(
    project: DvcProject, stage: StageNode, key: dg.AssetKey, names: Sequence[str], reported: Mapping[str, dg.AssetCheckResult], ran: bool
) -> list[dg.AssetCheckResult]:
    """A result for each check of these names: the reported one, else, of a stage that did not run, the one of when it was built."""
    file, outs = project.root / CHECKS / f"{quote(stage.address, safe='')}.json", project.outs_version(stage.address)
    if ran:
        write_json(file, {"outs": outs, "checks": {name: _plain(check) for name, check in reported.items()}})
        why = "The stage ran and did not report this check."
    else:
        stored = read_json(file)
        checks = stored.get("checks")
        known = checks if isinstance(checks, dict) and stored.get("outs") == outs else {}
        reported = {name: _restored(key, name, check) for name, check in known.items()}
        why = "The stage did not run, and this machine does not know what it reported when it was built: run it with `dvc repro --force`."
    return [reported.get(name) or _missing(key, name, why) for name in names]


def _plain(check: dg.AssetCheckResult) -> dict[str, object]:
    metadata = {name: value.value for name, value in check.metadata.items()}
    plain = {name: value if isinstance(value, str | bool | int | float | None) else str(value) for name, value in metadata.items()}
    return {"passed": check.passed, "severity": check.severity.value, "metadata": plain}


def _restored(key: dg.AssetKey, name: str, check: JsonObject) -> dg.AssetCheckResult:
    severity, metadata = dg.AssetCheckSeverity(str(check["severity"])), check["metadata"]
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=name,
        passed=bool(check["passed"]),
        severity=severity,
        metadata=metadata if isinstance(metadata, dict) else {},
        description="Reported when the result was built; it is the same since.",
    )


def _missing(key: dg.AssetKey, name: str, why: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(asset_key=key, check_name=name, passed=False, severity=dg.AssetCheckSeverity.WARN, description=why)
