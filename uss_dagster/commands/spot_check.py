"""``uss spot-check``: a few images of a segments cell computed again, and held against what is published."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from uss_dagster import registry
from uss_dagster.artifacts.images import Images, evenly_spaced
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import read_table, regions_to_table, write_table
from uss_dagster.backbones.base import Encoder
from uss_dagster.errors import BadData, UsageError, did_you_mean
from uss_dagster.planning import plan
from uss_dagster.planning.cells import expected_code
from uss_dagster.stages.segments import Samples, parameters_of

_STAGE = "segments"


def spot_check(root: Path, address: str, count: int) -> list[str]:
    """Compute ``count`` evenly spaced images of a cell again, without touching anything; returns their ids.

    ``BadData`` names the images that came out differently; ``UsageError`` where there is nothing to compare with.
    """
    stage, _, key = address.partition("@")
    cells: dict[str, Any] = plan.read_grid(root)[_STAGE]
    if stage != _STAGE or key not in cells:
        raise UsageError(f"'{address}' is no planned segments stage.{did_you_mean(address, [f'{_STAGE}@{cell}' for cell in cells])}")
    cell = cells[key]
    if cell["code"] != expected_code(_STAGE, cell):
        raise UsageError(f"The code of '{address}' was edited since it was planned. Run `uss repro {address}` first.")
    published = root / "data" / "segments" / cell["entry"] / cell["dataset"]
    shards = sorted(published.glob("shard-*.parquet"))
    if not shards:
        raise UsageError(f"{published.relative_to(root)} is not here. Run `uss repro {address}` first.")
    folder = root / "data" / "datasets" / cell["dataset"] / "images"
    features = root / "data" / "features" / cell["backbone"] / cell["dataset"] if cell["backbone"] else None
    encoder = Encoder.of(cell["encoder"]["kind"], cell["encoder"]["params"]) if cell["encoder"] else None
    module = registry.load("method", cell["method"])
    params = parameters_of(cell, root)
    ids = Images(folder).ids
    state = module.fit(Samples(ids, folder, features, encoder), params) if hasattr(module, "fit") else None
    chosen = evenly_spaced(ids, count)
    different = []
    with tempfile.TemporaryDirectory() as scratch:
        for sample in Samples(chosen, folder, features, encoder):
            path = Path(scratch) / "again.parquet"
            write_table(path, regions_to_table(sample.image_id, module.segment(sample, params, state).pruned()), REGIONS)
            before = pa.concat_tables(read_table(shard, REGIONS, filters=[("image_id", "==", sample.image_id)]) for shard in shards)
            if not same(read_table(path, REGIONS), before):
                different.append(sample.image_id)
    if different:
        raise BadData(
            f"{len(different)} of {len(chosen)} images of '{address}' came out differently: {', '.join(different)}. Is the cell up to date "
            "(`dvc status`), and was it computed with these library versions and on this kind of machine?"
        )
    return chosen


def same(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables of one schema hold the same bytes; values that are not numbers equal themselves here, such as levels of masks without any."""
    if one.num_rows != other.num_rows:
        return False
    for first, second in zip(one.combine_chunks().columns, other.combine_chunks().columns, strict=True):
        if pa.types.is_floating(first.type):
            if first.to_numpy().tobytes() != second.to_numpy().tobytes():
                return False
        elif not first.equals(second):
            return False
    return True
