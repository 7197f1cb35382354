"""UVO frames: every object in frames of videos, whatever it is; class-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.coco_json import examples_of, find_coco
from uss_dagster.datasets.formats.files import find


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which frames.

    Parameters
    ----------
    split : str
        Of the FrameSet: val or train. Default: val.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    split: Literal["val", "train"] = "val"


SPEC = dataset_spec(__file__, Params)


def examples(params: Params) -> Iterator[Example]:
    """Annotated frames, named video-frame, ascending; truth is their objects, in the order of the file."""
    name = f"UVO_frame_{params.split}.json"
    file = find_coco(SPEC, (f"FrameSet/{name}", name, f"annotations/{name}"))
    folder = find(SPEC, ("uvo_videos_sparse_frames", "images", f"collect_{params.split}_images"))
    return examples_of(
        file, folder, SPEC, params.split, params.limit, name=lambda picture, path: picture.file.removesuffix(path.suffix).replace("/", "-")
    )
