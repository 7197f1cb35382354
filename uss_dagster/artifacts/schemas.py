"""Schemas of the tables between stages, from ``schemas.yaml``, and the version that every ``manifest.json`` names."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from uss_dagster.files import parse_yaml

SCHEMA_VERSION = 2


def read_schemas(module: str) -> dict[str, pa.Schema]:
    """The schemas in the YAML file beside a module (its ``__file__``), by name."""
    tables: dict[str, dict[str, str]] = parse_yaml(Path(module).with_suffix(".yaml").read_bytes())
    return {name: pa.schema([_field(*column) for column in columns.items()]) for name, columns in tables.items()}


def _field(name: str, text: str) -> pa.Field:
    """A column from its type in words, such as 'int32', 'string or null', 'list of int32' or 'list of 4 int32'."""
    listed, size, kind, null = re.fullmatch(r"(list of )?(\d+ )?(\w+)( or null)?", text).groups()  # type: ignore[union-attr]
    value = pa.type_for_alias(kind)
    return pa.field(name, pa.list_(value, int(size or -1)) if listed else value, nullable=null is not None)


_SCHEMAS = read_schemas(__file__)
IMAGES, REGIONS, FEATURES = _SCHEMAS["IMAGES"], _SCHEMAS["REGIONS"], _SCHEMAS["FEATURES"]
SCORES, REPLICATES, RUNS, LABELS = (_SCHEMAS[name] for name in ("SCORES", "REPLICATES", "RUNS", "LABELS"))
ESTIMATES, ESTIMATED_RANKING = _SCHEMAS["ESTIMATES"], _SCHEMAS["ESTIMATED_RANKING"]
