"""Reading the tensors of a features artefact, image by image; and where a stage reads them, stored or computed by itself."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.reads import Piece
from uss_dagster.artifacts.schemas import FEATURES
from uss_dagster.artifacts.staging import MANIFEST, read_manifest
from uss_dagster.artifacts.tables import FileState, file_state, image_bounds, read_group
from uss_dagster.errors import BadData
from uss_dagster.planning.cells import COMPUTES_FEATURES, FeatureSpec
from uss_dagster.planning.layout import Layout

INDEX = "index.parquet"


class FeatureShards:
    """Facets by image id; keeps one shard open (mapped, so only what is read comes into memory).

    Of the index it reads the row groups that hold what is asked for: a worker process opens it for every shard.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        manifest = read_manifest(folder, INDEX)
        self.backbone: str = f"backbone '{manifest['backbone']}'"
        self.comparable = bool(manifest.get("comparable", False))
        image_bounds(folder / INDEX)  # refuses an index that is not there
        self._open: tuple[str, Any] | None = None

    def tensors(self, image_id: str) -> dict[str, np.ndarray]:
        """Facet name → array, as stored (float16 or float32; indices as integers)."""
        places = self._places(image_id)
        if not places:
            raise BadData(f"{self.folder} has no features of image '{image_id}'. Run its features stage again.")
        return {facet: self._shard(shard).get_tensor(f"{image_id}/{facet}") for shard, facet in places}

    def shards_of(self, ids: Iterable[str]) -> list[str]:
        """The files that hold the facets of these images, sorted."""
        return sorted({shard for image_id in ids for shard, _ in self._places(image_id)})

    def _places(self, image_id: str) -> list[tuple[str, str]]:
        """(shard, facet) of all that is stored of an image."""
        index = self.folder / INDEX
        groups = [number for number, (first, last) in enumerate(image_bounds(index)) if first <= image_id <= last]
        return [place for number in groups for place in _places_of_group(index, number, file_state(index)).get(image_id, ())]

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


@lru_cache(maxsize=2)
def _places_of_group(index: Path, number: int, state: FileState) -> dict[str, list[tuple[str, str]]]:
    """Image id → (shard, facet) of what is stored of it, in a row group; read once as long as the file is the same."""
    places: dict[str, list[tuple[str, str]]] = {}
    rows = read_group(index, FEATURES, number)
    for image_id, shard, facet in zip(*(rows[column].to_pylist() for column in ("image_id", "shard", "facet")), strict=True):
        places.setdefault(image_id, []).append((shard, facet))
    return places


def read_for(features: Path | None) -> tuple[list[Path], Callable[[Iterable[str]], list[Piece]]]:
    """(files that are read for any image, ids → what is read for some images beside these) of a features artefact; nothing for None."""
    if features is None:
        return [], lambda ids: []
    shards = FeatureShards(features)
    return shards.listings, shards.pieces


class FeatureSource(Protocol):
    """Where a stage reads the features of a dataset's images."""

    @property
    def folder(self) -> Path | None:
        """A folder with the features of all images, as the features stage writes it; None where none are read."""
        ...

    @property
    def seconds(self) -> float:
        """What the backbone took so far, over all workers, without loading it."""
        ...

    @property
    def elapsed(self) -> float:
        """What passed meanwhile, in seconds."""
        ...

    def of_shards(self, count: int, needed: Callable[[int], bool]) -> Iterator[tuple[Path | None, range]]:
        """(a folder with features, the numbers of some shards), until each of ``count`` shards came once, in order.

        Parameters
        ----------
        count
            Number of shards.
        needed
            Whether the features of the shard of a number are read. The folder may lack others; it is None where none of them are.
            It is there until the next is asked for.
        """
        ...

    def remove(self) -> None:
        """Remove what was computed for this stage alone."""
        ...


@dataclass(frozen=True)
class StoredFeatures:
    """The features in an artefact of the features stage; None for a stage that reads none. See ``FeatureSource``."""

    folder: Path | None = None
    seconds: float = 0.0
    elapsed: float = 0.0

    def of_shards(self, count: int, needed: Callable[[int], bool]) -> Iterator[tuple[Path | None, range]]:
        yield self.folder, range(count)

    def remove(self) -> None:
        """Do nothing: other stages read them."""


NO_FEATURES = StoredFeatures()


def feature_source(
    layout: Layout,
    reader: str,
    backbone: str | None,
    dataset: str,
    spec: FeatureSpec | None,
    shards: Sequence[Sequence[str]],
    private: Path | None = None,
) -> FeatureSource:
    """Where a stage reads the features of a dataset.

    Parameters
    ----------
    layout
        Of the project.
    reader
        Name of the cell that reads them.
    backbone
        Name of the backbone in the profile; None for a stage that reads no features.
    dataset
        Name of the dataset.
    spec
        How they are computed; None where they are stored.
    shards
        Ids of the images, shard by shard, where they are computed.
    private
        Folder of unfinished results; None for that of the project.
    """
    if backbone is None or spec is None:
        return StoredFeatures(layout.features(backbone, dataset) if backbone else None)
    computed = pkgutil.resolve_name(f"{COMPUTES_FEATURES}:ComputedFeatures")
    source: FeatureSource = computed(
        private or layout.private, f"{reader}/{dataset}", backbone, spec, Images(layout.images(dataset)), shards
    )
    return source
