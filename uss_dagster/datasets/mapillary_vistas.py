"""Mapillary Vistas v1.2: street scenes of all continents, 65 classes, nested as their official names are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.class_trees import Classes, load_classes
from uss_dagster.datasets.formats.files import find
from uss_dagster.datasets.formats.pairs import examples_of_pairs, pairs_beside
from uss_dagster.errors import BadData


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which images.

    Parameters
    ----------
    split : str
        One with public labels: training or validation. Default: validation.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    split: Literal["training", "validation"] = "validation"


CLASSES = load_classes("mapillary_vistas")

SPEC = dataset_spec(__file__, Params, CLASSES.tree)


def examples(params: Params) -> Iterator[Example]:
    """Images of the split by ascending id, as released; truth is the tree of regions of their classes."""
    pictures = find(SPEC, [f"{place}{params.split}/images" for place in ("", "mapillary_vistas/", "vistas/")])
    labels = next((p for p in (pictures.parent / "v1.2" / "labels", pictures.parent / "labels") if p.is_dir()), None)
    if labels is None:
        raise BadData(f"{pictures.parent} has neither v1.2/labels nor labels. {SPEC.get_it}")
    pairs = pairs_beside(pictures, ".jpg", labels, ".png", SPEC)
    return examples_of_pairs(pairs[: params.limit], params.split, numbered_as(pictures.parent.parent), SPEC)


def numbered_as(release: Path) -> Classes:
    """The class tree with label ids as the release numbers its classes, in config.json, or config_v1.2.json beside a version 2.0."""
    paths = [release / name for name in ("config_v1.2.json", "config.json")]
    path = next((p for p in paths if p.is_file()), None)
    if path is None:
        raise BadData(f"{release} holds neither config_v1.2.json nor config.json, which numbers the classes. {SPEC.get_it}")
    try:
        names = [str(label["name"]) for label in json.loads(path.read_text(encoding="utf-8"))["labels"]]
    except (ValueError, KeyError, TypeError) as error:
        raise BadData(f"{path} is no configuration of Mapillary Vistas ({type(error).__name__}: {error}). {SPEC.get_it}") from error
    official = {CLASSES.tree.names[node]: node for node in CLASSES.node.values()}
    strange = sorted(set(names) ^ set(official))
    if strange or len(names) != len(official):
        raise BadData(
            f"{path} numbers {len(names)} classes, version 1.2 has {len(official)}; different: {', '.join(strange[:5]) or 'a name stands twice'}."
            " Use the labels of version 1.2."
        )
    return Classes(CLASSES.tree, MappingProxyType({number: official[name] for number, name in enumerate(names)}))
