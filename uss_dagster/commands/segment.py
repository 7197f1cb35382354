"""``uss segment``: any method on a person's own pictures → overlays, regions.parquet, COCO json."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uss_dagster import registry
from uss_dagster.artifacts.pictures import decode, encode_png, find_images
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import regions_to_table, write_table
from uss_dagster.backbones.base import Features
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData, UsageError
from uss_dagster.regions import Regions

DEFAULT_BACKBONE = "patches"


@dataclass(frozen=True)
class Outcome:
    """What came of a call: image id → number of regions, and file → why it could not be used."""

    done: dict[str, int]
    failed: dict[str, str]


def parse_parameters(words: list[str]) -> dict[str, Any]:
    """``name=value`` words as YAML values: 'scale=0.5' → {'scale': 0.5}."""
    import yaml

    values = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise UsageError(f"A parameter is written name=value, got '{word}'.")
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UsageError(f"Parameter '{name}': cannot read the value '{text}'.") from None
    return values


def segment_pictures(
    paths: list[Path], method: str, backbone: str | None, parameters: Mapping[str, Any], out: Path, regions: int = 12
) -> Outcome:
    """Segment pictures one by one. A picture that cannot be read is reported and left out; the others are finished."""
    from uss_dagster.report.pictures import overlay

    module = registry.load("method", method)
    params = registry.build_params(module.SPEC.params, parameters, f"method '{method}'")
    if backbone and not module.SPEC.needs:
        raise UsageError(f"Method '{method}' looks at pixels only; leave out --backbone.")
    extract = _extractor(backbone or DEFAULT_BACKBONE, module.SPEC.needs) if module.SPEC.needs else None
    files = find_images(paths)
    ids = _ids(files)
    failed: dict[str, str] = {}
    state = module.fit(_samples(files, ids, extract, failed), params) if hasattr(module, "fit") else None
    failed.clear()
    out.mkdir(parents=True, exist_ok=True)
    tables, images, done = [], [], {}
    annotations: list[dict[str, object]] = []
    with Progress(f"segment with {method}", len(files)) as progress:
        for number, sample in enumerate(_samples(files, ids, extract, failed, progress), start=1):
            found: Regions = module.segment(sample, params, state).pruned()
            done[sample.image_id] = len(found)
            _write(out / f"{sample.image_id}.png", encode_png(overlay(sample.image, found, n_regions=regions)))
            tables.append(regions_to_table(sample.image_id, found))
            height, width = found.shape
            images.append({"id": number, "file_name": str(files[ids.index(sample.image_id)]), "height": height, "width": width})
            annotations += found.to_coco(number, first_id=len(annotations) + 1)
    if tables:
        import pyarrow as pa

        table = pa.concat_tables(tables).sort_by([("image_id", "ascending"), ("region", "ascending")])
        partial = out / f".regions.{os.getpid()}.partial"
        write_table(partial, table, REGIONS)
        os.replace(partial, out / "regions.parquet")
        coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "region"}]}
        _write(out / "regions.json", (json.dumps(coco) + "\n").encode())
    return Outcome(done, failed)


def _extractor(backbone: str, needs: tuple[str, ...]) -> Callable[[np.ndarray], Features]:
    module = registry.load("backbone", backbone)
    missing = [facet for facet in needs if facet not in module.SPEC.facets]
    if missing:
        raise UsageError(
            f"Backbone '{backbone}' cannot give {', '.join(missing)} (it has: {', '.join(module.SPEC.facets)}). Choose another one."
        )
    extract = module.load(registry.build_params(module.SPEC.params, {"facets": list(needs)}, f"backbone '{backbone}'"))
    return lambda image: Features(extract([image])[0], f"backbone '{backbone}'")


def _samples(
    files: list[Path],
    ids: list[str],
    extract: Callable[[np.ndarray], Features] | None,
    failed: dict[str, str],
    progress: Progress | None = None,
) -> Iterator[Sample]:
    for path, image_id in zip(files, ids, strict=True):
        try:
            image = decode(path.read_bytes(), str(path))
        except (BadData, OSError) as error:
            failed[str(path)] = str(error)
        else:
            yield Sample(image_id, image, extract(image) if extract else None)
        if progress:
            progress.advance()


def _ids(files: list[Path]) -> list[str]:
    """File stems, with a number where two files share one."""
    seen: dict[str, int] = {}
    ids = []
    for path in files:
        seen[path.stem] = seen.get(path.stem, 0) + 1
        ids.append(path.stem if seen[path.stem] == 1 else f"{path.stem}-{seen[path.stem]}")
    return ids


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)
