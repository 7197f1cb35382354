"""ADE20K SceneParse150: scenes of all kinds in 150 classes, without parts. For objects with their parts see ade20k_full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from uss_dagster.datasets.base import Archive, DatasetSpec, Example, LimitedParams, mirror_advice
from uss_dagster.datasets.formats.class_trees import load_classes
from uss_dagster.datasets.formats.files import find
from uss_dagster.datasets.formats.pairs import examples_of_pairs, pairs_beside


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which images.

    Parameters
    ----------
    split : str
        Of the Scene Parsing benchmark: training or validation. Default: validation.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    split: Literal["training", "validation"] = "validation"


CLASSES = load_classes("ade20k")

SPEC = DatasetSpec(
    name="ade20k",
    title="ADE20K SceneParse150",
    params=Params,
    truth="classes",
    licence="annotations BSD-3-Clause (MIT CSAIL); images for non-commercial research and education only",
    citation=(
        "B. Zhou, H. Zhao, X. Puig, S. Fidler, A. Barriuso, A. Torralba. Scene Parsing through ADE20K Dataset. IEEE Conference on Computer "
        "Vision and Pattern Recognition, 2017."
    ),
    homepage="http://sceneparsing.csail.mit.edu",
    classes=CLASSES.tree,
    counts={"training": 20210, "validation": 2000},
    archives=(
        Archive(
            "ADEChallengeData2016.zip",
            ("http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",),
            md5="7328b3957e407ddae1d3cbf487f149ef",
        ),
    ),
    get_it=mirror_advice("ade20k", "Fetch ADEChallengeData2016.zip from the MIT Scene Parsing Benchmark site, extract it"),
)


def examples(params: Params) -> Iterator[Example]:
    """Images of the split by ascending id, as released; truth is the tree of regions of their classes."""
    pictures = find(SPEC, [f"{place}images/{params.split}" for place in ("ADEChallengeData2016/", "")])
    labels = pictures.parent.parent / "annotations" / params.split
    pairs = pairs_beside(pictures, ".jpg", labels, ".png", SPEC)
    return examples_of_pairs(pairs[: params.limit], params.split, CLASSES, SPEC)
