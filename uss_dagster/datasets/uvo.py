"""UVO frames: every object in frames of videos, whatever it is; class-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from uss_dagster.datasets.base import Archive, DatasetSpec, Example
from uss_dagster.datasets.formats.coco_json import examples_of, open_coco
from uss_dagster.datasets.formats.files import check_limit, find


@dataclass(frozen=True)
class Params:
    """split: val or train of the FrameSet. limit: only the first so many frames by id, or all."""

    split: Literal["val", "train"] = "val"
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit)


GET_IT = (
    "Fetch UVO_frame_val.json (FrameSet) and the videos from the UVO site, extract the frames with the authors' program into "
    "uvo_videos_sparse_frames/, put both into a folder named 'uvo', and set USS_MIRROR to the folder that holds 'uvo'."
)

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
)


def examples(params: Params) -> Iterator[Example]:
    """Annotated frames, named video-frame, ascending; truth is their objects, in the order of the file."""
    name = f"UVO_frame_{params.split}.json"
    file = open_coco(find((SPEC.name,), (f"FrameSet/{name}", name, f"annotations/{name}"), GET_IT), GET_IT)
    folder = find((SPEC.name,), ("uvo_videos_sparse_frames", "images", f"collect_{params.split}_images"), GET_IT)
    yield from examples_of(
        file,
        lambda picture: folder / picture.file,
        split=params.split,
        what="UVO",
        node=None,
        redo=GET_IT,
        limit=params.limit,
        name=lambda picture, path: picture.file.removesuffix(path.suffix).replace("/", "-"),
    )
