"""Photographs that installed packages bring along: no download, and no ground truth.

scikit-image and scikit-learn, which this package needs anyway, hold the files themselves; nothing is fetched.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from uss_dagster.artifacts.image_files import decode, encode_png, shrunk
from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.errors import Unavailable
from uss_dagster.regions import Regions

PICTURES = {
    "astronaut": "skimage/data/astronaut.png",
    "chelsea": "skimage/data/chelsea.png",
    "china": "sklearn/datasets/images/china.jpg",
    "coffee": "skimage/data/coffee.png",
    "flower": "sklearn/datasets/images/flower.jpg",
    "motorcycle": "skimage/data/motorcycle_left.png",
    "retina": "skimage/data/retina.jpg",
    "rocket": "skimage/data/rocket.jpg",
}
"""Image id → package and file in it, by ascending id."""


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which pictures, and their size.

    Parameters
    ----------
    longest : int
        Longer side in pixels. A larger picture is reduced and stored as PNG, a smaller one stays as released. Default: 480.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    longest: int = 480

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.longest < 16:
            raise ValueError(f"longest is {self.longest}, expected at least 16 pixels.")


SPEC = dataset_spec(__file__, Params)


def inputs(params: Params) -> list[Path]:
    """The files in the installed packages: another version of a picture makes the dataset stale."""
    return [_file(name) for name in _names(params)]


def examples(params: Params) -> Iterator[Example]:
    """The pictures by ascending id, without regions."""
    for image_id in _names(params):
        path = _file(image_id)
        if not path.is_file():
            raise Unavailable(f"The picture {PICTURES[image_id]} is not in the installed packages. {SPEC.get_it}")
        data, suffix = path.read_bytes(), path.suffix
        pixels = decode(data, image_id)
        small = shrunk(pixels, params.longest)
        if small is not pixels:
            data, suffix = encode_png(small), ".png"
        yield Example(image_id, data, suffix, "all", Regions.from_masks([], shape=small.shape[:2]))


def _names(params: Params) -> list[str]:
    return list(PICTURES)[: params.limit]


def _file(image_id: str) -> Path:
    """Where the file of a picture is. The packages are not imported: that takes a second."""
    package, _, name = PICTURES[image_id].partition("/")
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return Path(folders[0] if folders else package, name)
