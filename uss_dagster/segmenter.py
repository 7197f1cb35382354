"""Runs a method: fits it to a set of samples, and segments one sample after the other.

The stages ``segments`` and ``mask_pool`` and the commands ``uss spot-check``, ``uss segment`` and ``uss curate`` all use the class
``Segmenter``, so that a method sees the same input and passes the same checks in each of them.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from uss_dagster import registry
from uss_dagster.artifacts.features import NO_FEATURES, FeatureShards, FeatureSource
from uss_dagster.artifacts.image_files import shrunk
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.tables import no_mask
from uss_dagster.backbones.base import Encoder, Features
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData
from uss_dagster.methods.base import MethodSpec
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Segmenter:
    """A method with its parameters and its backbone. It pickles, so that worker processes can use it.

    Parameters
    ----------
    method : str
        Name of the method's plug-in.
    params : dataclass
        The method's parameters, an instance of ``SPEC.params``. ``Segmenter.of`` builds it from plain values.
    encoder : Encoder, default None
        The backbone. None for a method that reads pixels only, or whose samples come with features and that encodes nothing itself.
    long_side : int, pixels, default 0
        Larger images are reduced to this size before they are segmented. 0: never.
    state : object, default None
        What the method learned from all samples, see ``fit``.

    Examples
    --------
    >>> segmenter = Segmenter.of("felzenszwalb", {"scales": 2})
    >>> segmenter.segment_image("grey", np.full((4, 6, 3), 128, np.uint8)).shape
    (4, 6)
    """

    method: str
    params: Any
    encoder: Encoder | None = None
    long_side: int = 0
    state: Any = None

    @classmethod
    def of(cls, method: str, values: Mapping[str, Any], encoder: Encoder | None = None, long_side: int = 0) -> Segmenter:
        """A segmenter from parameter values as they stand in a profile; unknown names and wrong types are refused."""
        params = registry.build_params(registry.load("method", method).SPEC.params, values, f"method '{method}'")
        return cls(method, params, encoder, long_side)

    @property
    def module(self) -> ModuleType:
        """The plug-in module of the method."""
        module: ModuleType = registry.load("method", self.method)
        return module

    @property
    def spec(self) -> MethodSpec:
        spec: MethodSpec = self.module.SPEC
        return spec

    @property
    def on_device(self) -> bool:
        """Whether the backbone runs on a device, so that one process segments all images."""
        return self.encoder is not None and bool(registry.load("backbone", self.encoder.kind).SPEC.device)

    @property
    def state_digest(self) -> str:
        """SHA-256 of the state, part of the key of everything that is computed with it; empty without a state."""
        return hashlib.sha256(pickle.dumps(self.state)).hexdigest() if self.state is not None else ""

    @property
    def identity(self) -> list[object]:
        """What the regions of an image depend on beside its pixels and the code, as a JSON value."""
        encoder = asdict(self.encoder) if self.encoder else None
        return [self.method, registry.params_to_dict(self.params), encoder, self.long_side, self.state_digest]

    def modules(self) -> list[str]:
        """The modules whose code decides what regions come out."""
        plugins = [("method", self.method)] + ([("backbone", self.encoder.kind)] if self.encoder else [])
        return [__name__, *(registry.module_name(family, name) for family, name in plugins)]

    def fit(self, samples: Iterable[Sample]) -> Segmenter:
        """This segmenter with what its method learns from all samples; unchanged where the method learns nothing.

        samples: can be iterated more than once, holds one image in memory at a time, and knows its length.
        """
        if not hasattr(self.module, "fit"):
            return self
        return replace(self, state=self.module.fit(samples, self.params))

    def sample(self, image_id: str, image: np.ndarray) -> Sample:
        """The sample of an image, uint8 (H, W, 3): reduced to the long side, with the features that the method needs."""
        pixels = shrunk(image, self.long_side) if self.long_side else image
        features = self.encoder([pixels])[0] if self.encoder and (self.spec.needs or self.spec.optional) else None
        return Sample(image_id, pixels, features, self.encoder)

    def segment(self, sample: Sample, allow_empty: bool = False) -> Regions:
        """Regions of a sample, at its size, without regions that have no pixel.

        Raises
        ------
        BadData
            The regions have another size than the sample, or there are none and ``allow_empty`` is false. Where a method that only reads
            results has none, ``no_mask`` stands for them.
        """
        regions: Regions = self.module.segment(sample, self.params, self.state)
        size = sample.image.shape[:2]
        if regions.shape != size:
            raise BadData(
                f"Method '{self.method}' gave regions of {regions.shape} for image '{sample.image_id}' of {size} (height, width)."
            )
        regions = regions.pruned()
        if not len(regions) and not allow_empty and self.spec.imported:
            return no_mask(size)
        if not len(regions) and not allow_empty:
            raise BadData(f"Method '{self.method}' gave no region for image '{sample.image_id}'; at least the whole image is expected.")
        return regions

    def segment_image(self, image_id: str, image: np.ndarray) -> Regions:
        """Regions of an image, uint8 (H, W, 3), at its own size. There may be none."""
        return at_size(self.segment(self.sample(image_id, image), allow_empty=True), image)


def at_size(regions: Regions, image: np.ndarray) -> Regions:
    """Regions of a reduced image at the size of the image itself."""
    height, width = image.shape[:2]
    return regions if regions.shape == (height, width) else regions.resized(height, width).pruned()


@dataclass(frozen=True)
class Samples:
    """Samples of a dataset, read from its artefacts one at a time, as often as they are iterated.

    Parameters
    ----------
    ids : list of str
        Which images, in this order.
    images : Path
        The folder ``images`` of the dataset artefact.
    features : FeatureSource
        Where the features of a backbone are. Default: samples without features.
    encoder : Encoder, default None
        The backbone, for a method that encodes pieces of an image itself.
    """

    ids: list[str]
    images: Path
    features: FeatureSource = NO_FEATURES
    encoder: Encoder | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Sample]:
        images = Images(self.images)
        folder = self.features.folder
        shards = FeatureShards(folder) if folder else None
        for image_id in self.ids:
            features = Features(shards.tensors(image_id), shards.backbone, shards.comparable) if shards else None
            yield Sample(image_id, images.pixels(image_id), features, self.encoder)


def few_regions_warning(method: str, counts: Sequence[int]) -> str:
    """A sentence where most images have one region or none, which a method gives when it finds nothing; '' otherwise.

    Parameters
    ----------
    method
        Name of the method.
    counts
        Number of regions of each image.
    """
    empty = sum(count <= 1 for count in counts)
    if not counts or empty <= len(counts) / 2:
        return ""
    return (
        f"Method '{method}' found nothing but the whole image in {empty} of {len(counts)} images. Its thresholds may not fit this backbone or "
        f"these images; `uss list {method}` shows its parameters."
    )
