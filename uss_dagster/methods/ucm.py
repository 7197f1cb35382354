"""Imported hierarchies: ultrametric contour maps computed elsewhere, one file an image.

With the default parameters these are the gPb-owt-ucm maps that ship with BSDS500. Their contour detector was trained on human
boundaries, so the entry is marked as supervised.

Reference: Arbeláez et al., "Contour detection and hierarchical image segmentation", TPAMI 33(5), 2011.
"""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uss_dagster.bounds import wrong_value
from uss_dagster.datasets.base import Sample, mirror_folder
from uss_dagster.errors import BadData, Unavailable
from uss_dagster.graphs.ucm import ucm_tree
from uss_dagster.methods.base import MethodSpec
from uss_dagster.regions import Regions

_SLOT = "{image_id}"


@dataclass(frozen=True)
class Params:
    """All parameters.

    Parameters
    ----------
    folder : str
        Of the maps, absolute or below USS_MIRROR. Default 'bsds500/ucm2/test'.
    pattern : str
        File of an image in it: ``.mat`` with the variable ``ucm2``, or ``.npz`` with the arrays ``values`` and ``index``, so that ``ucm2`` is
        ``values[index]``. Maps are (2 · height + 1, 2 · width + 1). Default '{image_id}.npz'.
    sha256 : str or None
        Of the listing of all such files, see ``listing_sha256``. The pipeline does not watch the folder; this pins it. Default None.
    """

    folder: str = "bsds500/ucm2/test"
    pattern: str = "{image_id}.npz"
    sha256: str | None = None

    def __post_init__(self) -> None:
        if self.pattern.count(_SLOT) != 1 or not self.pattern.endswith((".npz", ".mat")):
            raise wrong_value("pattern", f"'{self.pattern}'", f"{_SLOT} once and the ending .npz or .mat")


SPEC = MethodSpec(
    name="ucm",
    title="Ultrametric contour maps (imported)",
    params=Params,
    paper="Arbeláez et al., TPAMI 2011",
    licence="free for non-commercial research and education (the maps that ship with BSDS500)",
    supervised=True,
    imported=True,
    reimplementation=False,
    summary="Hierarchies computed elsewhere, read from files. gPb-owt-ucm learnt its contours from human boundaries.",
)


def segment(sample: Sample, params: Params, state: object = None) -> Regions:
    """The tree of the image's map: region 0 is the image, ``level`` the strength of the strongest contour inside a region, source 'ucm'."""
    folder = _folder(params)
    if params.sha256 is not None and (digest := listing_sha256(folder, params.pattern)) != params.sha256.lower():
        raise BadData(
            f"The maps {params.pattern} in {folder} have the listing sha256 {digest}, but the entry pins {params.sha256}; "
            "fetch the maps again, or correct 'sha256'."
        )
    path = folder / params.pattern.replace(_SLOT, sample.image_id)
    if not path.is_file():
        raise Unavailable(f"Image '{sample.image_id}' has no ready-made map: {path} does not exist. Fetch it, or correct 'pattern'.")
    ucm2 = _read(path)
    height, width = sample.image.shape[:2]
    if ucm2.shape != (2 * height + 1, 2 * width + 1):
        raise BadData(
            f"{path} holds a map of {ucm2.shape}, but image '{sample.image_id}' of ({height}, {width}) needs one of double size, "
            f"({2 * height + 1}, {2 * width + 1}); make sure that the maps are of the same images."
        )
    labels, tree = ucm_tree(ucm2)
    return Regions.from_tree(tree.leaf[labels], tree.parent, level=tree.height, source="ucm")


@functools.cache
def listing_sha256(folder: Path, pattern: str) -> str:
    """SHA-256 of the lines ``<sha256 of a file>  <name>`` of all files that fit the pattern, by ascending name."""
    listing = hashlib.sha256()
    for path in sorted(folder.glob(pattern.replace(_SLOT, "*"))):
        listing.update(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n".encode())
    return listing.hexdigest()


def _folder(params: Params) -> Path:
    mirror = os.environ.get("USS_MIRROR")
    folder = Path(params.folder) if Path(params.folder).is_absolute() else mirror_folder(params.folder)
    if folder is None and not mirror:
        raise Unavailable(
            f"Ready-made maps are not here: 'folder' is '{params.folder}', below USS_MIRROR, which is not set. "
            "Set it to the folder that holds your datasets, or give an absolute 'folder'."
        )
    if folder is None or not folder.is_dir():
        raise Unavailable(
            f"Ready-made maps are not here: {folder or f'{mirror}/{params.folder}'} is no folder. The gPb-owt-ucm maps come with "
            "BSR_bsds500.tgz of the Berkeley Computer Vision Group (folder ucm2); put them there, or correct 'folder'."
        )
    return folder


def _read(path: Path) -> np.ndarray:
    """The map of one file, float64 (2H + 1, 2W + 1)."""
    try:
        if path.suffix == ".mat":
            from scipy.io import loadmat

            return np.asarray(loadmat(path, variable_names=["ucm2"])["ucm2"], np.float64)
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays["values"], np.float64)[arrays["index"]]
    except Exception as error:  # each of the two readers has its own exception for every way in which a file can be broken
        content = "the variable ucm2" if path.suffix == ".mat" else "the arrays values and index"
        raise BadData(f"{path} cannot be read as a map with {content} ({type(error).__name__}: {error}). Fetch it again.") from error
