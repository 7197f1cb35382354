"""Any method on a person's own images → overlays, regions.parquet, COCO json, an explorer."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from uss_dagster.artifacts.image_files import decode, read_file, read_picture
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.shards import map_shards
from uss_dagster.artifacts.tables import read_table, regions_to_table, write_table
from uss_dagster.drawing import overlay
from uss_dagster.errors import BadData, UsageError
from uss_dagster.files import make_folder, remove, whole_file
from uss_dagster.hashing import sha256_of, sha256_of_json
from uss_dagster.own_images import files
from uss_dagster.own_images.region_files import RegionFiles
from uss_dagster.planning.fingerprints import fingerprint
from uss_dagster.report.explorer import PAGE
from uss_dagster.report.own_images_explorer import check_place, explore
from uss_dagster.segmenter import Segmenter, at_size, few_regions_warning

PRIVATE = ".segment"
"""Folder in the folder of results where a stopped run finds the regions of images that are done."""

FEW = 10
"""Pictures whose explorer is written at once; with more, a line says that it is being written."""


@dataclass(frozen=True)
class Target:
    """Where the results go.

    Parameters
    ----------
    out
        The folder.
    overlay_regions
        How many regions an overlay shows.
    explorer
        Whether the explorer is written.
    key
        Hash of what the regions depend on beside the images.
    run
        Process that started the run; part of the names of its unfinished files, whichever process writes them.
    """

    out: Path
    overlay_regions: int
    explorer: bool = True
    key: str = ""
    run: int = field(default_factory=os.getpid)

    def rows_file(self, image_id: str, data: bytes) -> Path:
        """Where the regions of an image lie until all images are done. data: of the image's file."""
        return self.out / PRIVATE / self.key / f"{sha256_of_json([image_id, sha256_of(data)], 32)}.parquet"

    def remove_unfinished(self) -> None:
        for partial in self.out.glob(f".{self.run}.*.partial"):
            partial.unlink(missing_ok=True)


def segment_images(
    paths: list[Path], segmenter: Segmenter, target: Target, report: Callable[[str], None], report_failure: Callable[[str], None]
) -> dict[str, int]:
    """Segment images in the order of their ids and report a line for each; returns how many regions each has. One that cannot be used is left out.

    The tables are written as images finish and renamed into place after the last, so neither memory nor an interrupted run depends on
    how many there are.

    Raises
    ------
    BadData
        At the end, if an image was left out.
    """
    arguments, paths = paths, files.pictures(paths)
    folder, named = files.common_folder(paths), sorted(zip(files.ids_of(paths), paths, strict=True))
    path_of, count = dict(named), len(named)
    _check_out(target.out, list(path_of))
    make_folder(target.out)
    files.report_not_read(arguments, report_failure)
    segmenter = segmenter.fit(files.ReadableSamples(named, segmenter))
    depends_on = [segmenter.identity, fingerprint([__name__, *segmenter.modules()]), target.overlay_regions]
    target = replace(target, key=sha256_of_json(depends_on, 16))
    work = functools.partial(_segment_one, segmenter=segmenter, target=target)
    counts: dict[str, int] = {}
    with ExitStack() as stack:
        stack.callback(target.remove_unfinished)
        tables = stack.enter_context(RegionFiles(target.out, f".{target.run}"))
        results = stack.enter_context(closing(map_shards(work, named, workers=files.process_count(segmenter, count))))
        for number, ((image_id, path), result) in enumerate(zip(named, results, strict=True), start=1):
            counter = f"{number:{len(str(count))}}/{count}"
            if isinstance(result, str):
                report_failure(f"{counter}  left out: {result}")
            else:
                tables.add(image_id, files.relative_name(path, folder), result)
                counts[image_id] = result.num_rows
                report(f"{counter}  {target.out / image_id}.png  {result.num_rows} regions")
    if warning := few_regions_warning(segmenter.method, [*counts.values()]):
        report_failure(f"warning: {warning}")
    if tables.ids and target.explorer:
        if len(tables.ids) > FEW:
            report(f"{len(tables.ids)} pictures done; writing the explorer")
        spec, table = segmenter.spec, target.out / "regions.parquet"
        share = explore(target.out, table, tables.ids, lambda image_id: read_picture(path_of[image_id]), spec.name, spec.title)
        report(f"to explore the regions{share}, open {target.out / PAGE}")
    remove(target.out / PRIVATE)
    if failed := count - len(tables.ids):
        _raise_failed(failed, count, target.out)
    return counts


def _raise_failed(failed: int, count: int, out: Path) -> None:
    if failed < count:
        raise BadData(f"{failed} of {count} pictures could not be used (see above); the others are in {out}.")
    several = f"None of the {failed} pictures could be used, so nothing was written."
    raise BadData(several if failed > 1 else "The picture could not be used.")


def _segment_one(named: tuple[str, Path], segmenter: Segmenter, target: Target) -> pa.Table | str:
    """Segment one image, unless a stopped run did, and write its overlay; returns the rows of its regions, or why it is left out.

    Runs in a worker.
    """
    image_id, path = named
    try:
        data = read_file(path)
        rows_file = target.rows_file(image_id, data)
        if rows_file.exists() and (target.out / f"{image_id}.png").exists():
            return read_table(rows_file, REGIONS)
        image = decode(data, str(path))
    except BadData as error:
        return str(error)
    sample = segmenter.sample(image_id, image)
    regions = segmenter.segment(sample, allow_empty=True)
    if not len(regions):
        return f"{path}: method '{segmenter.method}' found no region in it."
    _write_overlay(target, image_id, overlay(sample.image, regions, n_regions=target.overlay_regions))
    rows = regions_to_table(image_id, at_size(regions, image))
    with whole_file(rows_file) as partial:
        write_table(partial, rows, REGIONS)
    return rows


def _check_out(out: Path, ids: list[str]) -> None:
    """Refuse a path that is no folder, and one where an overlay would replace an image of other origin."""
    files.check_out_folder(out)
    check_place(out)
    for image_id in ids:
        path = out / f"{image_id}.png"
        if path.exists() and not files.is_overlay(path):
            raise UsageError(
                f"{path} is there already, and `{files.SIGNATURE}` did not draw it. Choose another folder with --out; nothing was changed."
            )


def _write_overlay(target: Target, image_id: str, rgb: np.ndarray) -> None:
    note = PngInfo()
    note.add_text("Software", files.SIGNATURE)
    partial = target.out / f".{target.run}.{os.getpid()}.partial"
    Image.fromarray(rgb).save(partial, "PNG", compress_level=6, pnginfo=note)
    os.replace(partial, target.out / f"{image_id}.png")
