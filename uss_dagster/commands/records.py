"""One picture of ``uss curate``: its masks, pooled and measured, in a record that is there whole or not at all.

A record lies under a hash of the file's content and the recipe: all parameters, what was fitted, and the code of this module and what it
imports. What is done with the records later is no part of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uss_dagster import registry
from uss_dagster.artifacts.image_files import decode
from uss_dagster.commands.own_images import Reader
from uss_dagster.curation.pooling import Family, PoolParams, look_row, pool_image
from uss_dagster.curation.stability import stability
from uss_dagster.curation.tables import LOOKS, POOL
from uss_dagster.errors import UsageError, UssError
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Recipe:
    """How the masks of a picture are made. Pickles, so that workers can be told. state: what the method fitted to all pictures.
    name: a hash over all that the records depend on but the pictures."""

    parameters: Mapping[str, Any]
    reader: Reader
    state: Any
    pool: PoolParams
    name: str


@dataclass(frozen=True)
class Outcome:
    """What came of one picture: the record that holds its masks, or why there is none."""

    image_id: str
    name: str
    path: Path
    sha256: str
    record: Path | None = None
    problem: str = ""
    computed: bool = False


def make_records(chunk: list[tuple[str, str, Path]], recipe: Recipe, work: Path) -> list[Outcome]:
    """Records of some pictures (id, name, path), each finished by itself. work: the folder that holds all records."""
    return [_one(image_id, name, path, recipe, work) for image_id, name, path in chunk]


def _one(image_id: str, name: str, path: Path, recipe: Recipe, work: Path) -> Outcome:
    """The record of one picture, from an earlier run or computed now. Only what is wrong with the request stops the run."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return Outcome(image_id, name, path, "", problem=f"it cannot be read ({error.strerror})")
    digest = hashlib.sha256(data).hexdigest()
    key = hashlib.sha256(f"{recipe.name} {digest}".encode()).hexdigest()
    record = work / "records" / key[:2] / f"{key}.parquet"
    if _is_whole(record):
        return Outcome(image_id, name, path, digest, record)
    try:
        image = decode(data, str(path))
        look = look_row(image_id, name, digest, image)
        plain = bool(look["problem"][0].as_py())
        rows = POOL.empty_table() if plain else _masks_of(image_id, image, recipe)
    except UsageError:
        raise
    except UssError as error:
        return Outcome(image_id, name, path, digest, problem=str(error).replace(str(path), "it", 1))
    except Exception as error:  # a method that fails on one picture of many: said, counted, and its trace kept
        (work / "errors").mkdir(parents=True, exist_ok=True)
        (work / "errors" / f"{digest[:16]}.txt").write_text(f"{path}\n\n{traceback.format_exc()}", encoding="utf-8")
        return Outcome(
            image_id, name, path, digest, problem=f"method '{recipe.reader.method}' failed on it ({type(error).__name__}: {error})"
        )
    _write_record(record, rows, look)
    return Outcome(image_id, name, path, digest, record, computed=True)


def _masks_of(image_id: str, image: np.ndarray, recipe: Recipe) -> pa.Table:
    method = recipe.reader.method
    module = registry.load("method", method)
    params = registry.build_params(module.SPEC.params, recipe.parameters, f"method '{method}'")

    def segment(picture: np.ndarray) -> Regions:
        sample = recipe.reader.sample(image_id, picture)
        found: Regions = module.segment(sample, params, recipe.state).pruned()
        return found if sample.image.shape == picture.shape else found.resized(*picture.shape[:2]).pruned()

    regions = segment(image)
    family = Family(method, regions, stability(image, regions, segment, recipe.pool.views))
    return pool_image(image_id, image, [family], recipe.pool)


def _write_record(path: Path, rows: pa.Table, look: pa.Table) -> None:
    """Masks as rows, and the look as JSON in the file's own metadata; there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seen = look.to_pylist()[0]
    seen["colours"] = base64.b64encode(seen["colours"]).decode("ascii")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        pq.write_table(rows.replace_schema_metadata({"look": json.dumps(seen)}), partial, compression="zstd", compression_level=3)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _is_whole(path: Path) -> bool:
    """A record that a full disk or a crash of the machine left empty or cut is no record."""
    try:
        return bool(_look_in(path))
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return False


def _look_in(path: Path) -> dict[str, Any]:
    seen: dict[str, Any] = json.loads(pq.read_schema(path).metadata[b"look"])
    seen["colours"] = base64.b64decode(seen["colours"])
    return seen


class RecordPool:
    """The records of the pictures as a pool, under the names that the pictures have now."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        self._outcomes = outcomes
        rows = []
        for outcome in outcomes:
            if outcome.record is None:
                rows.append(look_row(outcome.image_id, outcome.name, outcome.sha256, None, outcome.problem).to_pylist()[0])
            else:
                rows.append({**_look_in(outcome.record), "image_id": outcome.image_id, "file_name": outcome.name})
        self.looks = pa.Table.from_pylist(rows, schema=LOOKS)

    def masks(self) -> Iterator[tuple[str, pa.Table]]:
        for outcome in self._outcomes:
            if outcome.record is not None:
                rows = pq.read_table(outcome.record).replace_schema_metadata(None)
                if rows.num_rows:
                    ids = pa.array([outcome.image_id] * rows.num_rows, pa.string())
                    yield outcome.image_id, rows.set_column(0, POOL.field("image_id"), ids).cast(POOL)
