"""``uss segment``: any method on a person's own pictures → overlays, regions.parquet, COCO json."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import types
import typing
import unicodedata
from collections.abc import Callable, Iterator, Mapping
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
from uss_dagster.artifacts.pictures import decode, find_images
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.shards import map_shards, worker_count
from uss_dagster.artifacts.tables import regions_to_table
from uss_dagster.backbones.base import Encoder, loaded
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData, UsageError
from uss_dagster.regions.coco import annotation

DEFAULT_BACKBONE = "patches"
LONG_SIDE = 1024
SIGNATURE = "uss segment"
"""The PNG text ``Software`` of every overlay: by it an overlay is known, and never taken for one of the pictures to segment."""
FEW = 4
"""Up to so many pictures are segmented in this process: starting workers would take longer."""


@dataclass(frozen=True)
class Job:
    """How to segment, for every picture alike. Pickles, so that workers can be told."""

    method: str
    parameters: Mapping[str, Any]
    backbone: str | None
    backbone_parameters: Mapping[str, Any]
    out: Path
    long_side: int
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
    module = registry.load("method", job.method)
    params = registry.build_params(module.SPEC.params, job.parameters, f"method '{job.method}'")
    if (job.backbone or job.backbone_parameters) and not module.SPEC.needs:
        raise UsageError(f"Method '{job.method}' looks at pixels only; leave out --backbone and --backbone-param.")
    files = _pictures(paths)
    named = sorted(zip(_ids(files), files, strict=True))
    _check_out(job.out, [image_id for image_id, _ in named])
    if module.SPEC.needs:
        job = dataclasses.replace(job, backbone=job.backbone or DEFAULT_BACKBONE)
        _job_encoder(job)
    on_device = bool(job.backbone) and registry.load("backbone", str(job.backbone)).SPEC.device
    job.out.mkdir(parents=True, exist_ok=True)
    state = module.fit(_Readable(named, job), params) if hasattr(module, "fit") else None
    failed = 0
    with ExitStack() as stack:
        stack.callback(_remove_unfinished, job)
        tables = stack.enter_context(_Tables(job, _common_folder(files)))
        work = functools.partial(_segment_one, job=job, state=state)
        few = on_device or len(named) <= FEW
        outcomes = stack.enter_context(closing(map_shards(work, named, workers=1 if few else worker_count(len(named)))))
        for number, outcome in enumerate(outcomes, start=1):
            counter = f"{number:{len(str(len(named)))}}/{len(named)}"
            if outcome.rows is None:
                failed += 1
                complain(f"{counter}  left out: {outcome.failure}")
            else:
                tables.add(outcome)
                tell(f"{counter}  {job.out / outcome.image_id}.png  {outcome.rows.num_rows} regions")
    if failed == len(named):
        raise BadData(
            f"None of the {failed} pictures could be used, so nothing was written." if failed > 1 else "The picture could not be used."
        )
    if failed:
        raise BadData(f"{failed} of {len(named)} pictures could not be used (see above); the others are in {job.out}.")


def parse_parameters(words: list[str], cls: type, owner: str) -> dict[str, Any]:
    """``name=value`` words for a parameter dataclass: 'scale=0.5' → {'scale': 0.5}. Values are YAML, but text stays text where text is meant."""
    import yaml

    hints = typing.get_type_hints(cls)
    values = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise UsageError(f"{owner}: a parameter is written name=value, got '{word}'.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        hint = hints.get(name)
        wants_text = hint is str or (typing.get_origin(hint) in (types.UnionType, typing.Union) and str in typing.get_args(hint))
        values[name] = text if wants_text and not isinstance(value, str | None) else value
    return values


# -- one picture ------------------------------------------------------------------------------------------------


def _segment_one(named: tuple[str, Path], job: Job, state: Any) -> Outcome:
    image_id, path = named
    module = registry.load("method", job.method)
    params = registry.build_params(module.SPEC.params, job.parameters, f"method '{job.method}'")
    try:
        sample, size = _read(image_id, path, job, module.SPEC.needs)
    except BadData as error:
        return Outcome(image_id, path, failure=str(error))
    from uss_dagster.report.pictures import overlay

    regions = module.segment(sample, params, state).pruned()
    if not len(regions):
        return Outcome(image_id, path, failure=f"{path}: method '{job.method}' found no region in it.")
    _write_overlay(job, image_id, overlay(sample.image, regions, n_regions=job.shown))
    # A region thinner than a pixel of the reduced picture cannot vanish: the picture only grows here.
    return Outcome(image_id, path, regions_to_table(image_id, regions if regions.shape == size else regions.resized(*size).pruned()))


def _read(image_id: str, path: Path, job: Job, needs: tuple[str, ...]) -> tuple[Sample, tuple[int, int]]:
    """The picture, reduced to the long side, with its features; and its own (height, width)."""
    from uss_dagster.report.pictures import shrunk

    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadData(f"{path} cannot be read ({error.strerror}).") from None
    image = decode(data, str(path))
    size = image.shape[0], image.shape[1]
    if job.long_side:
        image = shrunk(image, job.long_side)
    if not needs:
        return Sample(image_id, image), size
    encode = _job_encoder(job)
    return Sample(image_id, image, encode([image])[0], encode), size


@dataclass(frozen=True)
class _Readable:
    """Samples of the pictures that can be read, for a method that looks at all of them first, as often as it wants."""

    named: list[tuple[str, Path]]
    job: Job

    def __len__(self) -> int:
        return len(self.named)

    def __iter__(self) -> Iterator[Sample]:
        needs = registry.load("method", self.job.method).SPEC.needs
        for image_id, path in self.named:
            try:
                yield _read(image_id, path, self.job, needs)[0]
            except BadData:
                continue  # said when its turn comes


def _job_encoder(job: Job) -> Encoder:
    spec = registry.load("method", job.method).SPEC
    facets = tuple(dict.fromkeys((*spec.needs, *spec.encodes)))
    return _encoder(str(job.backbone), facets, json.dumps(job.backbone_parameters, sort_keys=True))


@functools.lru_cache(maxsize=1)
def _encoder(backbone: str, facets: tuple[str, ...], parameters_json: str) -> Encoder:
    """The backbone, writing the facets that the method needs; it is loaded here, so that what is wrong with it is said first."""
    spec = registry.load("backbone", backbone).SPEC
    missing = [facet for facet in facets if facet not in spec.facets]
    if missing:
        raise UsageError(f"Backbone '{backbone}' cannot give {', '.join(missing)} (it has: {', '.join(spec.facets)}). Choose another one.")
    encoder = Encoder.of(backbone, {"facets": list(facets), **json.loads(parameters_json)})
    loaded(encoder.kind, encoder.parameters)
    return encoder


# -- which pictures, and under which names -------------------------------------------------------------------------


def _pictures(paths: list[Path]) -> list[Path]:
    """The pictures given and those in the folders given, but for overlays of earlier runs, which may lie in the same folders."""
    given = {p for p in paths if p.is_file()}
    found = find_images(paths)
    files = [p for p in found if p in given or not _is_overlay(p)]
    if not files:
        raise UsageError(
            f"All {len(found)} pictures in {', '.join(map(str, paths))} are overlays that `{SIGNATURE}` drew; there is nothing to segment."
        )
    return files


def _is_overlay(path: Path) -> bool:
    if path.suffix.lower() != ".png":
        return False
    try:
        with Image.open(path) as picture:
            return bool(picture.info.get("Software") == SIGNATURE)
    except (OSError, SyntaxError, ValueError):
        return False


def _ids(files: list[Path]) -> list[str]:
    """File stems, with a number where files share one (also when they differ in case only: not every disk tells 'A' from 'a')."""
    taken: set[str] = set()
    ids = []
    for path in files:
        stem = os.fsencode(path.stem).decode("utf-8", "replace")
        image_id, number = stem, 1
        while unicodedata.normalize("NFC", image_id).casefold() in taken:
            number += 1
            image_id = f"{stem}-{number}"
        taken.add(unicodedata.normalize("NFC", image_id).casefold())
        ids.append(image_id)
    return ids


def _common_folder(files: list[Path]) -> Path:
    return Path(os.path.commonpath([p.absolute().parent for p in files]))


def _check_out(out: Path, ids: list[str]) -> None:
    """Refuse a place that is no folder, and one where a picture of another origin would be replaced by an overlay."""
    above = next(p for p in (out, *out.absolute().parents) if p.exists() or p.is_symlink())
    if not above.is_dir():
        raise UsageError(f"--out {out}: {above} is a file. Name a folder; it is made if it is not there.")
    for image_id in ids:
        path = out / f"{image_id}.png"
        if path.exists() and not _is_overlay(path):
            raise UsageError(
                f"{path} is there already, and `{SIGNATURE}` did not draw it. Choose another folder with --out; nothing was changed."
            )


# -- what is written ------------------------------------------------------------------------------------------------


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
        name = os.fsencode(os.path.relpath(outcome.path.absolute(), self.folder)).decode("utf-8", "replace").replace(os.sep, "/")
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
