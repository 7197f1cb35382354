"""``uss curate``: pictures of a folder → a checked, deduplicated, split set of nested masks, in the forms that training programs read.

Each picture is segmented, pooled and measured once, and what came of it is kept in ``DIR/.curate/records`` under a hash of the file's
content, the parameters and the code. So a killed run loses the pictures in flight only, a replaced picture is the only one computed again,
and a renamed one costs nothing. All that follows (near-duplicates, splits, filters, human masks) is one quick pass over the records.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from uss_dagster import registry
from uss_dagster.artifacts.image_files import decode
from uss_dagster.artifacts.shards import map_shards
from uss_dagster.artifacts.staging import remove
from uss_dagster.commands.own_images import Readable, Reader, common_folder, ids_of, pictures, relative_name
from uss_dagster.commands.parameters import parse_parameters
from uss_dagster.commands.records import Outcome, Recipe, RecordPool, make_records
from uss_dagster.curation.human import labels_of_coco, no_labels
from uss_dagster.curation.params import CurateParams, PoolParams, pool_defaults
from uss_dagster.errors import BadData, UsageError, did_you_mean
from uss_dagster.planning.fingerprints import fingerprint
from uss_dagster.report.explorer import PAGE
from uss_dagster.report.own_images_explorer import explore

WORK = ".curate"
CHUNK = 8
"""Pictures handed to a worker at once; each is finished by itself."""


@dataclass(frozen=True)
class Job:
    """How to curate. Pickles, so that workers can be told."""

    parameters: Mapping[str, Any]
    reader: Reader
    out: Path
    pool: PoolParams
    params: CurateParams
    labels: Path | None = None
    copy: bool = False
    title: str = "Curated masks"
    licence: str = "not stated; masks made by a program"


def settings_of(words: list[str], preset: str, formats: list[str]) -> tuple[PoolParams, CurateParams]:
    """``name=value`` words for the parameters of pooling and of curation."""
    owner = {f.name: PoolParams for f in fields(PoolParams)} | {f.name: CurateParams for f in fields(CurateParams)}
    values: dict[type, dict[str, Any]] = {PoolParams: pool_defaults(preset), CurateParams: {"preset": preset}}
    if formats:
        values[CurateParams]["formats"] = formats
    for word in words:
        name = word.partition("=")[0]
        if name not in owner:
            raise UsageError(f"--set: there is no parameter '{name}'.{did_you_mean(name, owner)}")
        values[owner[name]].update(parse_parameters([word], owner[name], "--set"))
    return registry.build_params(PoolParams, values[PoolParams], "--set"), registry.build_params(
        CurateParams, values[CurateParams], "--set"
    )


def curate_pictures(paths: list[Path], job: Job, tell: Callable[[str], None], complain: Callable[[str], None]) -> dict[str, Any]:
    """Curate pictures and put the result in ``job.out``; returns its summary.

    A picture that cannot be used is listed in ``set_aside.csv`` and complained of, and ``BadData`` is raised at the end, with the result
    in place. The result is put in place whole, or, where its checks fail, not at all.
    """
    from uss_dagster.curation.curated_set import drift_facts, judge_drift, make_set

    files = [path for path in pictures(paths) if job.out.absolute() not in path.absolute().parents]
    if not files:
        raise UsageError(f"All pictures given lie in {job.out}, the folder of results. Choose another folder with --out.")
    folder = common_folder(files)
    named = sorted((image_id, relative_name(path, folder), path) for image_id, path in zip(ids_of(files), files, strict=True))
    labels = labels_of_coco(job.labels) if job.labels else no_labels
    if job.labels and not {image_id for image_id, _, _ in named} & getattr(labels, "ids", set()):
        raise BadData(f"None of the {len(named)} pictures is named in {job.labels}; they go by file name without its ending.")
    work = _prepare_out(job.out)
    outcomes = _segment_all(named, job, work, tell, complain)
    pool = RecordPool(outcomes)
    source = {outcome.image_id: outcome.path for outcome in outcomes}
    new = work / "new"
    remove(new)
    new.mkdir()
    info = {
        "title": job.title,
        "source": f"{len(named)} pictures",
        "methods": registry.load("method", job.reader.method).SPEC.title,
        "licence": job.licence,
        "citation": "",
        "homepage": "",
    }
    made, report = make_set(
        "curated", new, pool, labels, job.params, info, lambda i: decode(source[i].read_bytes(), str(source[i])), lambda done: None
    )
    rows = judge_drift(report, _summary_in(job.out), made.summary, job.params)
    report.write(new)
    if not report.success:
        refused = work / "refused"
        remove(refused)
        os.replace(new, refused)
        raise BadData(f"The result was refused: {report.reasons()[0]} It lies in {refused} with its report; {job.out} is as it was.")
    said = _said(made.summary, drift_facts(rows)["drift"], job.out, outcomes)
    if made.ids:
        found = job.reader.method, f"{info['methods']}, curated"
        few = explore(new, new / "masks.parquet", made.ids, lambda image_id: job.reader.read(source[image_id]), *found)
        said[-1] += f"; to explore the masks{few}, open {job.out / PAGE}"
    if job.copy:
        _copy_pictures(new, made.ids, source, {outcome.image_id: outcome.name for outcome in outcomes})
    _put_in_place(new, job.out)
    _forget_other_records(work, {outcome.record for outcome in outcomes})
    for line in said:
        tell(line)
    unusable = [outcome for outcome in outcomes if outcome.problem] + [outcome for outcome in outcomes if outcome.image_id in made.failures]
    for image_id, why in made.failures.items():
        complain(f"set aside: {source[image_id]}: {why}")
    if unusable:
        raise BadData(
            f"{len(unusable)} of {len(named)} pictures could not be used (see {job.out / 'set_aside.csv'}); the others are in {job.out}."
        )
    return made.summary


# -- all pictures -------------------------------------------------------------------------------------------------


def _segment_all(
    named: list[tuple[str, str, Path]], job: Job, work: Path, tell: Callable[[str], None], complain: Callable[[str], None]
) -> list[Outcome]:
    """Outcomes of all pictures by ascending id."""
    module = registry.load("method", job.reader.method)
    params = registry.build_params(module.SPEC.params, job.parameters, f"method '{job.reader.method}'")
    reader, encoder = job.reader, job.reader.encoder
    modules = ["uss_dagster.commands.records", registry.module_name("method", job.reader.method)]
    if encoder:
        modules.append(registry.module_name("backbone", encoder.kind))
    state = module.fit(Readable([(i, path) for i, _, path in named], reader), params) if hasattr(module, "fit") else None
    fitted = hashlib.sha256(pickle.dumps(state)).hexdigest() if state is not None else ""
    depends = [job.reader.method, registry.params_to_dict(params), asdict(encoder) if encoder else None, asdict(job.pool), reader.long_side]
    name = hashlib.sha256(json.dumps([depends, fitted, fingerprint(modules)], sort_keys=True).encode()).hexdigest()
    recipe = Recipe(job.parameters, reader, state, job.pool, name)
    chunks = [named[i : i + CHUNK] for i in range(0, len(named), CHUNK)]
    workers = reader.workers(len(named), len(chunks))
    one = functools.partial(make_records, recipe=recipe, work=work)
    outcomes: list[Outcome] = []
    with closing(map_shards(one, chunks, workers=workers)) as results:
        for done in results:
            outcomes.extend(done)
            for outcome in done:
                if outcome.problem:
                    complain(f"set aside: {outcome.path}: {outcome.problem}")
            tell(f"{len(outcomes):{len(str(len(named)))}}/{len(named)}  {done[-1].name}")
    return outcomes


# -- the folder of results ----------------------------------------------------------------------------------------


def _prepare_out(out: Path) -> Path:
    above = next(p for p in (out, *out.absolute().parents) if p.exists() or p.is_symlink())
    if not above.is_dir():
        raise UsageError(f"--out {out}: {above} is a file. Name a folder; it is made if it is not there.")
    if out.is_dir() and not (out / WORK).is_dir() and any(out.iterdir()):
        raise UsageError(f"{out} holds files, and `uss curate` did not make them. Choose another folder with --out; nothing was changed.")
    work = out / WORK
    work.mkdir(parents=True, exist_ok=True)
    for partial in (work / "records").glob("*/.*.partial"):
        partial.unlink(missing_ok=True)
    remove(work / "errors")
    return work


def _put_in_place(new: Path, out: Path) -> None:
    """Files one by one, the old ones that have no new counterpart removed; ``summary.json``, by which the next run knows this one, last."""
    for old in list(out.iterdir()):
        if old.name != WORK and not (new / old.name).exists():
            remove(old)
    for path in sorted(new.iterdir(), key=lambda p: (p.name == "summary.json", p.name)):
        if path.is_dir():
            remove(out / path.name)
        os.replace(path, out / path.name)
    remove(new)


def _copy_pictures(new: Path, ids: list[str], source: Mapping[str, Path], names: Mapping[str, str]) -> None:
    """``data/`` beside ``labels.json``, the layout that FiftyOne's importer takes; with metadata.jsonl inside it is an image folder."""
    for image_id in ids:
        target = new / "data" / names[image_id]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source[image_id], target)
    if (new / "metadata.jsonl").exists():
        os.replace(new / "metadata.jsonl", new / "data" / "metadata.jsonl")


def _forget_other_records(work: Path, used: set[Path | None]) -> None:
    for record in (work / "records").glob("*/*.parquet"):
        if record not in used:
            record.unlink()


def _summary_in(out: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _said(summary: Mapping[str, Any], drift: str, out: Path, outcomes: list[Outcome]) -> list[str]:
    computed = sum(outcome.computed for outcome in outcomes)
    reused = sum(outcome.record is not None for outcome in outcomes) - computed
    aside = ", ".join(f"{number} {word}" for word, number in summary["status"].items() if word != "kept")
    return [
        f"{summary['kept']} of {summary['images']} images kept, {summary['masks']} masks ({summary['human_masks']} of people)"
        + (f"; set aside: {aside}" if aside else ""),
        f"computed {computed}, reused {reused}; against the previous version: {drift}",
        f"{out / 'labels.json' if (out / 'labels.json').exists() else out}, checks in {out / 'report.html'}, datasheet in {out / 'datasheet.html'}",
    ]
