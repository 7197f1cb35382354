"""A person's own images → a checked, deduplicated, split set of nested masks, in the formats of training programs.

The masks of each image are computed once and stored in ``DIR/.curate`` (see ``mask_pool``). All that follows (near-duplicates, splits,
filters, human masks) is one quick pass over the stored masks.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from uss_dagster.artifacts.image_files import read_picture
from uss_dagster.artifacts.staging import Rejected, Staging
from uss_dagster.curation.curate import CurateResult
from uss_dagster.curation.curated_set import check_drift, drift_facts, make_set
from uss_dagster.curation.drift import SetSummary
from uss_dagster.curation.human import CocoLabels, Labels, no_labels
from uss_dagster.curation.mask_pool import MaskPoolParams
from uss_dagster.curation.params import CurateParams, Description
from uss_dagster.curation.picture_folder import note_picture_folder
from uss_dagster.errors import BadData, UsageError
from uss_dagster.files import make_folder, read_json, remove
from uss_dagster.own_images import files
from uss_dagster.own_images.mask_pool import OwnImage, OwnMaskPool, read_all
from uss_dagster.report.explorer import PAGE
from uss_dagster.report.own_images_explorer import explore
from uss_dagster.segmenter import Segmenter

PRIVATE = ".curate"
RESULT = "set"
"""Name of the result in the folders of the engine."""
OUTDATED = ("records", "new", "refused")
"""Folders of ``.curate`` that earlier versions wrote."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for; see the options of ``curate``."""

    segmenter: Segmenter
    out: Path
    pool: MaskPoolParams
    params: CurateParams
    labels: Path | None = None
    copy: bool = False
    title: str = "CurateResult masks"
    licence: str = "not stated; masks made by a program"

    @property
    def private(self) -> Path:
        return self.out / PRIVATE


def curate_images(paths: list[Path], request: Request, report: Callable[[str], None], report_failure: Callable[[str], None]) -> SetSummary:
    """Curate images and put the result into ``request.out``; returns its summary.

    An image that cannot be used is listed in ``set_aside.csv`` and reported. The result is put in place complete, or, where its checks
    fail, not at all.

    Raises
    ------
    BadData
        The result was refused; or, with the result in place, an image could not be used.
    """
    images, folder = _list_images(paths, request.out)
    labels = _human_labels(request.labels, [image.image_id for image in images])
    _prepare_out(request.out)
    files.report_not_read(paths, report_failure)
    segmenter = request.segmenter.fit(files.ReadableSamples([(image.image_id, image.path) for image in images], request.segmenter))
    pool = OwnMaskPool(images, segmenter, request.pool, request.private)
    pool.compute(files.process_count(segmenter, len(images)), report, report_failure)
    curated, summary_lines = _publish(request, pool, labels)
    note_picture_folder(request.out, folder)
    pool.finish()
    for line in summary_lines:
        report(line)
    paths_by_id = {image.image_id: image.path for image in images}
    for image_id, reason in curated.failures.items():
        report_failure(f"set aside: {paths_by_id[image_id]}: {reason}")
    if unusable := sum(bool(image.problem) for image in pool.own_images) + len(curated.failures):
        set_aside = request.out / "set_aside.csv"
        raise BadData(f"{unusable} of {len(images)} pictures could not be used (see {set_aside}); the others are in {request.out}.")
    return curated.summary


def _list_images(paths: list[Path], out: Path) -> tuple[list[OwnImage], Path]:
    """All images, ascending by id, except those in the output folder; and the folder that their names start from."""
    paths = [path for path in files.pictures(paths) if out.absolute() not in path.absolute().parents]
    if not paths:
        raise UsageError(f"All pictures given lie in {out}, the folder of results. Choose another folder with --out.")
    folder = files.common_folder(paths)
    names = [files.relative_name(path, folder) for path in paths]
    return read_all(sorted(zip(files.ids_of(paths), names, paths, strict=True))), folder


def _human_labels(path: Path | None, ids: Sequence[str]) -> Labels:
    if path is None:
        return no_labels
    labels = CocoLabels(path)
    if not getattr(labels, "ids", set()).intersection(ids):
        raise BadData(f"None of the {len(ids)} pictures is named in {path}; they go by file name without its ending.")
    return labels


def _prepare_out(out: Path) -> None:
    files.check_out_folder(out)
    private = out / PRIVATE
    if out.is_dir() and not private.is_dir() and any(out.iterdir()):
        raise UsageError(f"{out} holds files, and `uss curate` did not make them. Choose another folder with --out; nothing was changed.")
    make_folder(private)
    for name in OUTDATED:
        remove(private / name)


# -- the result -----------------------------------------------------------------------------------------------------


def _publish(request: Request, pool: OwnMaskPool, labels: Labels) -> tuple[CurateResult, list[str]]:
    """Make the set from the pool, check it, and put it into the output folder; returns it and the lines to report."""
    remove(request.private / "work" / RESULT)  # one quick pass, not resumed
    staging = Staging(request.private, RESULT, [])
    paths = {image.image_id: image.path for image in pool.own_images}
    description = Description(request.title, f"{len(pool.own_images)} pictures", request.segmenter.spec.title, request.licence)
    curated, checks = make_set("curated", staging.folder, pool, labels, request.params, description, lambda i: read_picture(paths[i]))
    before = cast(SetSummary, read_json(request.out / "summary.json")) or None
    drift = drift_facts(check_drift(checks, before, curated.summary, request.params))["drift"]
    lines = _summary_lines(curated.summary, drift, request.out, pool, (staging.folder / "labels.json").exists())
    if checks.success and curated.ids:
        lines[-1] += _write_explorer(request, staging.folder, curated.ids, paths)
    if checks.success and request.copy:
        _copy_images(staging.folder, curated.ids, {image.image_id: image for image in pool.own_images})
    published = request.private / RESULT
    try:
        staging.publish(published, checks, {"name": request.title, "licence": request.licence, "params": asdict(request.params)})
    except Rejected as error:
        folder = request.private / "quarantine" / RESULT
        message = f"The result was refused: {checks.reasons()[0]} It lies in {folder} with its report; {request.out} is as it was."
        raise BadData(message) from error
    _put_in_place(published, request.out)
    return curated, lines


def _write_explorer(request: Request, folder: Path, ids: list[str], paths: Mapping[str, Path]) -> str:
    """Write the explorer; returns the end of the line that names it."""
    spec = request.segmenter.spec
    share = explore(folder, folder / "masks.parquet", ids, lambda i: read_picture(paths[i]), spec.name, f"{spec.title}, curated")
    return f"; to explore the masks{share}, open {request.out / PAGE}"


def _copy_images(folder: Path, ids: Sequence[str], images: Mapping[str, OwnImage]) -> None:
    """``data/`` beside ``labels.json``, as FiftyOne's importer expects it; with metadata.jsonl inside it is an image folder."""
    for image_id in ids:
        target = folder / "data" / images[image_id].name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(images[image_id].path, target)
    if (folder / "metadata.jsonl").exists():
        os.replace(folder / "metadata.jsonl", folder / "data" / "metadata.jsonl")


def _put_in_place(folder: Path, out: Path) -> None:
    """Move the files one by one and remove the old ones; ``summary.json``, by which the next run knows this one, comes last."""
    for old in list(out.iterdir()):
        if old.name != PRIVATE and not (folder / old.name).exists():
            remove(old)
    for path in sorted(folder.iterdir(), key=lambda path: (path.name == "summary.json", path.name)):
        if path.is_dir():
            remove(out / path.name)
        os.replace(path, out / path.name)
    remove(folder)


def _summary_lines(summary: SetSummary, drift: str, out: Path, pool: OwnMaskPool, has_labels: bool) -> list[str]:
    reused = sum(not image.problem for image in pool.own_images) - pool.computed
    set_aside = ", ".join(f"{count} {status}" for status, count in summary["status"].items() if status != "kept")
    return [
        f"{summary['kept']} of {summary['images']} images kept, {summary['masks']} masks ({summary['human_masks']} of people)"
        + (f"; set aside: {set_aside}" if set_aside else ""),
        f"computed {pool.computed}, reused {reused}; against the previous version: {drift}",
        f"{out / 'labels.json' if has_labels else out}, checks in {out / 'report.html'}, datasheet in {out / 'datasheet.html'}",
    ]
