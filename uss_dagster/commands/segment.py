"""``uss segment``: any method on a person's own pictures → overlays, regions.parquet, COCO json."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from uss_dagster import registry
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.shards import map_shards
from uss_dagster.artifacts.tables import regions_to_table
from uss_dagster.commands.own_images import SIGNATURE, Readable, Reader, common_folder, ids_of, is_overlay, pictures, relative_name
from uss_dagster.errors import BadData, UsageError
from uss_dagster.regions.coco import annotation
from uss_dagster.report.explorer import PAGE
from uss_dagster.report.own_images_explorer import check_place, explore

LONG_SIDE = 1024


@dataclass(frozen=True)
class Job:
    """How to segment, for every picture alike. Pickles, so that workers can be told."""

    parameters: Mapping[str, Any]
    reader: Reader
    out: Path
    shown: int
    run: int = field(default_factory=os.getpid)
    """Names the unfinished files of this run, whichever process writes them."""


@dataclass(frozen=True)
class Outcome:
    """What came of one picture: the rows of its regions, or why it could not be used."""

    image_id: str
    path: Path
    rows: pa.Table | None = None
    failure: str = ""


def segment_pictures(paths: list[Path], job: Job, tell: Callable[[str], None], complain: Callable[[str], None]) -> None:
    """Segment pictures in the order of their ids, and say a line about each; a picture that cannot be used is left out.

    Raises ``BadData`` at the end where any was left out. The tables are written as pictures finish and renamed into place after
    the last, so neither memory nor a broken run depends on how many there are.
    """
    module = registry.load("method", job.reader.method)
    params = registry.build_params(module.SPEC.params, job.parameters, f"method '{job.reader.method}'")
    files = pictures(paths)
    named = sorted(zip(ids_of(files), files, strict=True))
    _check_out(job.out, [image_id for image_id, _ in named])
    job.out.mkdir(parents=True, exist_ok=True)
    state = module.fit(Readable(named, job.reader), params) if hasattr(module, "fit") else None
    failed = 0
    with ExitStack() as stack:
        stack.callback(_remove_unfinished, job)
        tables = stack.enter_context(_Tables(job, common_folder(files)))
        work = functools.partial(_segment_one, job=job, state=state)
        outcomes = stack.enter_context(closing(map_shards(work, named, workers=job.reader.workers(len(named), len(named)))))
        for number, outcome in enumerate(outcomes, start=1):
            counter = f"{number:{len(str(len(named)))}}/{len(named)}"
            if outcome.rows is None:
                failed += 1
                complain(f"{counter}  left out: {outcome.failure}")
            else:
                tables.add(outcome)
                tell(f"{counter}  {job.out / outcome.image_id}.png  {outcome.rows.num_rows} regions")
    if done := [image["image_id"] for image in tables.images]:
        file_of = dict(named)
        found = module.SPEC.name, module.SPEC.title
        few = explore(job.out, job.out / "regions.parquet", done, lambda image_id: job.reader.read(file_of[image_id]), *found)
        tell(f"to explore the regions{few}, open {job.out / PAGE}")
    if failed == len(named):
        raise BadData(
            f"None of the {failed} pictures could be used, so nothing was written." if failed > 1 else "The picture could not be used."
        )
    if failed:
        raise BadData(f"{failed} of {len(named)} pictures could not be used (see above); the others are in {job.out}.")


# -- one picture ------------------------------------------------------------------------------------------------


def _segment_one(named: tuple[str, Path], job: Job, state: Any) -> Outcome:
    image_id, path = named
    module = registry.load("method", job.reader.method)
    params = registry.build_params(module.SPEC.params, job.parameters, f"method '{job.reader.method}'")
    try:
        image = job.reader.read(path)
    except BadData as error:
        return Outcome(image_id, path, failure=str(error))
    size = image.shape[0], image.shape[1]
    sample = job.reader.sample(image_id, image)
    from uss_dagster.drawing import overlay

    regions = module.segment(sample, params, state).pruned()
    if not len(regions):
        return Outcome(image_id, path, failure=f"{path}: method '{job.reader.method}' found no region in it.")
    _write_overlay(job, image_id, overlay(sample.image, regions, n_regions=job.shown))
    # A region thinner than a pixel of the reduced picture cannot vanish: the picture only grows here.
    return Outcome(image_id, path, regions_to_table(image_id, regions if regions.shape == size else regions.resized(*size).pruned()))


# -- what is written ------------------------------------------------------------------------------------------------


def _check_out(out: Path, ids: list[str]) -> None:
    """Refuse a place that is no folder, and one where a picture of another origin would be replaced by an overlay."""
    above = next(p for p in (out, *out.absolute().parents) if p.exists() or p.is_symlink())
    if not above.is_dir():
        raise UsageError(f"--out {out}: {above} is a file. Name a folder; it is made if it is not there.")
    check_place(out)
    for image_id in ids:
        path = out / f"{image_id}.png"
        if path.exists() and not is_overlay(path):
            raise UsageError(
                f"{path} is there already, and `{SIGNATURE}` did not draw it. Choose another folder with --out; nothing was changed."
            )


def _write_overlay(job: Job, image_id: str, rgb: np.ndarray) -> None:
    note = PngInfo()
    note.add_text("Software", SIGNATURE)
    partial = job.out / f".{job.run}.{os.getpid()}.partial"
    Image.fromarray(rgb).save(partial, "PNG", compress_level=6, pnginfo=note)
    os.replace(partial, job.out / f"{image_id}.png")


def _remove_unfinished(job: Job) -> None:
    for partial in job.out.glob(f".{job.run}.*.partial"):
        partial.unlink(missing_ok=True)


class _Tables:
    """``regions.parquet`` and ``regions.json`` (COCO), grown picture by picture, in place only when whole and not empty."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.out, self.run, self.folder = job.out, job.run, folder
        self.images: list[dict[str, Any]] = []
        self.labels: set[int] = set()
        self.annotations = 0

    def __enter__(self) -> _Tables:
        self._parquet, self._json = (self.out / f".{self.run}.{name}.partial" for name in ("parquet", "json"))
        self._rows = pq.ParquetWriter(self._parquet, REGIONS, compression="zstd", compression_level=3, store_schema=False)
        self._text = open(self._json, "w", encoding="utf-8")
        self._text.write('{"annotations": [')
        return self

    def add(self, outcome: Outcome) -> None:
        assert outcome.rows is not None
        self._rows.write_table(outcome.rows.cast(REGIONS))
        number = len(self.images) + 1
        columns = outcome.rows.select(["parent", "area", "bbox", "rle", "score", "label"]).to_pylist()
        height, width = outcome.rows["height"][0].as_py(), outcome.rows["width"][0].as_py()
        name = relative_name(outcome.path, self.folder)
        self.images.append({"id": number, "file_name": name, "height": height, "width": width, "image_id": outcome.image_id})
        first = self.annotations + 1
        for row in columns:
            self.annotations += 1
            self.labels.add(max(1, row["label"]))
            parent = first + row["parent"] if row["parent"] >= 0 else None
            known = (row["label"], row["area"], row["bbox"], (height, width), row["rle"], row["score"], parent)
            self._text.write(f"{',' if self.annotations > 1 else ''}\n{json.dumps(annotation(self.annotations, number, *known))}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        with self._text, self._rows:
            if error is None:
                categories = [{"id": label, "name": "region"} for label in sorted(self.labels)]
                self._text.write(f'],\n"images": {json.dumps(self.images)},\n"categories": {json.dumps(categories)}}}\n')
        if error is None and self.images:
            os.replace(self._parquet, self.out / "regions.parquet")
            os.replace(self._json, self.out / "regions.json")
