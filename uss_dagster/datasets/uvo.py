"""UVO frames: every object in frames of videos, whatever it is; class-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from uss_dagster.datasets.base import Archive, DatasetSpec, Example, LimitedParams
from uss_dagster.datasets.formats.coco_json import Picture, examples_of, find_coco
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


SPEC = DatasetSpec(
    name="uvo",
    title="UVO frames",
    params=Params,
    truth="instances",
    licence="annotations as the UVO site states; videos from Kinetics-400, under the terms of YouTube",
    citation="W. Wang, M. Feiszli, H. Wang, D. Tran. Unidentified Video Objects. IEEE/CVF ICCV, 2021.",
    homepage="https://sites.google.com/view/unidentified-video-object",
    counts={"val": 7356, "train": 15414},
    archives=(Archive("UVO_frame_val.json", under="FrameSet"), Archive("UVO_frame_train.json", under="FrameSet")),
    instructions="Ask for the videos and download the annotations on the UVO site, then extract the annotated frames with the authors' program.",
    get_it=(
        "Fetch UVO_frame_val.json (FrameSet) and the videos from the UVO site, extract the frames with the authors' program into "
        "uvo_videos_sparse_frames/, put both into a folder named 'uvo', and set USS_MIRROR to the folder that holds 'uvo'."
    ),
)


def examples(params: Params) -> Iterator[Example]:
    """Annotated frames, named video-frame, ascending; truth is their objects, in the order of the file."""
    name = f"UVO_frame_{params.split}.json"
    file = find_coco(SPEC, (f"FrameSet/{name}", name, f"annotations/{name}"))
    folder = find(SPEC, ("uvo_videos_sparse_frames", "images", f"collect_{params.split}_images"))
    return examples_of(file, folder, SPEC, params.split, params.limit, name=frame_id)


def frame_id(picture: Picture, path: Path) -> str:
    """'video-frame', from the path of the file below the folder."""
    return picture.file.removesuffix(path.suffix).replace("/", "-")
