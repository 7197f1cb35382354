"""Schemas of the tables between stages, and the version that every ``manifest.json`` names."""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 2


def _schema(**columns: pa.DataType) -> pa.Schema:
    """Columns may not be null unless their name ends with ``_or_null`` (the ending is dropped)."""
    return pa.schema([pa.field(n.removesuffix("_or_null"), t, nullable=n.endswith("_or_null")) for n, t in columns.items()])


IMAGES = _schema(
    image_id=pa.string(),
    shard=pa.string(),
    member=pa.string(),
    offset=pa.int64(),
    size=pa.int64(),
    height=pa.int32(),
    width=pa.int32(),
    split=pa.string(),
    sha256=pa.string(),
)
"""One row an image, sorted by id: the encoded file is ``size`` bytes at ``offset`` of the tar file ``shard``."""

REGIONS = _schema(
    image_id=pa.string(),
    region=pa.int32(),
    parent=pa.int32(),
    depth=pa.int32(),
    area=pa.int64(),
    bbox=pa.list_(pa.int32(), 4),
    rle=pa.binary(),
    height=pa.int32(),
    width=pa.int32(),
    level=pa.float32(),
    score=pa.float32(),
    label=pa.int32(),
    source=pa.string(),
)
"""One row a region, sorted by (image_id, region); bbox is x, y, width, height; rle holds COCO counts. Level is NaN for none."""

FEATURES = _schema(
    image_id=pa.string(), shard=pa.string(), facet=pa.string(), shape=pa.list_(pa.int32()), height=pa.int32(), width=pa.int32()
)
"""One row an image and facet: the tensor ``<image_id>/<facet>`` of the safetensors file ``shard``; height × width is the image's."""

SCORES = _schema(
    entry=pa.string(),
    dataset=pa.string(),
    image_id_or_null=pa.string(),
    metric=pa.string(),
    protocol=pa.string(),
    scope=pa.string(),
    grid=pa.string(),
    value=pa.float64(),
    n=pa.int64(),
)
"""Tidy scores: a row an image where the metric has one, and a row with a null image for the dataset. protocol: the convention.

scope: within what regions are matched, 'image' or 'dataset'. grid: where pixels were compared, 'full' or 'HxW'.
"""

REPLICATES = _schema(
    entry=pa.string(),
    dataset=pa.string(),
    metric=pa.string(),
    protocol=pa.string(),
    scope=pa.string(),
    grid=pa.string(),
    replicate=pa.int32(),
    value_or_null=pa.float64(),
)
"""Bootstrap replicates of the dataset scores; replicate r weighs the images alike for every entry."""

LABELS = _schema(image_id=pa.string(), region=pa.int32(), label=pa.int32())
"""One row a region that was given a class of its own dataset, sorted; regions without one are left out."""
