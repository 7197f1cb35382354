"""Assets and checks from a DVC project: one asset a key, one partition a stage.

Belongs here: grouping stages, dependencies between assets, what a materialisation reports. Does not belong here: how
dvc is run (``resource``) and what things are called (``translator``).

A backfill runs one partition at a time: then each partition has its own data version, checks, retries and stop button,
which Dagster cannot tell apart within one run. That costs a process start a partition, seconds beside stages of minutes.
"""

# No `from __future__ import annotations` here: Dagster wants the context's annotation as a class, not as text.
import base64
import hashlib
import json
import math
import mimetypes
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import dagster as dg

from uss_dagster.dagster_dvc.project import DvcProject, LockedOut, StageNode
from uss_dagster.dagster_dvc.resource import BEING_BUILT, BUILT, RESTORED, RETRIED, UNCHANGED, DvcResource, Invocation, as_failure
from uss_dagster.dagster_dvc.translator import DvcTranslator
from uss_dagster.errors import UsageError, UssError

VALIDATION = "validation"
IN_SYNC = "in_sync_with_dvc"
RETRY = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
PICTURE_BYTES = 500_000
_LISTED = 50

Before = Callable[[StageNode], None]
Describe = Callable[[StageNode, dg.DagsterInstance], Mapping[str, Any]]
Home = Mapping[str, tuple[dg.AssetKey, str | None]]
"""Address of a stage → the asset and the partition that it builds."""


@dataclass(frozen=True)
class AssetFamily:
    """The stages behind one asset, by partition; an unpartitioned asset has the one key None."""

    key: dg.AssetKey
    stages: Mapping[str | None, StageNode]
    partitions_def: dg.StaticPartitionsDefinition | None

    @property
    def nodes(self) -> list[StageNode]:
        return list(self.stages.values())


def families(project: DvcProject, translator: DvcTranslator | None = None) -> dict[dg.AssetKey, AssetFamily]:
    """Group a project's stages into assets, sorted by key. Assets with the same partitions share one definition of them."""
    translator = translator or DvcTranslator()
    grouped: dict[dg.AssetKey, dict[str | None, StageNode]] = {}
    for stage in project.stages.values():
        key, partition = translator.asset_key(stage), translator.partition(stage)
        group = grouped.setdefault(key, {})
        if partition in group:
            what = f"partition '{partition}' of asset" if partition is not None else "asset"
            raise UsageError(
                f"Stages '{group[partition].address}' and '{stage.address}' both build {what} '{key.to_user_string()}'. "
                "Give one of them another meta.dagster.asset or partition."
            )
        group[partition] = stage
    shared: dict[tuple[str, ...], dg.StaticPartitionsDefinition] = {}
    found = {}
    for key in sorted(grouped, key=lambda key: list(key.path)):
        group = grouped[key]
        if None in group and len(group) > 1:
            other = next(stage.address for partition, stage in group.items() if partition is not None)
            raise UsageError(
                f"Asset '{key.to_user_string()}' is built by '{group[None].address}' without a partition and by '{other}' with one. "
                "Give all its stages a meta.dagster.partition, or none."
            )
        names = tuple(sorted(partition for partition in group if partition is not None))
        if names and names not in shared:
            shared[names] = dg.StaticPartitionsDefinition(names)
        ordered = {partition: group[partition] for partition in (names or (None,))}
        found[key] = AssetFamily(key, ordered, shared.get(names))
    return found


def dvc_assets(
    project: DvcProject,
    translator: DvcTranslator | None = None,
    *,
    resource_key: str = "dvc",
    before: Before | None = None,
    describe: Describe | None = None,
    retry_policy: dg.RetryPolicy | None = RETRY,
) -> list[dg.AssetsDefinition]:
    """One asset for each asset key of the project, sorted by key.

    Materialising one brings its stage (of the run's partition) up to date through the ``DvcResource`` at
    ``resource_key``. ``before(stage)`` is called first, for example to refresh a generated file the stage reads;
    ``describe(stage, instance)`` gives more metadata of what was built, for people to look at.
    Only failures with exit code 69 or 75 are tried again.
    """
    translator = translator or DvcTranslator()
    found = families(project, translator)
    home = {stage.address: (key, partition) for key, family in found.items() for partition, stage in family.stages.items()}
    return [
        _asset(family, _spec(family, found, home, project, translator), project, translator, resource_key, before, describe, retry_policy)
        for family in found.values()
    ]


def dvc_sync_checks(
    project: DvcProject, translator: DvcTranslator | None = None, *, resource_key: str = "dvc"
) -> list[dg.AssetChecksDefinition]:
    """For each asset a check that asks ``dvc status`` which of its partitions are out of step, and why.

    Dagster calls an asset stale by what it saw itself; this sees files edited, outputs deleted and stages run outside it.
    """
    found = families(project, translator)
    return [_sync_check(family, project, resource_key) for family in found.values()]


def _spec(
    family: AssetFamily, found: Mapping[dg.AssetKey, AssetFamily], home: Home, project: DvcProject, translator: DvcTranslator
) -> dg.AssetSpec:
    stages = family.nodes
    try:
        return dg.AssetSpec(
            key=family.key,
            deps=_deps(family, found, home, project),
            description=translator.description(stages),
            metadata=translator.metadata(stages),
            group_name=translator.group(stages),
            code_version=translator.code_version(stages),
            owners=translator.owners(stages),
            tags=translator.tags(stages),
            kinds=translator.kinds(stages),
            partitions_def=family.partitions_def,
            automation_condition=translator.automation_condition(stages),
            freshness_policy=translator.freshness_policy(stages),
        )
    except dg.DagsterInvalidDefinitionError as error:
        raise UsageError(f"Asset '{family.key.to_user_string()}' (stage '{stages[0].address}'): {error}") from error


def _deps(family: AssetFamily, found: Mapping[dg.AssetKey, AssetFamily], home: Home, project: DvcProject) -> list[dg.AssetDep]:
    """Upstream assets, each with the partitions of it that each partition of this one really reads."""
    reads: dict[dg.AssetKey, dict[str | None, set[str | None]]] = {}
    for partition, stage in family.stages.items():
        for address in project.upstream[stage.address]:
            key, upstream_partition = home[address]
            if key == family.key:
                raise UsageError(
                    f"Stage '{stage.address}' reads what '{address}' makes, and both belong to asset '{key.to_user_string()}'. "
                    "Give them different meta.dagster.asset names: an asset cannot depend on itself."
                )
            reads.setdefault(key, {}).setdefault(partition, set()).add(upstream_partition)
    return [dg.AssetDep(key, partition_mapping=_mapping(family, found[key], reads[key])) for key in found if key in reads]


def _mapping(family: AssetFamily, upstream: AssetFamily, pairs: Mapping[str | None, set[str | None]]) -> dg.PartitionMapping | None:
    """The simplest Dagster mapping that says exactly which partitions read which."""
    if upstream.partitions_def is None:
        return None
    everything = set(upstream.stages)
    if family.partitions_def is None:
        read = pairs[None]
        return dg.AllPartitionMapping() if read == everything else dg.SpecificPartitionsPartitionMapping(sorted(filter(None, read)))
    if all(pairs.get(partition) == {partition} for partition in family.stages):
        return dg.IdentityPartitionMapping()
    if all(pairs.get(partition) == everything for partition in family.stages):
        return dg.AllPartitionMapping()
    readers: dict[str, list[str]] = {}
    for partition, read in pairs.items():
        for source in filter(None, read):
            readers.setdefault(source, []).append(str(partition))
    return dg.StaticPartitionMapping({source: sorted(names) for source, names in sorted(readers.items())})


def _asset(
    family: AssetFamily,
    spec: dg.AssetSpec,
    project: DvcProject,
    translator: DvcTranslator,
    resource_key: str,
    before: Before | None,
    describe: Describe | None,
    retry_policy: dg.RetryPolicy | None,
) -> dg.AssetsDefinition:
    validated = any(stage.text("report") for stage in family.nodes)
    check = dg.AssetCheckSpec(
        VALIDATION,
        asset=family.key,
        blocking=True,
        description="What the stage itself found when it checked its result before putting it in place.",
    )

    @dg.multi_asset(
        name=_op_name(family.key),
        specs=[spec],
        check_specs=[check] if validated else [],
        pool=translator.pool(family.nodes),
        backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=1) if family.partitions_def else None,
        required_resource_keys={resource_key},
    )
    def materialize(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        stage = family.stages[context.partition_key if family.partitions_def else None]
        report_before = _fingerprint(project, stage.text("report"))
        version_before = project.outs_version(stage.address)
        try:
            if before is not None:
                before(stage)
            invocation = getattr(context.resources, resource_key).repro(context, stage.address)
        except UssError as error:
            _raise(as_failure(error), context.retry_number, retry_policy)
        if not invocation.succeeded:
            wrote_report = invocation.report or _fingerprint(project, stage.text("report")) != report_before
            if validated and invocation.exit_code not in RETRIED and wrote_report:
                verdict = _validation(project, stage, invocation)
                if not verdict.passed:
                    yield verdict
            _raise(_with_missing_upstream(invocation, stage, project).failure(), context.retry_number, retry_policy)
        yield dg.MaterializeResult(
            asset_key=family.key,
            metadata={**_metadata(project, stage, invocation, version_before), **_described(describe, stage, context)},
            data_version=data_version(project.locked_outs(stage.address)),
            check_results=[_validation(project, stage, invocation)] if validated else [],
        )

    return materialize


def _sync_check(family: AssetFamily, project: DvcProject, resource_key: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=family.key,
        name=IN_SYNC,
        description="Whether DVC agrees that every partition is up to date with its dependencies, parameters and outputs.",
        required_resource_keys={resource_key},
    )
    def in_sync(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        dvc: DvcResource = getattr(context.resources, resource_key)
        try:
            changes = dvc.status(family.nodes)
        except UssError as error:
            raise as_failure(error) from error
        rows = []
        for partition, stage in family.stages.items():
            if said := changes.get(stage.address):
                # A stage that never ran differs in everything it names: one phrase says it better.
                known = project.locked_outs(stage.address) or said == [BEING_BUILT]
                what = "; ".join(said) if known else "never built"
                rows.append((partition or "–", stage.address, what))
        if not rows:
            return dg.AssetCheckResult(passed=True, metadata={"stages": len(family.stages)})
        first = f"{rows[0][1]}: {rows[0][2]}" + (f" (and {len(rows) - 1} more)" if len(rows) > 1 else "")
        return dg.AssetCheckResult(
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{len(rows)} of {len(family.stages)} out of step. {first}",
            metadata={
                "stages": len(family.stages),
                "out_of_step": len(rows),
                "changes": table(("partition", "stage", "what changed"), rows),
            },
        )

    return in_sync


def _metadata(project: DvcProject, stage: StageNode, invocation: Invocation, version_before: Mapping[str, str]) -> dict[str, Any]:
    outs = project.locked_outs(stage.address)
    changed = {out.path: out.hash for out in outs} != dict(version_before)
    # dvc words its messages for people; where they are not understood, the lock file tells.
    outcome = invocation.outcome or (BUILT if changed else UNCHANGED)
    here = outcome != RESTORED  # else the facts and the picture on this machine may be of another version
    metadata: dict[str, Any] = dict(_facts(project, stage)) if here else {}
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
    if here and (preview := stage.text("preview")) and (path := project.root / preview).is_file():
        kind = mimetypes.guess_type(path.name)[0] or ""
        if kind.startswith("image/") and path.stat().st_size < PICTURE_BYTES:
            metadata["preview"] = picture(path.read_bytes(), path.stem, kind)
    return metadata


def picture(data: bytes, name: str, kind: str = "image/png") -> dg.MarkdownMetadataValue:
    """An encoded picture as Dagster's page shows it; it is kept in the event log, so it should stay below ``PICTURE_BYTES``."""
    return dg.MetadataValue.md(f"![{name}](data:{kind};base64,{base64.b64encode(data).decode()})")


def _described(describe: Describe | None, stage: StageNode, context: dg.AssetExecutionContext) -> dict[str, Any]:
    try:
        return dict(describe(stage, context.instance)) if describe else {}
    except Exception as error:  # what is only looked at does not fail a stage that did its work
        context.log.warning(f"The metadata of '{stage.address}' could not be made: {type(error).__name__}: {error}")
        return {}


def data_version(outs: Sequence[LockedOut]) -> dg.DataVersion | None:
    """DVC's hash of the output; of several, a hash over paths and hashes."""
    if not outs:
        return None
    if len(outs) == 1:
        return dg.DataVersion(outs[0].hash)
    return dg.DataVersion(hashlib.sha256("\n".join(f"{out.path} {out.hash}" for out in outs).encode()).hexdigest())


def _validation(project: DvcProject, stage: StageNode, invocation: Invocation) -> dg.AssetCheckResult:
    """The verdict in the stage's validation report, as a check result. A stage that failed may say where its report lies."""
    name = invocation.report or stage.text("report")
    if name is None:
        return dg.AssetCheckResult(check_name=VALIDATION, passed=True, description="This stage names no validation report.")
    path = project.root / name
    if not path.is_file() and invocation.succeeded and invocation.outcome != BUILT:
        text = f"The stage passed when it was built elsewhere; its report {name} is not on this machine."
        return dg.AssetCheckResult(check_name=VALIDATION, passed=True, description=text)
    report = _read_json(path)
    if not isinstance(report, Mapping) or not isinstance(report.get("success"), bool):
        text = f"{name} is missing or has no boolean 'success': the stage did not say whether its result is sound."
        return dg.AssetCheckResult(check_name=VALIDATION, passed=False, description=text, metadata={"stage": stage.address})
    metadata: dict[str, Any] = {"stage": stage.address, "report": dg.MetadataValue.path(str(path))}
    if report["success"]:
        return dg.AssetCheckResult(check_name=VALIDATION, passed=True, metadata=metadata)
    reasons = _reasons(report)
    if reasons:
        metadata["failures"] = table(("what", "why"), reasons[:_LISTED])
    described = "; ".join(f"{what}: {why}" if why else what for what, why in reasons[:3])
    return dg.AssetCheckResult(
        check_name=VALIDATION,
        passed=False,
        metadata=metadata,
        description=described or invocation.reason or f"{name} says so, without a reason.",
    )


def _reasons(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, why) of everything that failed: entries of lists called failures, reasons or failed, and unsuccessful results."""
    found: list[tuple[str, str]] = []
    for name in ("failures", "reasons", "failed", "results", "expectations", "checks"):
        entries = report.get(name)
        for entry in entries if isinstance(entries, list) else ():
            if not isinstance(entry, Mapping):
                if name in ("failures", "reasons", "failed"):
                    found.append((str(entry), ""))
            elif entry.get("success") is False or (name in ("failures", "reasons", "failed") and "success" not in entry):
                found.append(_reason(entry))
    return list(dict.fromkeys(found))


def _reason(entry: Mapping[str, Any]) -> tuple[str, str]:
    config = entry.get("expectation_config")
    config = config if isinstance(config, Mapping) else {}
    what = next(
        (str(v) for k in ("expectation", "name", "check", "type", "expectation_type", "what") if (v := entry.get(k) or config.get(k))), ""
    )
    rest = {
        k: v for k, v in entry.items() if k not in ("success", "expectation", "name", "check", "type", "what", "expectation_config", "meta")
    }
    why = next((str(rest[k]) for k in ("message", "reason", "why") if rest.get(k)), "")
    if not why:
        details = {**dict(config.get("kwargs") or {}), **rest}
        why = json.dumps({k: v for k, v in details.items() if v not in (None, {}, [])}, sort_keys=True, default=str) if details else ""
    return what or "unnamed", why


def _facts(project: DvcProject, stage: StageNode) -> dict[str, Any]:
    """The plain values of the facts file: seconds, rows, peak memory, whatever the stage noted."""
    name = stage.text("facts")
    facts = _read_json(project.root / name) if name else None
    if not isinstance(facts, Mapping):
        return {}
    plain = {str(k): v for k, v in facts.items() if isinstance(v, str | bool | int | float)}
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in plain.items()}


def _raise(failure: dg.Failure, tried: int, policy: dg.RetryPolicy | None) -> NoReturn:
    """Ask for another try where that can help, else fail.

    The policy is not given to Dagster itself: with one, it starts a stage again that a person has just stopped.
    """
    if policy is not None and failure.allow_retries and tried < policy.max_retries:
        raise dg.RetryRequested(max_retries=policy.max_retries, seconds_to_wait=policy.calculate_delay(tried + 1)) from failure
    raise failure


def _with_missing_upstream(invocation: Invocation, stage: StageNode, project: DvcProject) -> Invocation:
    """Where the stage could not start because a dependency does not exist, say what makes it."""
    if invocation.outcome == BUILT:
        return invocation
    missing = next((dep for dep in stage.deps if "://" not in dep and not (project.root / dep).exists()), None)
    if missing is None:
        return invocation
    # The stage that makes it either has it as output, holds it in one, or has outputs inside it.
    makers = [a for a in project.upstream[stage.address] if any(_nested(missing, out) for out in project.stages[a].outs)]
    advice = (
        f"materialise {' or '.join(repr(maker) for maker in makers[:3])} first" if makers else "no stage makes it, so it must be put there"
    )
    return replace(invocation, reason=f"Stage '{stage.address}' needs {missing}, which does not exist: {advice}.")


def _nested(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def _fingerprint(project: DvcProject, name: str | None) -> tuple[int, int] | None:
    path = project.root / name if name else None
    return (path.stat().st_mtime_ns, path.stat().st_size) if path and path.is_file() else None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> dg.MarkdownMetadataValue:
    """A Markdown table as metadata."""
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]
    return dg.MetadataValue.md("\n".join(f"| {line} |" for line in lines))


def _op_name(key: dg.AssetKey) -> str:
    return re.sub(r"\W", "_", "__".join(key.path))
