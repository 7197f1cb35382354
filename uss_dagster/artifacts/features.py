"""Reading the tensors of a features artefact, image by image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from uss_dagster.artifacts.reads import Piece
from uss_dagster.artifacts.schemas import FEATURES
from uss_dagster.artifacts.staging import MANIFEST, read_manifest
from uss_dagster.artifacts.tables import read_table
from uss_dagster.errors import BadData

INDEX = "index.parquet"


class FeatureShards:
    """Facets by image id; keeps one shard open (mapped, so only what is read comes into memory)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        manifest = read_manifest(folder, INDEX)
        self.backbone: str = f"backbone '{manifest['backbone']}'"
        self.comparable = bool(manifest.get("comparable", False))
        self._where: dict[str, list[tuple[str, str]]] = {}
        index = read_table(folder / INDEX, FEATURES)
        for image_id, shard, facet in zip(*(index[c].to_pylist() for c in ("image_id", "shard", "facet")), strict=True):
            self._where.setdefault(image_id, []).append((shard, facet))
        self._open: tuple[str, Any] | None = None

    def tensors(self, image_id: str) -> dict[str, np.ndarray]:
        """Facet name → array, as stored (float16 or float32; indices as integers)."""
        if image_id not in self._where:
            raise BadData(f"{self.folder} has no features of image '{image_id}'. Run its features stage again.")
        return {facet: self._shard(shard).get_tensor(f"{image_id}/{facet}") for shard, facet in self._where[image_id]}

    def shards_of(self, ids: Iterable[str]) -> list[str]:
        """The files that hold the facets of these images, sorted."""
        return sorted({shard for image_id in ids for shard, _ in self._where.get(image_id, ())})

    @property
    def listings(self) -> list[Path]:
        """The files that say what lies where."""
        return [self.folder / MANIFEST, self.folder / INDEX]

    def pieces(self, ids: Iterable[str]) -> list[Piece]:
        """What is read for some images, beside the listings."""
        return [Piece(self.folder / shard) for shard in self.shards_of(ids)]

    def _shard(self, name: str) -> Any:
        from safetensors import SafetensorError, safe_open

        if self._open is None or self._open[0] != name:
            try:
                self._open = (name, safe_open(self.folder / name, "numpy"))
            except (SafetensorError, OSError) as error:
                raise BadData(
                    f"{self.folder / name} cannot be read ({error}). Run `dvc checkout --force` or its features stage again."
                ) from error
        return self._open[1]
