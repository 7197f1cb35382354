"""What a materialisation reports: versions, sizes, the stage's own facts and the verdict of its validation report."""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import mimetypes
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dagster_dvc import figures
from dagster_dvc.project import DvcProject, LockedOut, StageNode
from dagster_dvc.runner import Invocation
from dagster_dvc.stage_output import BUILT, RESTORED, UNCHANGED
from dagster_dvc.whole_files import JsonObject, read_json

VALIDATION = "validation"
PICTURE_BYTES = 500_000
"""Largest picture that is kept in Dagster's event log."""
MOST_PLOTS = 10
_LISTED = 50

Metadata = Mapping[str, dg.MetadataValue[Any] | str | float | bool]


def stage_metadata(project: DvcProject, stage: StageNode, invocation: Invocation, version_before: Mapping[str, str]) -> Metadata:
    """Metadata of a stage that ran, or did not have to."""
    outs = project.locked_outs(stage.address)
    changed = {out.path: out.hash for out in outs} != dict(version_before)
    # DVC words its messages for people; where they are not understood, the lock file tells.
    outcome = invocation.outcome or (BUILT if changed else UNCHANGED)
    # The facts and the picture on this machine may be of another version than the restored one.
    metadata: dict[str, dg.MetadataValue[Any] | str | float | bool] = {**figures.numbers([project.root / path for path in stage.metrics])}
    metadata |= {} if outcome == RESTORED else _facts(project, stage)
    metadata |= _plots(project, stage)
    metadata |= {
        "outcome": outcome,
        "content_changed": changed,
        "duration_s": round(invocation.seconds, 3),
        "stage": stage.address,
        "size_bytes": sum(out.size for out in outs),
        "files": sum(out.files for out in outs),
    }
    if outs:
        metadata["outputs"] = table(
            ("path", "bytes", "files", "hash"), [(out.path, out.size, out.files, out.hash) for out in outs[:_LISTED]]
        )
    if (report := stage.text("report")) and (project.root / report).is_file():
        metadata["validation_report"] = dg.MetadataValue.path(str(project.root / report))
    if outcome != RESTORED and (preview := stage.text("preview")) and (path := project.root / preview).is_file():
        kind = mimetypes.guess_type(path.name)[0] or ""
        if kind.startswith("image/") and path.stat().st_size < PICTURE_BYTES:
            metadata["preview"] = picture(path.read_bytes(), path.stem, kind)
    return metadata


def data_version(outs: Sequence[LockedOut]) -> dg.DataVersion | None:
    """DVC's hash of the output; of several, a hash over paths and hashes."""
    if not outs:
        return None
    if len(outs) == 1:
        return dg.DataVersion(outs[0].hash)
    return dg.DataVersion(hashlib.sha256("\n".join(f"{out.path} {out.hash}" for out in outs).encode()).hexdigest())


def validation(project: DvcProject, stage: StageNode, invocation: Invocation) -> dg.AssetCheckResult:
    """The verdict in the stage's validation report, as a check result. A failed stage may name another report.

    A report is a JSON object with a boolean ``success`` and rows of ``checks`` or ``failures``. A row names what was tested in ``check``
    or ``expectation``, says why it failed in ``message``, and of ``checks`` only those failed whose own ``success`` is false.
    """
    verdict = functools.partial(dg.AssetCheckResult, check_name=VALIDATION)
    name = invocation.report or stage.text("report")
    if name is None:
        return verdict(passed=True, description="This stage names no validation report.")
    path = project.root / name
    if not path.is_file() and invocation.succeeded and invocation.outcome != BUILT:
        return verdict(passed=True, description=f"The stage passed when it was built elsewhere; its report {name} is not on this machine.")
    report = read_json(path)
    if not isinstance(report.get("success"), bool):
        text = f"{name} is missing or has no boolean 'success': the stage did not say whether its result is sound."
        return verdict(passed=False, description=text, metadata={"stage": stage.address})
    metadata: dict[str, dg.MetadataValue[Any] | str] = {"stage": stage.address, "report": dg.MetadataValue.path(str(path))}
    if report["success"]:
        return verdict(passed=True, metadata=metadata)
    reasons = _reasons(report)
    if reasons:
        metadata["failures"] = table(("what", "why"), reasons[:_LISTED])
    described = "; ".join(f"{what}: {why}" if why else what for what, why in reasons[:3])
    return verdict(passed=False, metadata=metadata, description=described or invocation.reason or f"{name} says so, without a reason.")


def report_stamp(project: DvcProject, stage: StageNode) -> tuple[int, int] | None:
    """Time and size of a stage's validation report, to see whether it was written again."""
    path = project.root / (stage.text("report") or "")
    return (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None


def picture(data: bytes, name: str, kind: str = "image/png") -> dg.MarkdownMetadataValue:
    """An encoded picture as Dagster's page shows it. It is kept in the event log, so it should stay below ``PICTURE_BYTES``."""
    return dg.MetadataValue.md(f"![{name}](data:{kind};base64,{base64.b64encode(data).decode()})")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> dg.MarkdownMetadataValue:
    """A Markdown table as metadata."""
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]
    return dg.MetadataValue.md("\n".join(f"| {line} |" for line in lines))


def _plots(project: DvcProject, stage: StageNode) -> Metadata:
    """The pictures and the tables that a stage declares as plots, by path; of a folder, those in it."""
    metadata: dict[str, dg.MetadataValue[Any]] = {}
    for top in (project.root / plot for plot in stage.plots):
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            kind = mimetypes.guess_type(path.name)[0] or ""
            if len(metadata) == MOST_PLOTS or not path.is_file():
                continue
            name = path.relative_to(project.root).as_posix()
            if kind.startswith("image/"):
                small = path.stat().st_size < PICTURE_BYTES
                metadata[name] = picture(path.read_bytes(), path.stem, kind) if small else dg.MetadataValue.path(str(path))
            elif (rows := figures.rows(path))[0]:
                metadata[name] = table(*rows)
    return metadata


def _facts(project: DvcProject, stage: StageNode) -> Mapping[str, str | float | bool]:
    """The plain values of the facts file: seconds, rows, peak memory, whatever the stage noted."""
    name = stage.text("facts")
    facts = read_json(project.root / name) if name else {}
    plain = {key: value for key, value in facts.items() if isinstance(value, str | bool | int | float)}
    return {key: str(value) if isinstance(value, float) and not math.isfinite(value) else value for key, value in plain.items()}


def _reasons(report: JsonObject) -> list[tuple[str, str]]:
    """(what, why) of everything that failed, without repetition."""
    reasons: list[tuple[str, str]] = []
    for name in ("checks", "failures"):
        rows = report.get(name)
        for row in rows if isinstance(rows, list) else ():
            if row.get("success", name == "checks") is False:
                reasons.append((str(row.get("check") or row.get("expectation") or "unnamed"), str(row.get("message") or "")))
    return list(dict.fromkeys(reasons))
