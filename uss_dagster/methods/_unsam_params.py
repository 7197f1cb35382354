"""Parameters of UnSAM, in sections, and its presets."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from uss_dagster.bounds import PART, POSITIVE, SHARE, at_least, check_bounds, within, wrong_value
from uss_dagster.graphs.affinity import TauMode
from uss_dagster.methods._points import Facet
from uss_dagster.methods._spectral import Graph
from uss_dagster.methods.base import of_preset

TREES = (
    (0, "joined", 0.2),
    (1, "bank", 0.2),
    (2, "dictionary", 0.2),
    (0, "dictionary", 0.4),
    (1, "backbone", 0.4),
    (2, "bank", 0.05),
)
"""Contour scales (``contour_merge``'s own, then its two others), features, and size exponent of the trees beside the averaged one."""

DEEP_TREES = ((0, "backbone", 0.2), (1, "backbone", 0.1), (2, "backbone", 0.3))
"""Trees that are added where the features are those of a network; chosen on half of the COCO sample, see docs/unsam.md."""

RefineKind = Literal["none", "guided", "crf"]


@dataclass(frozen=True)
class PoolLimits:
    """Which masks stay in the pool, see ``Pool``."""

    confidence: float
    min_score: float
    iou: float
    most: int


@dataclass(frozen=True)
class Preset:
    """Values of the parameters of the same names that are not given. refine: see ``Refinement.kind``."""

    pool: PoolLimits
    refine: RefineKind


PRESETS = {
    "train": Preset(PoolLimits(confidence=0.1, min_score=0.0, iou=0.9, most=1000), "none"),
    "clean": Preset(PoolLimits(confidence=0.3, min_score=0.2, iou=0.8, most=200), "guided"),
}


@dataclass(frozen=True)
class Cuts:
    """MaskCut on views of the image: the divide stage on patches.

    Parameters
    ----------
    rounds : int
        Masks a view, at most. Default 6.
    tau : float
        Cosine above which two patches are joined. Default 0.15, as in Wang et al., CVPR 2023.
    tau_mode : {'auto', 'absolute', 'relative'}
        What ``tau`` means, see ``joining_cosine``. Default 'auto'.
    joined : float
        Share of the pairs that 'relative' joins, 0 to 1. Default 0.6.
    eps : float
        Weight of patches that are not joined. Default 1e-5.
    cells : int
        Side of the grid that is cut; larger grids are averaged. Default 48.
    tiles : bool
        Images with a shorter side of 512 pixels or more are also cut in 2 × 2 overlapping tiles. Default true.
    min_part : float
        Least share of a view that a part has. Default 0.01.
    iou : float
        Suppression among divide masks. Default 0.8.
    crf : bool
        Divide masks are refined by MaskCut's CRF, see ``crf_mask``. Default false.
    crf_iou : float
        One that this changes to a lower IoU with what it was is dropped. Default 0.5, as in MaskCut.
    """

    rounds: int = 6
    tau: float = 0.15
    tau_mode: TauMode = "auto"
    joined: float = 0.6
    eps: float = 1e-5
    cells: int = 48
    tiles: bool = True
    min_part: float = 0.01
    iou: float = 0.8
    crf: bool = False
    crf_iou: float = 0.5

    def __post_init__(self) -> None:
        check_bounds(self, rounds=at_least(1), joined=SHARE, cells=at_least(2), tau=within(-1, 1), eps=PART, min_part=PART, iou=SHARE)
        check_bounds(self, crf_iou=SHARE)


@dataclass(frozen=True)
class Merge:
    """Merging of the patches in the box of a divide mask: the conquer stage on patches.

    Parameters
    ----------
    crop : int
        Side to which a box is stretched, in pixels. Default 256.
    grid : int
        Patches a side, at most. Default 32.
    thetas : list of float or None
        Falling cosines at which clusters are read. The authors use 0.6, 0.5, …, 0.1 with DINO ViT-B/8. Default None: ``fit`` chooses those
        that leave ``clusters`` clusters of an image on average.
    clusters : list of float
        Falling numbers of clusters. Default 64, 32, 16, 8, 4, 2.
    min_patches : int
        Least patches of a cluster. Default 4.
    inside : float
        Least share of a cluster inside its divide mask. Default 0.9.
    """

    crop: int = 256
    grid: int = 32
    thetas: tuple[float, ...] | None = None
    clusters: tuple[float, ...] = (64.0, 32.0, 16.0, 8.0, 4.0, 2.0)
    min_patches: int = 4
    inside: float = 0.9

    def __post_init__(self) -> None:
        if self.thetas is not None and (not self.thetas or any(b >= a for a, b in pairwise(self.thetas))):
            raise wrong_value("thetas", self.thetas, "one or more, each below the one before")
        if not self.clusters or min(self.clusters) < 1 or list(self.clusters) != sorted(self.clusters, reverse=True):
            raise wrong_value("clusters", self.clusters, "one or more of 1 and above, falling")
        check_bounds(self, crop=at_least(8), grid=at_least(2), min_patches=at_least(1), inside=SHARE)


@dataclass(frozen=True)
class LeafTrees:
    """Both stages on the leaves of a contour map.

    Parameters
    ----------
    most : int
        Leaves, at most. Default 900.
    trees : int
        Trees that are merged beside the averaged one, 0 to 6. Default 6.
    depth : int
        Depth of the recursive cut. Default 5.
    temperature : float
        Of the graph that is cut, see ``edge_weights``. Default 0.06.
    smallest : int
        Least area of a mask, in pixels at half size. Default 12.
    token_weight : float
        Of a network's features beside those of colour and texture, in all trees. 0 uses them only in the trees of 'backbone', as it is with
        hand-made features. Default 1.
    """

    most: int = 900
    trees: int = len(TREES)
    depth: int = 5
    temperature: float = 0.06
    smallest: int = 12
    token_weight: float = 1.0

    def __post_init__(self) -> None:
        check_bounds(self, most=at_least(1), trees=within(0, len(TREES)), depth=at_least(0), temperature=POSITIVE, token_weight=at_least(0))
        check_bounds(self, smallest=at_least(1))


@dataclass(frozen=True)
class Pool:
    """Which masks stay. None: what the preset says.

    Parameters
    ----------
    confidence : float or None
        A divide mask must exceed it. Default: 0.1 in 'train', 0.3 in 'clean'.
    min_score : float or None
        Least score of a mask. Default: 0, 0.2.
    iou : float or None
        Suppression among all masks. Default: 0.9, 0.8.
    most : int or None
        Masks an image. Default: 1000, 200.
    window : int or None
        A mask is compared with so many of the next ones only, as in the authors' release. Default None, with all.
    history : bool
        On patches, ``source`` also numbers the divide masks, and says of a cluster in which of them it lies, the coarsest threshold at which it
        stands, and the cosine at which it merges with another. Default false.
    """

    confidence: float | None = None
    min_score: float | None = None
    iou: float | None = None
    most: int | None = None
    window: int | None = None
    history: bool = False

    def __post_init__(self) -> None:
        check_bounds(self, confidence=SHARE, min_score=SHARE, iou=SHARE, most=at_least(1), window=at_least(1))


@dataclass(frozen=True)
class Refinement:
    """How borders are moved to those of the image.

    Parameters
    ----------
    kind : {'none', 'guided', 'crf'} or None
        Not at all, by a guided filter (He, Sun & Tang, TPAMI 2013), or by the CRF of MaskCut, which takes far longer. Default None, what the
        preset says: 'none' in 'train', 'guided' in 'clean'.
    iou : float
        A mask that this changes to a lower IoU with what it was is dropped. Default 0.5.
    max_area : float
        A refined mask with more than this share of the image is dropped. Default 0.9.
    """

    kind: RefineKind | None = None
    iou: float = 0.5
    max_area: float = 0.9

    def __post_init__(self) -> None:
        check_bounds(self, iou=SHARE, max_area=SHARE)


@dataclass(frozen=True)
class Params:
    """All parameters of UnSAM.

    Parameters
    ----------
    preset : {'train', 'clean'}
        Many masks for a student to learn from, or few that are likely right: values of ``pool`` and ``refine.kind``. Default 'train'.
    divide : {'cuts', 'student', 'masks'}
        The divide stage: cuts, the masks of a trained student, or masks made elsewhere, as by a detector. On leaves a mask takes the leaves of
        which it has half. Default 'cuts'.
    model : str
        The student's folder, or in a profile its name. Goes with ``divide`` 'student', and only with it. Default empty.
    masks : str
        The file or folder of masks made elsewhere, as ``path`` of the method ``masks``. Goes with ``divide`` 'masks', and only with it. Default
        empty.
    graph : {'auto', 'dense', 'local'}
        On patches ('dense') or on leaves ('local'); 'auto' is on leaves, and on patches where ``merge.thetas`` are given for a network.
        Default 'auto'.
    facet : {'keys', 'tokens', 'queries', 'values'}
        The features. Default 'keys'.
    cuts : Cuts
        Divide, on patches.
    merge : Merge
        Conquer, on patches.
    leaves : LeafTrees
        Both, on leaves.
    pool : Pool
        Which masks stay.
    refine : Refinement
        Of the masks' borders.
    long_side : int
        An image longer than 4/3 of it is reduced to it, in pixels. Default 480.
    full_size : bool
        On patches, tiles and the boxes of divide masks are cut from the image itself, not from the reduced one: an image with a shorter side of
        512 or more then has tiles. Default false.
    seed : int
        Of the textons and the patch dictionary. Default 0.
    """

    preset: Literal["clean", "train"] = "train"
    divide: Literal["cuts", "student", "masks"] = "cuts"
    model: str = ""
    masks: str = ""
    graph: Graph = "auto"
    facet: Facet = "keys"
    cuts: Cuts = Cuts()
    merge: Merge = Merge()
    leaves: LeafTrees = LeafTrees()
    pool: Pool = Pool()
    refine: Refinement = Refinement()
    long_side: int = 480
    full_size: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if bool(self.model) != (self.divide == "student"):
            raise wrong_value(
                "divide", f"'{self.divide}' and model '{self.model}'", "both or neither: a model goes with divide=student, and only with it"
            )
        if bool(self.masks) != (self.divide == "masks"):
            raise wrong_value(
                "divide", f"'{self.divide}' and masks '{self.masks}'", "both or neither: masks go with divide=masks, and only with it"
            )
        check_bounds(self, long_side=at_least(16))

    @property
    def limits(self) -> PoolLimits:
        """Those of ``pool``, from the preset where they are not given."""
        return of_preset(PRESETS[self.preset].pool, self.pool)

    @property
    def refine_kind(self) -> RefineKind:
        return self.refine.kind or PRESETS[self.preset].refine
