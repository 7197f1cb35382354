"""``uss segment``: any method on a person's own images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uss_dagster.commands.options import (
    AsJson,
    Backbone,
    BackboneParameters,
    Images,
    LongSide,
    Method,
    MethodParameters,
    echo,
    echo_error,
    echo_json,
)

OUT = Path("segments")


def segment(
    images: Images,
    method: Method = "contour_merge",
    backbone: Backbone = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results; made if it is not there.")] = OUT,
    param: MethodParameters = None,
    backbone_param: BackboneParameters = None,
    long_side: LongSide = 1024,
    regions: Annotated[int, typer.Option(min=1, metavar="N", help="How many regions an overlay shows; the tables hold all.")] = 12,
    explorer: Annotated[bool, typer.Option(help="Write the explorer page, which takes about as long as the regions.")] = True,
    json: AsJson = False,
) -> None:
    """Segment your own images with any method.

    Writes into the folder, for each image, an overlay NAME.png (at most --long-side pixels), and for all of them together
    regions.parquet (every region with its parent), regions.json (COCO; file_name counts from the folder that holds all images) and
    explorer.html, a page to explore them.
    The same images and parameters give the same bytes.
    """
    from uss_dagster.commands.parameters import make_segmenter
    from uss_dagster.own_images.segment import Target, segment_images

    segmenter = make_segmenter(method, param, backbone, backbone_param, long_side)
    counts = segment_images(images, segmenter, Target(out, regions, explorer=explorer), echo_error if json else echo, echo_error)
    if json:
        rows = [{"image": name, "regions": count, "overlay": str(out / f"{name}.png")} for name, count in counts.items()]
        echo_json({"folder": str(out), "method": method, "images": rows})
