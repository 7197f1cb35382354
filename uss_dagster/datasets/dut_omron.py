"""DUT-OMRON: salient objects on backgrounds that are not simple, one mask an image."""

from __future__ import annotations

from collections.abc import Iterator

from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.figures import FIGURES, examples_of_figures
from uss_dagster.datasets.formats.files import find
from uss_dagster.datasets.formats.pairs import pairs_beside

SPEC = dataset_spec(__file__, LimitedParams, FIGURES.tree)


def examples(params: LimitedParams) -> Iterator[Example]:
    """All images by ascending id, as released; truth is their object and background."""
    pictures = find(SPEC, ("DUT-OMRON-image/DUT-OMRON-image", "DUT-OMRON-image"))
    masks = find(SPEC, [f"{folder}pixelwiseGT-new-PNG" for folder in ("", "DUT-OMRON-gt-pixelwise.zip/", "DUT-OMRON-gt-pixelwise/")])
    return examples_of_figures(pairs_beside(pictures, ".jpg", masks, ".png", SPEC)[: params.limit], "all", SPEC)
