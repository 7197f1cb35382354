"""The entries that ``uss recommend`` compares, from ``entries.yaml``: segmenters on backbones that they share."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np

from uss_dagster.backbones.base import Encoder, Features
from uss_dagster.datasets.base import Sample
from uss_dagster.files import parse_yaml
from uss_dagster.metrics.unlabelled.rank_model import DEEP, kind_of
from uss_dagster.regions import Regions
from uss_dagster.segmenter import Segmenter
from uss_dagster.weights.catalogue import weights_named
from uss_dagster.weights.store import present

FACETS = ("tokens", "keys")


@dataclass(frozen=True)
class RivalEntry:
    """One entry.

    Parameters
    ----------
    name, title : str
    segmenter : Segmenter
        Without a backbone; see ``backbone``.
    backbone : str
        'deep', 'patches', or empty.
    """

    name: str
    title: str
    segmenter: Segmenter
    backbone: str = ""

    @property
    def method(self) -> str:
        return self.segmenter.method

    @property
    def labels(self) -> str:
        """What labels its weights have seen, in words; '' for none."""
        return weights_named(DEEP).labels if self.backbone == "deep" else ""

    @property
    def full_title(self) -> str:
        """The title, which says what labels the weights have seen."""
        return f"{self.title} [weights have seen {self.labels}]" if self.labels else self.title

    @property
    def kind(self) -> str:
        return kind_of(self.method, self.backbone)


def read_entries(deep: bool) -> list[RivalEntry]:
    """All entries in the order of the file. deep: with those that need the pretrained encoder."""
    sections = parse_yaml(resources.files(__package__).joinpath("entries.yaml").read_bytes())
    entries = []
    for name, section in sections.items():
        if deep or section.get("backbone") != "deep":
            segmenter = Segmenter.of(section.get("method", name), section.get("params", {}))
            entries.append(RivalEntry(name, section["title"], segmenter, section.get("backbone", "")))
    return entries


def make_encoders(deep: bool) -> dict[str, Encoder]:
    """The backbones of the entries by name."""
    encoders = {"patches": Encoder.of("patches", {"facets": list(FACETS)})}
    if deep:
        encoders["deep"] = Encoder.of("vit", {"model": DEEP, "facets": list(FACETS)})
    return encoders


def has_deep_weights() -> bool:
    """Whether the weights of the pretrained encoder are on this machine."""
    return present(weights_named(DEEP)) is not None


def encode(image: np.ndarray, encoders: dict[str, Encoder]) -> dict[str, Features]:
    """The features of an image by each backbone."""
    return {name: encoder([image])[0] for name, encoder in encoders.items()}


def segment(entry: RivalEntry, image_id: str, image: np.ndarray, features: dict[str, Features], encoders: dict[str, Encoder]) -> Regions:
    """The regions of an entry on an image; there may be none."""
    backbone = entry.backbone or None
    sample = Sample(image_id, image, features[backbone] if backbone else None, encoders[backbone] if backbone else None)
    return entry.segmenter.segment(sample, allow_empty=True)
