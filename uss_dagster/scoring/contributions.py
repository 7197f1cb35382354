"""What images add to a metric family, computed by another stage, as a table."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from uss_dagster.artifacts.tables import read_table
from uss_dagster.metrics.base import Contribution
from uss_dagster.metrics.prompts import SIZES

PROMPTED = "prompted.parquet"
SCHEMA = pa.schema([("image_id", pa.string()), *((name, pa.list_(pa.float64(), size)) for name, size in SIZES.items())])


def to_table(rows: Mapping[str, Contribution]) -> pa.Table:
    """Contributions by image id."""
    plain = [
        {"image_id": image_id, **{name: np.atleast_1d(row[name]).tolist() for name in SIZES}} for image_id, row in sorted(rows.items())
    ]
    return pa.Table.from_pylist(plain, schema=SCHEMA)


def read_contributions(path: Path, ids: Container[str]) -> dict[str, Contribution]:
    """The contributions of some images."""
    rows = {row.pop("image_id"): row for row in read_table(path, SCHEMA).to_pylist()}
    arrays = {image_id: {name: np.array(values) for name, values in row.items()} for image_id, row in rows.items() if image_id in ids}
    return {image_id: {name: a[0] if SIZES[name] == 1 else a for name, a in row.items()} for image_id, row in arrays.items()}
