"""The mask pool of one image: the masks of one entry or several without duplicates, in one hierarchy, each with its measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from uss_dagster.bounds import Bounds, at_least, check_bounds
from uss_dagster.curation.duplicates import image_signature
from uss_dagster.curation.measures import measure
from uss_dagster.curation.overlaps import last_before
from uss_dagster.curation.stability import check_views
from uss_dagster.curation.tables import SOURCE_IMAGES, mask_rows
from uss_dagster.errors import BadData
from uss_dagster.graphs.mask_nms import mask_nms
from uss_dagster.regions import Regions

ONE_COLOUR = "it is of one colour"
"""The problem of an image that shows nothing."""


@dataclass(frozen=True)
class MaskPoolParams:
    """How the masks of one image are pooled.

    Parameters
    ----------
    iou : float, default 0.9
        Of two masks with a greater IoU the larger one stays (0.9 as in UnSAM). Above 0, at most 1.
    most : int, default 1000
        Greatest number of masks an image; those of the best score stay.
    refine : bool, default True
        Measure how much a guided filter changes each mask (``refined_iou``). It takes most of the time.
    views : tuple of str, default ()
        Views in which the method runs again to measure ``stability``: 'flip' and scales such as '0.75'. Each costs as much as the method.
    """

    iou: float = 0.9
    most: int = 1000
    refine: bool = True
    views: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_bounds(self, iou=Bounds("above 0 to 1", lambda iou: 0 < iou <= 1), most=at_least(1))
        check_views(self.views)


def mask_pool_defaults(preset: str) -> dict[str, bool]:
    """Parameters of the mask pool that depend on the preset of the curation: only 'clean' needs ``refined_iou``."""
    return {"refine": preset == "clean"}


@dataclass(frozen=True)
class MaskFamily:
    """The masks that one entry found in an image.

    Parameters
    ----------
    entry : str
    regions : Regions
        K masks.
    stability : float32 array of shape (K,), optional
        See ``stability.stability``. Empty if it was not measured.
    """

    entry: str
    regions: Regions
    stability: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))


def pool_masks(image_id: str, image: np.ndarray, families: Sequence[MaskFamily], params: MaskPoolParams) -> pa.Table:
    """Merge mask families of one image, remove duplicates, nest what is left, and measure it.

    Parameters
    ----------
    image_id : str
    image : uint8 array of shape (height, width, 3)
    families : sequence of MaskFamily
        At least one.
    params : MaskPoolParams

    Returns
    -------
    pyarrow.Table
        Schema ``MASKS``, from large to small; a mask's parent is the smallest mask that contains it whole.

    Raises
    ------
    BadData
        If masks and image differ in size.
    """
    merged = merge_families([family.regions for family in families])
    if merged.shape != image.shape[:2]:
        raise BadData(f"Image '{image_id}' is {image.shape[:2]} (height, width), its masks are over {merged.shape}.")
    stability = np.concatenate([f.stability if len(f.stability) else np.full(len(f.regions), np.nan) for f in families])
    entries = np.repeat([family.entry for family in families], [len(family.regions) for family in families])
    keep = np.flatnonzero(merged.area > 0)
    if len(keep):
        keep = keep[mask_nms(merged.select(keep), merged.area[keep].astype(np.float64), params.iou)]
    if len(keep) > params.most:
        keep = keep[np.lexsort((np.arange(len(keep)), -merged.score[keep]))[: params.most]]
    keep = keep[np.lexsort((keep, -merged.area[keep]))]
    regions = nest(merged.select(keep))
    measures = {**measure(image, regions, params.refine), "stability": stability[keep]}
    return mask_rows(image_id, regions, entries[keep].astype(str).tolist(), measures)


def merge_families(families: Sequence[Regions]) -> Regions:
    """Several mask families over one image as one, in order and without parents.

    Raises
    ------
    BadData
        If the families are over images of different sizes.
    """
    first = families[0]
    atoms, members = first.atoms, first.members
    for other in families[1:]:
        if other.shape != first.shape:
            raise BadData(f"Masks of one image must have one size, got {first.shape} and {other.shape} (height, width).")
        width = other.members.shape[1]
        pairs, place = np.unique(atoms.astype(np.int64) * width + other.atoms, return_inverse=True)
        members = np.concatenate([members[:, pairs // width], other.members[:, pairs % width]])
        atoms = place.reshape(first.shape).astype(np.int32)
    source = tuple(s for family in families for s in family.source)
    columns = {name: np.concatenate([getattr(family, name) for family in families]) for name in ("level", "score", "label")}
    return Regions(atoms, members, source=source, **columns)


def nest(regions: Regions) -> Regions:
    """Regions sorted from large to small, each with the smallest earlier one that contains it whole as its parent."""
    if not len(regions):
        return regions
    members = regions.members.astype(np.float64)  # exact: areas are below 2⁵³
    parent = last_before(members @ (members * regions.atom_area).T >= regions.area[:, None])
    return Regions(regions.atoms, regions.members, parent, **regions.columns)


def source_image_row(image_id: str, file_name: str, sha256: str, image: np.ndarray | None, problem: str = "") -> pa.Table:
    """One image as a table of one row, schema ``SOURCE_IMAGES``.

    Parameters
    ----------
    image_id, file_name : str
    sha256 : str
        Of the file's bytes.
    image : uint8 array of shape (height, width, 3), or None
        None if it could not be read; then there are no size and no signature.
    problem : str, default ""
        Why the image cannot be used.
    """
    signature = image_signature(image) if image is not None else None
    row = {
        "image_id": image_id,
        "file_name": file_name,
        "sha256": sha256,
        "height": image.shape[0] if image is not None else 0,
        "width": image.shape[1] if image is not None else 0,
        "hash": signature.hash if signature else 0,
        "mirrored": signature.mirrored if signature else 0,
        "colours": signature.colours.tobytes() if signature else b"",
        "problem": problem or (ONE_COLOUR if signature and signature.one_colour else ""),
    }
    return pa.Table.from_pylist([row], schema=SOURCE_IMAGES)
