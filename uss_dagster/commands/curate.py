"""``uss curate``: a training set of nested masks from a person's own images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uss_dagster.commands.options import Backbone, BackboneParameters, Images, LongSide, Method, MethodParameters, echo, echo_error
from uss_dagster.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from uss_dagster.curation.mask_pool import MaskPoolParams
    from uss_dagster.curation.params import CurateParams


def curate(
    images: Images,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the set; a second run computes only what changed.")],
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="COCO json of human masks, merged as UnSAM+ does.")
    ] = None,
    preset: Annotated[str, typer.Option(metavar="clean|train", help="Few good masks, or as many as help training.")] = "train",
    method: Method = "unsam",
    backbone: Backbone = None,
    param: MethodParameters = None,
    backbone_param: BackboneParameters = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter of pooling or curation, as min_area=100; can be repeated."),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", metavar="coco|splits|images|metadata", help="What to write; can be repeated. [default: coco]"),
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the kept images to DIR/data, beside labels.json.")] = False,
    long_side: LongSide = 1024,
    title: Annotated[str, typer.Option(metavar="TEXT", help="Title of the set, for the datasheet.")] = "Curated masks",
    licence: Annotated[str, typer.Option(metavar="TEXT", help="Licence of the images, for the datasheet and the json.")] = "not stated",
) -> None:
    """Make a training set of nested masks from your own images.

    Masks are found without labels, measured, filtered and nested. Near-duplicate images are set aside (listed in set_aside.csv) and
    never lie in two splits. The folder gets labels.json (COCO), masks.parquet, images.parquet, report.html with the checks, and a
    datasheet. The same images and parameters give the same bytes; a killed run continues where it stopped.
    """
    from uss_dagster.commands.parameters import make_segmenter
    from uss_dagster.own_images.curate import Request, curate_images

    pool, params = parse_settings(setting or [], preset, formats or [])
    segmenter = make_segmenter(method, param, backbone, backbone_param, long_side)
    request = Request(segmenter, out, pool, params, labels, copy, title, licence)
    curate_images(images, request, echo, echo_error)


def parse_settings(words: Sequence[str], preset: str, formats: Sequence[str]) -> tuple[MaskPoolParams, CurateParams]:
    """The parameters of pooling and of curation from ``name=value`` words."""
    from uss_dagster import registry
    from uss_dagster.commands.parameters import parse_parameters
    from uss_dagster.curation.mask_pool import MaskPoolParams, mask_pool_defaults
    from uss_dagster.curation.params import CurateParams

    owners = {field.name: owner for owner in (MaskPoolParams, CurateParams) for field in fields(owner)}
    values: dict[type, dict[str, Any]] = {MaskPoolParams: mask_pool_defaults(preset), CurateParams: {"preset": preset}}
    if formats:
        values[CurateParams]["formats"] = list(formats)
    for word in words:
        name = word.partition("=")[0]
        if name not in owners:
            raise UsageError(f"--set: there is no parameter '{name}'.{did_you_mean(name, owners)}")
        values[owners[name]].update(parse_parameters([word], owners[name], "--set"))
    pool = registry.build_params(MaskPoolParams, values[MaskPoolParams], "--set")
    return pool, registry.build_params(CurateParams, values[CurateParams], "--set")
